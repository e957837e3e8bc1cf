"""The self-test: passes on a sound bundle, names errors, keeps `load` from starting."""

from __future__ import annotations

import shutil
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle, BundleWriter, Golden
from logoformer.engine.golden import SHARES, allowed_share, distance, selftest
from logoformer.errors import VerificationError


def test_a_sound_bundle_passes_and_the_runtime_works_on(untrained_bundle: Path):
    for precision in ("fp32", "fp16"):
        with logoformer.load(untrained_bundle, precision=precision, selftest=True) as runtime:
            report = selftest(runtime)
            report.require()
            assert report.passed and [check.what for check in report.checks] == ["clip", "frame + temporal"]
            assert report.to_json()["passed"] and report.precision == precision
            assert runtime(runtime.bundle.golden().clips[0], color="rgb").sequence == 0


def test_wrong_answers_keep_load_from_starting(untrained_bundle: Path, tmp_path: Path):
    path = Path(shutil.copytree(untrained_bundle, tmp_path / "wrong.bundle"))
    bundle, writer = Bundle(path), BundleWriter(path)
    golden = bundle.golden()
    wrong = Golden(golden.clips, np.roll(golden.probabilities, 1, axis=0))
    writer.commit({**bundle.manifest, "golden": writer.add_golden(wrong, "planted")})
    logoformer.load(path).close()
    with pytest.raises(VerificationError, match="self-test failed") as caught:
        logoformer.load(path, selftest=True)
    assert caught.value.exit_code == 5 and len(caught.value.log) == 2


def test_an_answer_that_is_not_finite_is_said(untrained_bundle: Path):
    with logoformer.load(untrained_bundle) as runtime:
        runtime.session("temporal").run = lambda: runtime.session("temporal").output("probabilities").fill(np.nan)
        report = selftest(runtime)
        assert [check.passed for check in report.checks] == [True, False]
        with pytest.raises(VerificationError, match="frame \\+ temporal: an answer is not finite"):
            report.require()


def test_distance_is_relative_to_what_differs_between_clips():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((50, 7))

    def softmax(z):
        p = np.exp(z)
        return (p / p.sum(1, keepdims=True)).astype(np.float32)

    share, agreement = distance(softmax(logits), softmax(logits + 3.0))
    assert share < 1e-5 and agreement == 1.0  # a constant is no difference
    near = logits + np.float64([[0.1, -0.1, 0, 0, 0, 0, 0]])
    wide, _ = distance(softmax(near), softmax(logits))
    narrow, _ = distance(softmax(near * 0.1), softmax(logits * 0.1))
    assert wide == pytest.approx(0.1 / np.sqrt((logits - logits.mean(1, keepdims=True)).var(0).mean()), rel=1e-3)
    assert narrow == pytest.approx(wide, rel=1e-2)
    assert distance(np.full((3, 2), np.nan, np.float32), np.float32([[0.1, 0.9], [0.9, 0.1], [0.5, 0.5]]))[0] == np.inf
    assert distance(np.float32([[0.1, 0.9]] * 2), np.float32([[0.1, 0.9]] * 2))[0] == np.inf, (
        "one answer proves nothing"
    )


def test_what_is_allowed_is_never_below_the_rounding_of_float32():
    """Two logits of size 1: four millionths of that, over the deviation between the clips."""
    random = np.random.default_rng(0)
    for deviation, wanted in ((1.0, 0.001), (0.1, 0.001), (0.0004, 0.01), (4e-5, 0.1)):
        logits = np.array([1.0, -1.0]) + deviation * np.array([1.0, -1.0]) * random.choice([-1, 1], (2000, 1))
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        assert allowed_share("fp32", shares) == pytest.approx(wanted, rel=0.05)
    assert allowed_share("int8", shares) == SHARES["int8"]
    assert allowed_share("fp32", shares[:1].repeat(4, 0)) == SHARES["fp32"]
