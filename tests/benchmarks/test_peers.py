"""The peers: rotating inputs, the same answers where the weights are the same, and reasons where one is left out."""

from __future__ import annotations

import contextlib
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.benchmarks import peers as p
from logoformer.errors import BadInputError, RefusedError


def open_others(bundle, wanted, threads=1, progress=None):
    with contextlib.ExitStack() as closing:
        return p.open_others(wanted, bundle, "fp32", threads, p.Inputs.of(bundle), closing, progress)


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
        ours = p.clip_peer(p.open_ours(toy, "fp32", 1, closing), inputs, p.CLIP)
        plain = p.ort_peer(toy, "fp32", 1, inputs)
        for index in range(6):
            want = golden.probabilities[index % len(golden.clips)]
            assert ours.answer(index).probabilities == pytest.approx(want, abs=1e-5)
            assert plain.answer(index).probabilities == pytest.approx(want, abs=1e-5)
        assert list(ours.answer(0).stages_ms) == ["preprocess", "clip", "postprocess"]
        assert plain.answer(0).stages_ms == {}


def test_the_stream_answers_for_every_frame(toy):
    inputs = p.Inputs.of(toy)
    with contextlib.ExitStack() as closing:
        engine = p.open_ours(toy, "fp32", 1, closing)
        stream = p.stream_peer(engine, inputs, p.STREAM)
        given = [stream.answer(index) for index in range(120)]
        for index in (0, 5, 80, 119):
            want = engine(inputs.seen_by_stream(index, toy), color="rgb").probabilities
            assert given[index].probabilities == pytest.approx(want, abs=1e-5)
    assert list(given[0].stages_ms) == ["preprocess", "frame", "temporal", "postprocess"]


# --------------------------------------------------------------------------------------------------------------- others
def test_torch_runs_the_architecture_with_the_threads_given(toy):
    torch = pytest.importorskip("torch")
    before, seen = torch.get_num_threads(), []
    found, skipped = open_others(toy, (p.EAGER,), threads=1, progress=lambda *call: seen.append(call))
    assert not skipped
    assert torch.get_num_threads() == before  # given back
    assert seen == [("opening torch", 0, 1)]
    (peer,) = found
    assert not peer.same_weights
    assert "random weights" in peer.what
    a, b = peer.answer(0).probabilities, peer.answer(1).probabilities
    assert a.shape == (7,)
    assert a.dtype == np.float32
    assert a.sum() == pytest.approx(1, abs=1e-5)
    assert (a != b).any()


def test_torch_threads_are_set_while_it_is_timed(toy):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    other = 1 if before > 1 else 2
    with contextlib.ExitStack() as closing:
        p.open_others((p.EAGER,), toy, "fp32", other, p.Inputs.of(toy), closing)
        assert torch.get_num_threads() == other
    assert torch.get_num_threads() == before


def test_without_torch_its_peers_are_skipped_with_the_reason(toy, monkeypatch):
    for name in [name for name in sys.modules if name == "torch" or name.startswith("logoformer.model.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    found, skipped = open_others(toy, p.OTHERS)
    assert [peer.name for peer in found] == [p.ORT]
    assert skipped == [
        p.Skipped(p.EAGER, "torch is not installed"),
        p.Skipped(p.COMPILED, "torch is not installed"),
    ]


def test_without_a_compiler_torch_compile_is_skipped_with_the_reason(toy, monkeypatch):
    torch = pytest.importorskip("torch")

    def broken(model, **_):
        def call(_clip):
            raise RuntimeError("\nNo working C++ compiler found\n  in a long trace")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    found, skipped = open_others(toy, (p.EAGER, p.COMPILED))
    assert [peer.name for peer in found] == [p.EAGER]
    assert skipped == [p.Skipped(p.COMPILED, "RuntimeError: No working C++ compiler found")]


def test_a_compiled_model_that_answers_otherwise_is_skipped(toy, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch, "compile", lambda model, **_: lambda clip: model(clip) + torch.eye(7)[:1] * 3)
    _, skipped = open_others(toy, (p.COMPILED,))
    assert skipped[0].name == p.COMPILED
    assert "differ by" in skipped[0].reason


def test_a_damaged_bundle_is_not_skipped(make_toy):
    bundle = make_toy()
    graph = bundle.path / bundle.graph("clip", "fp32").file
    inputs = p.Inputs.of(bundle)
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    with contextlib.ExitStack() as closing, pytest.raises(RefusedError):
        p.open_others((p.ORT,), bundle, "fp32", 1, inputs, closing)
