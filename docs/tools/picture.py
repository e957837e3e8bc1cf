"""Draw `docs/answer.png`: frames of a synthetic video, and beside them the answer to the clip that they are of.

    python docs/tools/picture.py BUNDLE        (`make picture` takes the bundle of `make demo`)

The face is drawn by `logoformer synth`, the answer is computed, the panel is that of `logoformer run -o`.
"""

from __future__ import annotations

import sys
import tempfile
from collections import deque
from pathlib import Path

import logoformer
import numpy as np
from logoformer.bundle.files import parse_json, write_atomic
from logoformer.camera.overlay import draw_panel
from logoformer.camera.sources.open import open_source
from logoformer.camera.sources.video import load_cv2
from logoformer.model.synthetic.layout import write_untrimmed
from logoformer.model.synthetic.recordings import FIRST_VIDEO_IDENTITY

PICTURE = Path(__file__).parents[1] / "answer.png"
SIDE = 180  # pixels of one frame; there are two by two
LABEL = "sad"  # told by what is shown, not by its order in time
PERSON = FIRST_VIDEO_IDENTITY + 3  # in no training set


def draw_answer(bundle: Path, out: Path, label: str = LABEL) -> str:
    """Draws the picture; returns the label that the bundle gave.

    Args:
        bundle: of a model that was trained on the synthetic faces.
        out: the PNG.
        label: the expression that the face shows.
    """
    cv2 = load_cv2("Drawing a picture")
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "video.mp4"
        write_untrimmed(video, side=SIDE, identity=PERSON)
        spans = parse_json(video.with_suffix(".json").read_bytes(), "the video's labels")
        end_s = next(span["end_s"] for span in spans if span["label"] == label)
        with (
            logoformer.load(bundle) as runtime,
            open_source(video) as source,
            runtime.stream(hop=1, color="bgr") as stream,
        ):
            sampling = runtime.bundle.sampling
            seen = deque(maxlen=round(sampling.span_s * sampling.fps))
            for captured in source:
                seen.append(captured.frame)
                result = stream.push(captured.frame, captured.time_s)
                if result is not None and captured.time_s >= end_s - 0.1:
                    break
            shares = dict(zip(runtime.labels, result.probabilities.tolist(), strict=True))
            line = {"label": result.label, "probabilities": shares}
            panel = draw_panel(cv2, 2 * SIDE, runtime.labels, line, captured.time_s)
    shown = [seen[round(place * (len(seen) - 1))] for place in (0.05, 0.35, 0.65, 0.95)]
    frames = np.concatenate([np.concatenate(shown[:2], axis=1), np.concatenate(shown[2:], axis=1)])
    picture = np.concatenate([frames, panel], axis=1)
    written, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not written:
        raise OSError(f"{out} could not be encoded")
    write_atomic(out, data.tobytes())
    return str(result.label)


if __name__ == "__main__":
    print(f"{PICTURE}: {draw_answer(Path(sys.argv[1]), PICTURE)}")
