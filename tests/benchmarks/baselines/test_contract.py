"""What is timed side by side: rotating inputs, and the same answers where the weights are the same."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.benchmarks.baselines import contract as p
from logoformer.benchmarks.baselines.programs import Opening, ort_baseline
from logoformer.errors import BadInputError


# --------------------------------------------------------------------------------------------------------------- inputs
@settings(max_examples=50, deadline=None)
@given(count=st.integers(2, 5), frames=st.integers(1, 4), index=st.integers(0, 200))
def test_no_input_follows_itself(count, frames, index):
    every = np.arange(count * frames, dtype=np.uint8).reshape(count, frames, 1, 1, 1)
    inputs = p.Inputs(np.broadcast_to(every, (count, frames, 2, 2, 3)), 25.0)
    assert (inputs.clip(index) != inputs.clip(index + 1)).all()
    assert (inputs.frame(index) != inputs.frame(index + 1)).all()
    # After count * frames steps every frame was pushed once.
    assert sorted(int(inputs.frame(i)[0, 0, 0]) for i in range(count * frames)) == list(range(count * frames))


def test_one_clip_is_not_enough():
    with pytest.raises(BadInputError, match="rotates at least 2"):
        p.Inputs(np.zeros((1, 8, 4, 4, 3), np.uint8), 25.0)


def test_the_clip_a_stream_sees_is_picked_by_time(toy):
    inputs = p.Inputs.of(toy)
    seen = inputs.seen_by_stream(100, toy)
    # A recording of 70 frames that ends with frame 100: the centre of each of 8 segments, as for a training clip.
    tick = 70 / 8
    wanted = [31 + int(tick / 2 + tick * k) for k in range(8)]
    assert (seen == np.stack([inputs.frame(i) for i in wanted])).all()
    # At the start the first frame stands for what is missing.
    assert (inputs.seen_by_stream(0, toy) == inputs.frame(0)).all()


# ----------------------------------------------------------------------------------------------------------------- ours
def test_ours_and_plain_onnxruntime_answer_alike(toy):
    inputs, golden = p.Inputs.of(toy), toy.golden()
    with contextlib.ExitStack() as closing:
        ours = p.clip_baseline(p.open_ours(toy, "fp32", 1, closing), inputs, p.CLIP)
        plain = ort_baseline(Opening(toy, "fp32", 1, inputs, closing))
        for index in range(6):
            want = golden.probabilities[index % len(golden.clips)]
            assert ours.answer(index).probabilities == pytest.approx(want, abs=1e-5)
            assert plain.answer(index).probabilities == pytest.approx(want, abs=1e-5)
        assert list(ours.answer(0).stages_ms) == ["preprocess", "clip", "postprocess"]
        assert plain.answer(0).stages_ms == {}


def test_the_stream_answers_for_every_frame(toy):
    inputs = p.Inputs.of(toy)
    with contextlib.ExitStack() as closing:
        runtime = p.open_ours(toy, "fp32", 1, closing)
        stream = p.stream_baseline(runtime, inputs, p.STREAM)
        given = [stream.answer(index) for index in range(120)]
        for index in (0, 5, 80, 119):
            want = runtime(inputs.seen_by_stream(index, toy), color="rgb").probabilities
            assert given[index].probabilities == pytest.approx(want, abs=1e-5)
    assert list(given[0].stages_ms) == ["preprocess", "frame", "temporal", "postprocess"]
