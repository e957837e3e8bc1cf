"""`load` and `runtime(clip)` on a real bundle and the real ONNX Runtime."""

from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.clips import resize
from logoformer.engine.sessions.backends import choose_precisions
from logoformer.errors import BadInputError, RefusedError, UsageError, VerificationError


@pytest.fixture(scope="module")
def runtime(untrained_bundle: Path):
    with logoformer.load(untrained_bundle, threads=1) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def golden(untrained_bundle: Path):
    return Bundle(untrained_bundle).golden()


def test_golden_answers(runtime, golden):
    for clip, wanted in zip(golden.clips, golden.probabilities, strict=True):
        result = runtime(clip, color="rgb")
        np.testing.assert_allclose(result.probabilities, wanted, atol=1e-5)
        assert result.label == runtime.labels[wanted.argmax()] and result.confidence == result.probabilities.max()
        assert list(result.stages_ms)[-3:] == ["preprocess", "clip", "postprocess"] and result.time_s is None


def test_bgr_is_the_same_clip_backwards(runtime, golden):
    clip = golden.clips[0]
    rgb, bgr = runtime(clip, color="rgb"), runtime(np.ascontiguousarray(clip[..., ::-1]), color="bgr")
    np.testing.assert_array_equal(rgb.probabilities, bgr.probabilities)
    wrong = runtime(clip, color="bgr")
    assert not np.array_equal(rgb.probabilities, wrong.probabilities)


def test_other_sizes_go_through_the_one_resize(runtime):
    large = np.random.default_rng(0).integers(0, 256, (8, 90, 120, 3), dtype=np.uint8)
    small = np.stack([resize(frame, 64) for frame in large])
    np.testing.assert_array_equal(runtime(large, color="rgb").probabilities, runtime(small, color="rgb").probabilities)


def test_a_view_is_read_right(runtime, golden):
    wide = np.repeat(golden.clips[0], 2, axis=0)
    np.testing.assert_array_equal(
        runtime(wide[::2], color="rgb").probabilities, runtime(golden.clips[0], color="rgb").probabilities
    )


def test_results_are_the_callers_own_and_counted(runtime, golden):
    first = runtime(golden.clips[0], color="rgb")
    kept = first.probabilities.copy()
    second = runtime(golden.clips[1], color="rgb")
    np.testing.assert_array_equal(first.probabilities, kept)
    assert second.sequence == first.sequence + 1


@pytest.mark.parametrize(
    ("clip", "word"),
    [
        (np.zeros((8, 64, 64, 3), np.float32), "float32"),
        (np.zeros((7, 64, 64, 3), np.uint8), "7 frames"),
        (np.zeros((1, 8, 64, 64, 3), np.uint8), "[1, 8, 64, 64, 3]"),
        (np.zeros((8, 3, 64, 64), np.uint8), "[8, 3, 64, 64]"),
        (np.zeros((8, 0, 64, 3), np.uint8), "[8, 0, 64, 3]"),
        ([[0]], "list"),
        (None, "NoneType"),
    ],
)
def test_a_wrong_clip_is_refused_by_name(runtime, clip, word):
    with pytest.raises(BadInputError) as caught:
        runtime(clip, color="rgb")
    assert word in str(caught.value)


def test_color_has_no_default(runtime, golden):
    with pytest.raises(UsageError, match="channel order"):
        runtime(golden.clips[0])
    with pytest.raises(UsageError, match="'BGR'"):
        runtime(golden.clips[0], color="BGR")
    with pytest.raises(UsageError):
        runtime.stream()


def test_sessions_open_lazily_and_close_once(untrained_bundle):
    runtime = logoformer.load(untrained_bundle)
    assert runtime._sessions == {}
    runtime.session("frame")
    assert list(runtime._sessions) == [("frame", 1)]
    runtime.close()
    runtime.close()
    with pytest.raises(UsageError, match="closed"):
        runtime.session("clip")


def test_precision_follows_the_verdict(untrained_bundle, tmp_path):
    bundle = Bundle(untrained_bundle)
    assert choose_precisions(bundle, "verdict", "onnxruntime")[0] == "fp32"
    assert choose_precisions(bundle, "fp16", "onnxruntime")[0] == "fp16"
    bundle.precisions["fp32"]["verdict"] = "refuse: planted"
    assert choose_precisions(bundle, "verdict", "onnxruntime")[0] == "fp16"
    bundle.precisions["fp16"]["verdict"] = "refuse: planted"
    with pytest.raises(VerificationError, match="accepted"):
        choose_precisions(bundle, "verdict", "onnxruntime")[0]
    with pytest.raises(UsageError, match="int8"):
        choose_precisions(bundle, "int8", "onnxruntime")[0]
    with pytest.raises(UsageError, match="'cuda'"):
        logoformer.load(untrained_bundle, backend="cuda")


def test_fp16_graphs_run_too(untrained_bundle, golden):
    with logoformer.load(untrained_bundle, precision="fp16") as runtime:
        result = runtime(golden.clips[0], color="rgb")
    np.testing.assert_allclose(result.probabilities, golden.probabilities[0], atol=5e-3)


def test_an_entry_that_names_another_graph_is_refused(untrained_bundle):
    from dataclasses import replace

    from logoformer.engine.sessions.ort import OrtSession

    bundle = Bundle(untrained_bundle)
    frame, clip = bundle.graph("frame", "fp32"), bundle.graph("clip", "fp32")
    swapped = replace(clip, file=frame.file, sha256=frame.sha256, size=frame.size)
    with pytest.raises(RefusedError, match="promises"):
        OrtSession(bundle.read_graph(swapped), swapped)
