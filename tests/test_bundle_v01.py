"""A bundle written by version 0.1 opens and answers as it did: `data/bundle-v0.1`, its answers beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle

DATA = Path(__file__).parent / "data"
ANSWERS = json.loads((DATA / "bundle-v0.1-answers.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: opening must not need to write, but a lock or an index beside the committed files is not wanted."""
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")
    return Path(shutil.copytree(DATA / "bundle-v0.1", tmp_path_factory.mktemp("v01") / "face.bundle"))


def test_it_opens_and_says_what_it_is(bundle: Path) -> None:
    opened = Bundle(bundle)
    assert opened.labels == ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
    assert {(entry.graph, entry.precision) for entry in opened.graphs} == {
        ("clip", "fp32"), ("frame", "fp32"), ("temporal", "fp32")
    }  # fmt: skip
    assert len(opened.golden().clips) == 8


def test_its_clips_are_answered_as_by_0_1(bundle: Path) -> None:
    with logoformer.load(bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        found = [runtime(clip, color="rgb").probabilities for clip in runtime.bundle.golden().clips]
    np.testing.assert_allclose(found, ANSWERS["clip"], rtol=0, atol=1e-5)


def test_its_stream_is_answered_as_by_0_1(bundle: Path) -> None:
    found, time_s = [], 0.0
    with (
        logoformer.load(bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime,
        runtime.stream(hop=1, color="rgb", warmup="repeat") as stream,
    ):
        for clip in runtime.bundle.golden().clips:
            for frame in clip:
                result = stream.push(frame, time_s)
                assert result is not None
                found.append(result.probabilities)
                time_s += 0.1
    np.testing.assert_allclose(found, ANSWERS["stream_at_10_fps"], rtol=0, atol=1e-5)
