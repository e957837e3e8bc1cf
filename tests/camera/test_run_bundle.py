"""The verb `run` on a real bundle and a real engine."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.camera.run import run_source
from logoformer.camera.sources.open import open_source
from logoformer.clips import centre_square, pattern_ages

# What makes the bundle is not asked for: the suite of the wheel is given one that is ready.
pytestmark = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="not installed: onnxruntime")


@pytest.fixture(scope="module")
def engine(family_bundle):
    with logoformer.load(family_bundle) as opened:
        yield opened


def moving(count: int, height: int, width: int) -> list[np.ndarray]:
    """Frames `[H, W, 3]` with a smooth pattern that moves, so that the answer depends on which are looked at."""
    rows, columns = np.mgrid[0:height, 0:width] / height
    frames = []
    for index in range(count):
        waves = [np.sin(9 * rows + 0.3 * index * (1 + channel)) * np.cos(7 * columns + channel) for channel in range(3)]
        frames.append(np.round(127 + 120 * np.stack(waves, axis=2)).astype(np.uint8))
    return frames


def go(engine, path, **options) -> tuple[list[dict], object]:
    lines: list[dict] = []
    with open_source(path, fps=engine.bundle.sampling.fps) as source:
        summary = run_source(engine, source, on_result=lines.append, **options)
    return lines, summary


@pytest.mark.parametrize("face", ["whole", "center"])
def test_a_stream_over_one_span_answers_as_the_clip_of_the_same_frames(engine, make_folder, face):
    sampling = engine.bundle.sampling
    frames = moving(sampling.span_frames, 72, 90)
    lines, summary = go(engine, make_folder(frames), face=face, hop=1)
    looked_at = [centre_square(frame) if face == "center" else frame for frame in frames]
    ages = np.rint(pattern_ages(sampling) * sampling.fps).astype(int)  # in frames
    clip = np.stack([looked_at[len(frames) - 1 - age] for age in ages])
    expected = engine(clip, color="rgb")
    assert lines[-1]["frame"] == len(frames) - 1
    assert lines[-1]["label"] == expected.label
    assert list(lines[-1]["probabilities"]) == list(engine.bundle.labels)
    assert list(lines[-1]["probabilities"].values()) == pytest.approx(expected.probabilities.tolist(), abs=1e-4)
    assert (summary.frames, summary.skipped, summary.resets, summary.stopped) == (len(frames), 0, 0, "")


def test_hops_are_counted_once_the_ring_is_warm(engine, make_folder):
    span = engine.bundle.sampling.span_frames
    lines, _ = go(engine, make_folder(moving(span + 20, 48, 48)), hop=5)
    steps = np.diff([line["frame"] for line in lines])
    assert set(steps.tolist()) == {5}
    assert lines[0]["frame"] < span
    assert [line["sequence"] for line in lines] == list(range(len(lines)))
    assert all(sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-4) for line in lines)
    assert all(line["age_ms"] > 0 for line in lines)


def test_a_short_source_gets_its_one_partial_answer(engine, make_folder):
    lines, summary = go(engine, make_folder(moving(5, 48, 48)))
    assert [line.get("partial") for line in lines] == [True]
    assert (lines[0]["frame"], summary.results) == (4, 1)


def test_a_video_gets_lines_and_an_overlay(engine, make_video, tmp_path):
    frames = moving(engine.bundle.sampling.span_frames + 8, 64, 64)
    out = tmp_path / "overlay.mp4"
    lines, summary = go(engine, make_video(frames, fps=engine.bundle.sampling.fps), out=out)
    assert len(lines) >= 2
    assert summary.out == out
    with open_source(out) as written:
        assert written.count == len(frames)


def test_a_folder_runs_without_torch_and_without_opencv(untrained_bundle, make_folder):
    folder = make_folder(moving(6, 48, 48))
    script = (
        "import sys, logoformer\n"
        "from logoformer.camera.run import json_lines, run_source\n"
        "from logoformer.camera.sources.open import open_source\n"
        "with logoformer.load(sys.argv[1]) as engine, open_source(sys.argv[2]) as source:\n"
        "    run_source(engine, source, hop=2, warmup='repeat', on_result=json_lines(sys.stdout))\n"
        "print([name for name in ('torch', 'cv2', 'onnx') if name in sys.modules], file=sys.stderr)\n"
    )
    words = [sys.executable, "-c", script, str(Path(untrained_bundle)), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr.strip().splitlines()[-1] == "[]"
