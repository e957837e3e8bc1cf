"""Stages of a frame, on a clock that counts its own readings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from logoformer.benchmarks.load.camera import STAGES, WARMUP, camera_stages
from logoformer.camera.sources.open import open_source
from logoformer.cli import main as cli
from logoformer.errors import BadInputError
from PIL import Image

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")
FRAMES = 12


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """An astronaut who moves a little, and nobody."""
    data = pytest.importorskip("skimage.data", reason="scikit-image is not installed (the extra 'dev')")
    face = Image.fromarray(data.astronaut()).crop((120, 0, 330, 210)).resize((240, 240))
    folders = []
    for name in ("astronaut", "nobody"):
        folder = tmp_path_factory.mktemp(name)
        for index in range(WARMUP + FRAMES):
            picture = Image.new("RGB", (320, 280), (120, 130, 140))
            if name == "astronaut":
                picture.paste(face, (30 + index, 20))
            picture.save(folder / f"{index}.png")
        folders.append(folder)
    return folders


@pytest.fixture
def runtime(untrained_bundle):
    from logoformer.engine import load

    with load(untrained_bundle, backend="onnxruntime", precision="fp32", threads=1) as opened:
        yield opened


class Counting:
    """Each reading is one second after the last, so that a stage takes as long as readings lie in it."""

    def __init__(self) -> None:
        self.reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return float(self.reads)


def test_each_stage_is_timed_where_it_happens(runtime, footage):
    calls = []
    with open_source(footage[0], 25) as source:
        found = camera_stages(runtime, source, frames=FRAMES, hop=2, clock=Counting(),
                              progress=lambda *call: calls.append(call))  # fmt: skip
    stages = {one.name: one for one in found.stages}
    assert tuple(stages) == STAGES
    assert (found.frames, found.faces, found.size, found.every) == (FRAMES, 1.0, (320, 280), 5)
    assert calls[-1] == ("camera", FRAMES, FRAMES)
    # One reading at each end is a second; inside `find` lie two for each call of detector and tracker.
    for name in ("capture", "track", "align", "frame", "answer"):
        assert stages[name].p50_ms == 1000
    assert stages["detect"].p50_ms >= 3000
    assert found.product_ms == 1000 and stages["align"].products == 1
    assert found.finding.p50_ms == stages["detect"].p50_ms + 2000
    assert runtime.bundle.stream.faces == len(runtime._free_faces)
    assert len({len(row) for row in found.rows()}) == 1
    json.dumps(found.to_json())


def test_nothing_is_told_of_footage_without_a_face_or_without_frames(runtime, footage, tmp_path):
    with open_source(footage[1], 25) as source, pytest.raises(BadInputError, match="0 faces"):
        camera_stages(runtime, source, frames=FRAMES)
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "0.png")
    with open_source(tmp_path, 25) as source, pytest.raises(BadInputError, match="0 frames"):
        camera_stages(runtime, source, frames=FRAMES)


def test_the_verb_prints_them(untrained_bundle, footage, capsys):
    words = ["bench", str(untrained_bundle), "--camera", str(footage[0]), "--iterations", str(FRAMES), "--threads", "1"]
    assert cli.main([*words, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [stage["name"] for stage in said["stages"]] == list(STAGES)
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "detect + track + align" in out and "320 x 280" in out
