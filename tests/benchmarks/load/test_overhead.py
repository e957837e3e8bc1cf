"""The wrapper's own cost: the real runtime and stream over sessions that compute nothing."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from logoformer.benchmarks.baselines.contract import Inputs
from logoformer.benchmarks.load.overhead import HollowSession, measure_wrapper
from logoformer.engine import Runtime
from logoformer.engine.sessions.contract import Backend
from logoformer.engine.worker_thread import WorkerThread


def test_it_is_taken_with_the_clock_given(toy):
    now = [0]

    def clock():  # 250 ns from one look to the next, whatever lies between
        now[0] += 250
        return now[0]

    cost = measure_wrapper(toy, "fp32", Inputs.of(toy), clock)
    assert cost.n == 1000
    figures = (
        cost.clip_p50_us, cost.clip_p95_us, cost.push_p50_us, cost.push_p95_us, cost.worker_p50_us, cost.worker_p95_us,
    )  # fmt: skip
    assert figures == pytest.approx([0.25] * 6)


def test_the_calls_are_told_apart(toy, monkeypatch):
    now = [0]

    def working(ns):
        def run(self):
            now[0] += ns[next(iter(self.inputs))]

        return run

    monkeypatch.setattr(HollowSession, "run", working({"clip": 40_000, "frame": 5_000, "ring": 2_000}))
    cost = measure_wrapper(toy, "fp32", Inputs.of(toy), lambda: now[0])
    assert (cost.clip_p50_us, cost.push_p50_us) == pytest.approx((40, 7))
    assert cost.worker_p50_us == pytest.approx(7)  # waited for: a submission alone would take nothing


def test_the_worker_is_what_is_timed(toy, monkeypatch):
    """With a thread that takes its time between the turn and the answer, only the worker's figure grows."""
    now = [0]
    settle = WorkerThread._settle

    def late(self, task, outcome):
        now[0] += 30_000
        settle(self, task, outcome)

    monkeypatch.setattr(WorkerThread, "_settle", late)
    cost = measure_wrapper(toy, "fp32", Inputs.of(toy), lambda: now[0])
    assert (cost.clip_p50_us, cost.push_p50_us, cost.worker_p50_us) == pytest.approx((0, 0, 30))


def test_no_graph_is_opened(make_toy):
    bundle = make_toy()
    inputs = Inputs.of(bundle)
    shutil.rmtree(bundle.path / "graphs")
    assert measure_wrapper(bundle, "fp32", inputs).clip_p50_us > 0


def test_the_real_runtime_runs_around_it(toy):
    inputs = Inputs.of(toy)
    with Runtime(toy, Backend("hollow", "fp32", HollowSession)) as runtime:
        session = runtime.session("clip")
        session.output("probabilities")[0, 3] = 1
        result = runtime(inputs.clip(1), color="rgb")
        assert (session.input("clip")[0] == inputs.clip(1)).all()  # the copy is part of what is timed
        assert result.label == toy.labels[3]
        with runtime.stream(hop=1, color="bgr", warmup="repeat") as stream:
            stream.push(inputs.frame(2), 0.0)
            assert (runtime.session("frame").input("frame")[0] == inputs.frame(2)[..., ::-1]).all()
            assert runtime.session("temporal").input("order").tolist() == [0] * 8


def test_buffers_are_those_the_index_promises(toy):
    session = HollowSession(toy.graph("temporal", "fp32"))
    assert session.input("order").dtype == np.int32
    assert session.input("ring").shape == toy.graph("temporal", "fp32").inputs[0].shape
    assert session.output("probabilities").shape == (1, 7)
