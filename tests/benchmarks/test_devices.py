"""A run on a card beside baselines on the processor: whose answers may differ by how much, and what makes a ratio.

The card is played by ONNX Runtime whose answers are rounded as FP16 would round them; what it times is nobody's figure
and is not looked at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from logoformer.benchmarks import bench as b
from logoformer.benchmarks.baselines import contract as p
from logoformer.benchmarks.baselines import programs
from logoformer.benchmarks.sensors.find import Sensors

CARD = Sensors((), {"GPU": "Example GPU"})
ROUNDING = 2e-3  # of a logit: below 0.1 % of the toy's deviation between clips, and far above 1e-5 of a probability


class RoundedSession:
    """A session whose probabilities are off by a rounding."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def run(self) -> None:
        self.inner.run()
        if "probabilities" in self.inner.outputs:
            out = self.inner.output("probabilities")
            out[0] = rounded(out[0])


def rounded(probabilities: np.ndarray) -> np.ndarray:
    """The same answer with logits that are off by `ROUNDING`: `[C]` -> `[C]`."""
    off = probabilities * np.exp(ROUNDING * np.cos(np.arange(len(probabilities))))
    return (off / off.sum()).astype(np.float32)


@pytest.fixture
def card(monkeypatch) -> list[str]:
    """Every runtime that bench opens says that it is TensorRT's; gives the backends that were asked for."""
    asked: list[str] = []
    real = p.open_ours

    def open_on_card(bundle, precision, threads, closing, backend="onnxruntime", device=0, strict=False):
        asked.append(backend)
        runtime = real(bundle, precision, threads, closing)
        if backend == "tensorrt":
            runtime.backend = "TensorRT 10.3.0 on sm87 by cuda-python"
            inner = runtime._open_session
            runtime._open_session = lambda entry: RoundedSession(inner(entry))
        return runtime

    monkeypatch.setattr(b, "REST_S", 0.0)
    monkeypatch.setattr(b, "open_ours", open_on_card)
    monkeypatch.setattr(programs, "open_ours", open_on_card)
    return asked


def run(toy, others, **changes):
    config = b.BenchConfig(toy.path, iterations=20, warmup=1, threads=1, others=others, roofline=False, **changes)
    return b.bench(config, sensors=CARD)


def test_a_processors_answers_beside_a_cards_are_judged_by_both_precisions(toy, card):
    report = run(toy, (p.ORT,), backend="tensorrt")
    assert report.row(p.ORT).device == "cpu" and report.row(p.CLIP).device == "Example GPU"
    (accuracy,) = report.accuracy
    assert 1e-5 < accuracy.timed_difference < 1e-2  # the rounding was there, and was compared


def test_ways_without_a_stream_are_timed_on_the_runs_own_device(toy, card):
    report = run(toy, (p.NAIVE, p.PER_FRAME), backend="tensorrt")
    assert set(card) == {"tensorrt"}
    assert {row.device for row in report.rows} == {"Example GPU"}
    pairs = {(c.numerator, c.denominator) for c in report.comparisons}
    assert {(p.STREAM, p.NAIVE), (p.STREAM, p.PER_FRAME)} <= pairs


def test_two_devices_make_no_ratio_and_that_is_said(toy, card):
    report = run(toy, (p.ORT, p.NAIVE), backend="tensorrt")
    pairs = {(c.numerator, c.denominator) for c in report.comparisons}
    assert (p.CLIP, p.ORT) not in pairs and (p.STREAM, p.NAIVE) in pairs
    assert report.notes[-1] == "In no ratio, because they ran on another device than Example GPU: onnxruntime (cpu)."


def test_on_one_device_nothing_is_left_out(toy, card):
    report = run(toy, (p.ORT, p.NAIVE))
    assert {(p.CLIP, p.ORT), (p.STREAM, p.NAIVE)} <= {(c.numerator, c.denominator) for c in report.comparisons}
    assert not any("In no ratio" in note for note in report.notes)


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_a_baseline_that_answers_wrongly_is_left_out_before_the_measuring(toy, card, monkeypatch, backend):
    real, timed = programs.ort_baseline, []

    def wrong(opening):
        baseline = real(opening)
        return replace(baseline, answer=lambda i: p.StepAnswer(baseline.answer(i).probabilities[::-1].copy(), {}))

    run_closed = b.run_closed
    monkeypatch.setitem(programs.OPENERS, p.ORT, wrong)
    monkeypatch.setattr(b, "run_closed", lambda given, *a, **k: timed.extend(given) or run_closed(given, *a, **k))
    report = run(toy, (p.ORT,), backend=backend)
    assert timed and p.ORT not in {baseline.name for baseline in timed}
    (skipped,) = report.skipped
    assert skipped.name == p.ORT and "not the verified ones" in skipped.reason and "is allowed" in skipped.reason


def test_on_the_processor_one_runtime_repeats_itself_closely(toy, card, monkeypatch):
    """What passes beside a card is too much for the same runtime on the same processor."""
    real = programs.ort_baseline

    def off(opening):
        baseline = real(opening)
        return replace(baseline, answer=lambda i: p.StepAnswer(rounded(baseline.answer(i).probabilities), {}))

    monkeypatch.setitem(programs.OPENERS, p.ORT, off)
    assert "1e-05 is allowed" in run(toy, (p.ORT,)).skipped[0].reason
    assert run(toy, (p.ORT,), backend="tensorrt").skipped == ()
