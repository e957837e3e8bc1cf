"""What parity refuses: one bound of several, the pair and not the clip graph, an overflow that answers hide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from logoformer.bundle import StreamSpec
from logoformer.engine.golden import SHARES
from logoformer.errors import VerificationError
from logoformer.export import acceptance
from logoformer.export.acceptance import FP16_SHARE, PrecisionJudge
from logoformer.export.parity import Parity, measure_parity
from logoformer.export.precision import scan

GOOD = Parity(0.0, 1.0, 8, finite=True, evaluator="a", against="b")
LOGITS = np.random.default_rng(0).standard_normal((8, 7))


def probabilities(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits)
    return (e / e.sum(1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, True), ({"share": 0.05}, True), ({"share": 0.0501}, False), ({"agreement": 0.99}, True),
        ({"agreement": 0.98}, False), ({"finite": False}, False),
    ],
    ids=str,
)  # fmt: skip
def test_every_bound_must_hold(change, holds):
    assert replace(GOOD, **change).within(0.05, 0.99) is holds


def test_an_answer_that_is_not_finite_is_as_far_as_can_be():
    wanted = probabilities(LOGITS)
    given = wanted.copy()
    given[3, 2] = np.nan
    found = measure_parity(given, wanted, "a", "b")
    assert not found.finite and found.share == np.inf and found.to_json()["share_of_clip_deviation"] is None


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch):
    """`judge(clip, pair)`: of logits that are off by so much of the deviation between clips."""
    clips = np.zeros((8, 2, 4, 4, 3), np.uint8)
    deviation = float(np.sqrt((LOGITS - LOGITS.mean(1, keepdims=True)).var(0).mean()))

    def make(clip: float, pair: float) -> PrecisionJudge:
        off = np.eye(7)[0] * 7 / 6 * deviation  # centred, its largest entry is one deviation
        monkeypatch.setattr(acceptance, "ort_runner", lambda *_: None)
        monkeypatch.setattr(acceptance, "answers_of_clip_graph", lambda *_: probabilities(LOGITS + clip * off))
        monkeypatch.setattr(acceptance, "answers_of_graph_pair", lambda *_: probabilities(LOGITS + pair * off))
        spec = StreamSpec(slots=4, faces=1, frames=2, grid=1, window=(1, 1, 1), embed_dim=3)
        return PrecisionJudge({}, clips, probabilities(LOGITS), spec, lambda *_: None)

    return make


MODELS = dict.fromkeys(("clip", "frame", "temporal"))


@pytest.mark.parametrize(
    ("clip", "pair", "blamed"),
    [(0.9, 0.9, None), (1.2, 0.9, "FP32 of clip"), (0.0, 1.2, r"FP32 of frame \+ temporal"), (0.9, -0.9, "frame")],
)
def test_fp32_is_refused_by_the_clip_graph_and_by_the_pair(judge, clip, pair, blamed):
    """In units of what is allowed; the pair is held against the clip graph, not against PyTorch."""
    made = judge(clip * SHARES["fp32"], pair * SHARES["fp32"])
    if blamed is None:
        assert made.fp32(MODELS)["verdict"] == "accept"
        return
    with pytest.raises(VerificationError, match=blamed):
        made.fp32(MODELS)


def test_a_network_that_hardly_tells_the_clips_apart_may_round_as_float32_does(judge, monkeypatch):
    """Logits of size 1 that differ by 3.5e-4 between clips, and are off by eight steps of float32."""
    alike = np.linspace(-1.5, 1.5, 7) + 3.5e-4 * LOGITS / LOGITS.std()
    made = replace(judge(0.0, 0.0), truth=probabilities(alike))
    for off, right in ((8 * 2.0**-23, True), (80 * 2.0**-23, False)):
        answers = probabilities(alike + off * np.eye(7)[0])
        monkeypatch.setattr(acceptance, "answers_of_clip_graph", lambda *_, answers=answers: answers)
        monkeypatch.setattr(acceptance, "answers_of_graph_pair", lambda *_, answers=answers: answers)
        if right:
            assert made.fp32(MODELS)["verdict"] == "accept"
        else:
            with pytest.raises(VerificationError, match="FP32 of clip"):
                made.fp32(MODELS)


@pytest.mark.parametrize(
    ("clip", "pair", "overflowing", "verdict"),
    [
        (GOOD, GOOD, [], "accept"),
        (GOOD, GOOD, ["a/Add"], "refuse: use fp32"),
        (replace(GOOD, share=1.01 * FP16_SHARE), GOOD, [], "refuse: use fp32"),
        (GOOD, replace(GOOD, share=1.01 * FP16_SHARE), [], "refuse: use fp32"),
        (GOOD, replace(GOOD, agreement=0.9), [], "refuse: use fp32"),
        (replace(GOOD, agreement=0.9), GOOD, [], "refuse: use fp32"),
    ],
)
def test_fp16_is_refused_by_any_of_them_and_by_an_overflow(judge, monkeypatch, clip, pair, overflowing, verdict):
    monkeypatch.setattr(acceptance, "rounding_parity", lambda *_: (clip, pair))
    monkeypatch.setattr(acceptance, "not_finite", lambda *_: overflowing)
    found = judge(0.0, 0.0).fp16(MODELS, {})
    assert found["verdict"] == verdict and found["probe"]["not_finite"] == overflowing


def test_the_scan_keeps_the_largest_of_all_clips_in_any_order(small_onnx):
    model = onnx.load_from_string(small_onnx("fp32"))
    feeds = [{"image": np.full((1, 3, 16, 16), value, np.uint8)} for value in (255, *[0] * 11, 9)]
    assert scan(model, feeds).largest["image/Cast:out"] == 255.0
