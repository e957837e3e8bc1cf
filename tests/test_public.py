"""The public names: what they are, how they show themselves, and that the package is silent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.errors import BadInputError, UsageError
from PIL import Image

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")


@pytest.fixture
def runtime(untrained_bundle: Path):
    with logoformer.load(untrained_bundle, backend="onnxruntime", precision="fp32", threads=1) as opened:
        yield opened


def test_every_public_class_shows_itself(runtime, untrained_bundle):
    clip = runtime.bundle.golden().clips[0]
    result = runtime(clip, color="rgb")
    assert isinstance(result, logoformer.Result) and isinstance(runtime, logoformer.Runtime)
    assert repr(result) == f"Result({result.label!r}, confidence={result.confidence:.3f}, sequence=0)"
    name = untrained_bundle.name
    assert repr(runtime) == f"<Runtime of {name}: fp32 on {runtime.backend}, {len(runtime.labels)} labels>"
    assert repr(runtime.bundle).startswith(f"Bundle({str(untrained_bundle)!r}: fp16, fp32; 7 labels")
    with runtime.stream(hop=2, color="rgb") as stream:
        assert repr(stream) == "<Stream of face 0: hop 2, rgb, not warm yet>"
    assert repr(stream) == "<Stream of face 0: hop 2, rgb, closed>"
    with runtime.worker() as worker:
        worker.stream(hop=1, color="rgb")
        assert repr(worker) == f"<Worker of {name}: 1 streams, 0 submitted, 0 answered, 0 dropped>"
    runtime.close()
    assert "closed" in repr(runtime)


def test_engine_is_the_old_name_of_runtime():
    with pytest.warns(DeprecationWarning, match="logoformer.Runtime"):
        assert logoformer.Engine is logoformer.Runtime
    assert "Engine" not in logoformer.__all__


def test_errors_are_reached_by_the_package():
    assert logoformer.errors.BadInputError is BadInputError


@pytest.fixture
def recording(runtime, tmp_path):
    """A folder of 30 frames, and the clip that training's rule picks from it: uint8 `[T, S, S, 3]`, RGB."""
    folder = tmp_path / "frames"
    folder.mkdir()
    frames = np.random.default_rng(3).integers(0, 256, (30, 48, 48, 3), np.uint8)
    for index, pixels in enumerate(frames):
        Image.fromarray(pixels).save(folder / f"{index:03}.png")
    s, d = runtime.bundle.sampling.segments, runtime.bundle.sampling.frames_per_segment
    tick = (30 - d + 1) / s  # Former-DFER's rule, written anew
    picked = [min(int(tick / 2 + tick * k) + j, 29) for k in range(s) for j in range(d)]
    return folder, frames[picked]


def test_a_folder_of_frames_is_a_clip(runtime, recording):
    folder, clip = recording
    found = runtime(folder)
    np.testing.assert_array_equal(found.probabilities, runtime(clip, color="rgb").probabilities)
    assert list(found.stages_ms)[:2] == ["decode", "open"]
    assert "open" not in runtime(str(folder)).stages_ms


def test_a_video_is_a_clip(runtime, tmp_path):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'camera')")
    size = runtime.bundle.image_size
    path = tmp_path / "0"  # and not the first camera
    writer = cv2.VideoWriter(str(tmp_path / "0.avi"), cv2.VideoWriter_fourcc(*"FFV1"), 25, (size, size))
    frames = np.random.default_rng(4).integers(0, 256, (runtime.bundle.frames, size, size, 3), np.uint8)
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    (tmp_path / "0.avi").rename(path)
    picked = logoformer.clips.centre_indices(len(frames), runtime.bundle.sampling)
    wanted = runtime(frames[picked], color="rgb").probabilities
    np.testing.assert_allclose(runtime(path).probabilities, wanted, atol=0.02)  # FFV1 keeps YUV


def test_what_is_no_clip_is_refused(runtime, tmp_path, monkeypatch, recording):
    with pytest.raises(BadInputError, match="does not exist"):
        runtime(tmp_path / "gone.mp4")
    monkeypatch.setattr("logoformer.camera.clip_files.MAX_FRAMES", 20)
    with pytest.raises(BadInputError, match="more than 20 frames"):
        runtime(recording[0])
    monkeypatch.setattr(logoformer.Runtime, "read_clip", None)
    with pytest.raises(UsageError, match="reads no files"):
        runtime(recording[0])


def test_opening_a_session_is_a_stage_of_its_own(runtime):
    clip = runtime.bundle.golden().clips[0]
    first, second = runtime(clip, color="rgb").stages_ms, runtime(clip, color="rgb").stages_ms
    assert list(first) == ["open", "preprocess", "clip", "postprocess"]
    assert list(second) == ["preprocess", "clip", "postprocess"]


def test_the_library_logs_under_its_name_and_is_silent(untrained_bundle):
    code = """
import json, logging, sys
import logoformer
seen = []
class Keep(logging.Handler):
    def emit(self, record): seen.append(record.name)
if len(sys.argv) > 2:
    logging.getLogger("logoformer").addHandler(Keep())
    logging.getLogger("logoformer").setLevel("INFO")
with logoformer.load(sys.argv[1], threads=1) as runtime:
    runtime(runtime.bundle.golden().clips[0], color="rgb")
print(json.dumps(seen))
"""
    for words in ((), ("listen",)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(untrained_bundle), *words], capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        names = json.loads(done.stdout)
        assert bool(names) == bool(words) and all(name.startswith("logoformer.") for name in names)
