"""The self-test passes on a sound bundle, names what is wrong, and keeps `load` from starting."""

from __future__ import annotations

import shutil
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle, BundleWriter, Golden
from logoformer.engine.golden import selftest
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
