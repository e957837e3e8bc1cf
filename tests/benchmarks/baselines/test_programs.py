"""Who takes part beside ours: the same answers where the weights are the same, and a reason for everyone left out."""

from __future__ import annotations

import contextlib
import sys
import types

import numpy as np
import pytest
from logoformer.benchmarks.baselines import contract as p
from logoformer.benchmarks.baselines import programs
from logoformer.errors import RefusedError, UsageError

CARD = "NVIDIA Example"
NO_GPU = "there is no NVIDIA GPU on this machine"


def open_list(wanted, bundle, precision, threads, inputs, closing, progress=None, gpu=None):
    opening = programs.Opening(bundle, precision, threads, inputs, closing, gpu)
    return programs.open_others(wanted, opening, progress)


def open_others(bundle, wanted, threads=1, progress=None, gpu=None):
    with contextlib.ExitStack() as closing:
        return open_list(wanted, bundle, "fp32", threads, p.Inputs.of(bundle), closing, progress, gpu)


@pytest.fixture
def opened(toy):
    """`opened(name)`: one baseline that works here, closed after the test."""
    with contextlib.ExitStack() as closing:

        def open_one(name):
            found, skipped = open_list((name,), toy, "fp32", 1, p.Inputs.of(toy), closing)
            assert skipped == []
            return found[0]

        yield open_one


# --------------------------------------------------------------------------------------------------------------- others
def test_torch_runs_the_architecture_with_the_threads_given(toy):
    torch = pytest.importorskip("torch")
    before, seen = torch.get_num_threads(), []
    found, skipped = open_others(toy, (p.EAGER,), threads=1, progress=lambda *call: seen.append(call))
    assert not skipped
    assert torch.get_num_threads() == before  # given back
    assert seen == [("opening torch", 0, 1)]
    (baseline,) = found
    assert not baseline.same_weights
    assert "random weights" in baseline.what
    a, b = baseline.answer(0).probabilities, baseline.answer(1).probabilities
    assert a.shape == (7,)
    assert a.dtype == np.float32
    assert a.sum() == pytest.approx(1, abs=1e-5)
    assert (a != b).any()


def test_torch_threads_are_set_while_it_is_timed(toy):
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    other = 1 if before > 1 else 2
    with contextlib.ExitStack() as closing:
        open_list((p.EAGER,), toy, "fp32", other, p.Inputs.of(toy), closing)
        assert torch.get_num_threads() == other
    assert torch.get_num_threads() == before


def test_without_torch_its_baselines_are_skipped_with_the_reason(toy, monkeypatch):
    for name in [name for name in sys.modules if name == "torch" or name.startswith("logoformer.model.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    found, skipped = open_others(toy, p.OTHERS)
    assert {p.EAGER, p.COMPILED}.isdisjoint(baseline.name for baseline in found)
    assert [item for item in skipped if item.name in (p.EAGER, p.COMPILED)] == [
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
    assert [baseline.name for baseline in found] == [p.EAGER]
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
        open_list((p.ORT,), bundle, "fp32", 1, inputs, closing)


# ------------------------------------------------------------------------------------------------- the bundle's weights
def test_openvino_answers_as_the_bundle_does(opened, toy):
    pytest.importorskip("openvino", reason="OpenVINO is not installed (the extra 'openvino')")
    baseline, golden = opened(p.OPENVINO), toy.golden()
    assert baseline.backend.startswith("openvino 20")
    for index in range(6):
        want = golden.probabilities[index % len(golden.clips)]
        assert baseline.answer(index).probabilities == pytest.approx(want, abs=1e-3)
    a, b = baseline.answer(0).probabilities, baseline.answer(1).probabilities
    assert (a != b).any()  # not one buffer under two names


def test_the_naive_way_sees_what_the_stream_sees(opened, toy):
    inputs, baseline = p.Inputs.of(toy), opened(p.NAIVE)
    assert baseline.same_weights and baseline.hop == 1
    with contextlib.ExitStack() as closing:
        runtime = p.open_ours(toy, "fp32", 1, closing)
        given = [baseline.answer(index) for index in range(130)]
        for index in (0, 5, 80, 129):
            want = runtime(inputs.seen_by_stream(index, toy), color="rgb").probabilities
            assert given[index].probabilities == pytest.approx(want, abs=1e-6)


def test_a_classifier_of_single_frames_sees_no_movement(opened, toy):
    """Two frames that are pushed at other moments, with other frames before, give one answer."""
    baseline = opened(p.PER_FRAME)
    inputs = p.Inputs.of(toy)
    period = len(inputs.clips) * toy.frames
    assert (baseline.answer(3).probabilities == baseline.answer(3 + period).probabilities).all()
    assert (baseline.answer(3).probabilities != baseline.answer(4).probabilities).any()
    assert baseline.answer(0).probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert not baseline.same_weights


# ------------------------------------------------------------------------------------------------------ without a GPU
def test_without_a_gpu_no_gpu_baseline_is_even_tried(toy, monkeypatch):
    tried = lambda *_, **__: pytest.fail("a GPU baseline was opened")  # noqa: E731
    for name in programs.NEED_GPU:
        monkeypatch.setitem(programs.OPENERS, name, tried)
    found, skipped = open_others(toy, programs.NEED_GPU)
    assert found == []
    assert skipped == [p.Skipped(name, NO_GPU) for name in programs.NEED_GPU]


def test_a_provider_that_falls_back_to_the_cpu_is_no_gpu_baseline(toy, monkeypatch):
    """Even on a machine that says it has a card: what ran must be the provider that was asked for."""
    onnxruntime = pytest.importorskip("onnxruntime")
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(programs.PROVIDERS.values()))
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda data, options, providers: real(data, options, ["CPUExecutionProvider"])
    )
    found, skipped = open_others(toy, (p.ORT_CUDA,), gpu=CARD)
    assert found == []
    assert "could not start" in skipped[0].reason


def test_an_onnxruntime_without_the_provider_says_so(toy, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    _, skipped = open_others(toy, (p.ORT_CUDA,), gpu=CARD)
    assert skipped == [p.Skipped(p.ORT_CUDA, "RuntimeError: this onnxruntime has no CUDAExecutionProvider")]


def test_polygraphy_without_tensorrt_says_so(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    _, skipped = open_others(toy, (p.POLYGRAPHY,), gpu=CARD)
    assert skipped == [p.Skipped(p.POLYGRAPHY, "tensorrt is not installed")]


def test_polygraphy_gets_the_names_of_the_graph(toy, monkeypatch):
    """Against the calls that Polygraphy 0.53 documents: a network, a strongly typed engine without TF32, a runner."""
    seen = {}

    class Runner:
        def __init__(self, engine):
            seen["engine"] = engine

        def __enter__(self):
            return self

        def __exit__(self, *_):
            seen["closed"] = True

        def infer(self, feed):
            seen["feed"] = {name: array.shape for name, array in feed.items()}
            return {"probabilities": np.full((1, 7), 1 / 7, np.float32)}

    backend = types.ModuleType("polygraphy.backend.trt")
    backend.NetworkFromOnnxBytes = lambda data, strongly_typed: ("network", len(data), strongly_typed)
    backend.CreateConfig = lambda tf32: ("config", tf32)
    backend.EngineFromNetwork = lambda network, config: (network, config)
    backend.TrtRunner = Runner
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__="10.3.0"))
    monkeypatch.setitem(sys.modules, "polygraphy.backend.trt", backend)
    with contextlib.ExitStack() as closing:
        (baseline,), _ = open_list((p.POLYGRAPHY,), toy, "fp32", 1, p.Inputs.of(toy), closing, gpu=CARD)
        assert baseline.answer(0).probabilities.shape == (7,)
    assert (baseline.device, baseline.backend) == (CARD, "tensorrt 10.3.0 by polygraphy")
    assert seen["feed"] == {"clip": (1, 8, 64, 64, 3)}
    assert seen["engine"][0][2] is True and seen["engine"][1] == ("config", False)
    assert seen["closed"]


# ------------------------------------------------------------------------------------------------------------- choosing
def test_baselines_are_chosen_by_name():
    assert p.chosen_baselines("all") == p.OTHERS
    assert p.chosen_baselines("none") == ()
    assert p.chosen_baselines("torch, openvino") == (p.EAGER, p.OPENVINO)
    for wrong in ("tvm", "torch,tvm", ",", ""):
        with pytest.raises(UsageError, match="Unknown baseline"):
            p.chosen_baselines(wrong)
