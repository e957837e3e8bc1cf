"""Two bundles in one run: opened anew in every round, planted slowdowns found, wrong answers refused."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import numpy as np
import pytest
from logoformer.benchmarks import side_by_side as s
from logoformer.benchmarks.baselines.contract import CLIP, STREAM, Baseline, StepAnswer
from logoformer.benchmarks.compare import change_of
from logoformer.benchmarks.load.closed import LoadConfig
from logoformer.benchmarks.statistics import ratio
from logoformer.cli import main as cli
from logoformer.errors import UsageError, VerificationError

LOAD = LoadConfig(40, 4, settle=3)


class Machine:
    """A clock that moves by drawn latencies: some sessions are slower for as long as they are open."""

    def __init__(self, seed: int, slower: float = 1.0) -> None:
        self.now_ns, self.opened, self.open = 0, dict.fromkeys(s.SIDES, 0), 0
        self.rng, self.slow = np.random.default_rng(seed), {"before": 1.0, "after": slower}

    def opener(self, side: str) -> s.Opener:
        def open_(stack: contextlib.ExitStack) -> Baseline:
            self.opened[side] += 1
            self.open += 1
            stack.callback(self.close)
            ms = 20.0 * self.slow[side] * np.exp(self.rng.normal(0, 0.02))

            def answer(_index: int) -> StepAnswer:
                self.now_ns += round(1e6 * ms * (1 + self.rng.gamma(2, 0.01)))
                return StepAnswer(np.full(2, 0.5, np.float32), {})

            return Baseline(CLIP, "", "fp32", True, answer, "a clock")

        return open_

    def close(self) -> None:
        self.open -= 1

    def change(self, margin: float = 0.005):
        openers = {CLIP: {side: self.opener(side) for side in s.SIDES}}
        ((before, after),) = s.interleave(openers, LOAD, clock=lambda: self.now_ns).values()
        return change_of(CLIP, "closed", before, after, ratio(after, before), None, margin)


def test_each_side_is_opened_anew_in_every_round_and_closed():
    machine = Machine(0)
    machine.change()
    assert machine.opened == {"before": LOAD.rounds, "after": LOAD.rounds} and machine.open == 0


def test_what_differs_between_two_openings_of_one_program_is_no_alarm_and_5_percent_are_found():
    """A single opening of each side would be off by 2.8 % (root mean square) in all of its samples."""
    quiet = [Machine(seed).change() for seed in range(20)]
    slowed = [Machine(seed, slower=1.05).change() for seed in range(20)]
    assert sum(change.regression for change in quiet) == 0 and sum(change.regression for change in slowed) >= 19
    assert np.median([change.detectable for change in quiet]) < 0.05


def test_the_stack_is_closed_when_a_program_fails():
    machine = Machine(0)

    def broken(stack: contextlib.ExitStack) -> Baseline:
        return replace(machine.opener("after")(stack), answer=lambda index: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        s.interleave({CLIP: {"before": machine.opener("before"), "after": broken}}, LOAD)
    assert machine.open == 0


# --------------------------------------------------------------------------------------------------------- real bundles
def test_the_verb_compares_two_bundles(toy, make_toy, capsys):
    words = ["bench-compare", str(toy.path), str(toy.path), "--iterations", "20", "--threads", "1", "--margin", "20"]
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found["rows"]] == [CLIP, STREAM] and found["differences"] == []
    assert all(row["detectable"] > 20 and row["noise"] is None for row in found["rows"])
    assert found["how"].startswith("one run, in turns, both opened anew in each of 20 rounds, 1 threads; ")
    other = make_toy(clip_seed=3, temporal_seed=3, golden_seed=3)
    words[2] = str(other.path)
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "differs: graphs: clip " in shown and "would find" in shown


def test_a_bundle_that_answers_wrongly_is_not_timed(toy, make_toy):
    wrong = make_toy(temporal_seed=1)
    with pytest.raises(VerificationError, match="golden answers"):
        s.compare_bundles(s.SideBySideConfig(toy.path, wrong.path, 20, 1))


def test_an_answer_that_changed_while_it_was_timed_is_refused(toy, monkeypatch):
    plain = s.clip_baseline

    def forgetful(runtime, inputs, name):
        baseline = plain(runtime, inputs, name)
        return replace(baseline, answer=lambda index: replace(baseline.answer(index), probabilities=np.zeros(7)))

    monkeypatch.setattr(s, "clip_baseline", forgetful)
    with pytest.raises(VerificationError, match="while it was timed"):
        s.compare_bundles(s.SideBySideConfig(toy.path, toy.path, 20, 1))


def test_what_cannot_be_compared_is_refused(toy, tmp_path, fails):
    (tmp_path / "report.json").write_text("{}")
    fails(2, "bench-compare", toy.path, tmp_path / "report.json", names=("of one kind",))
    fails(2, "bench-compare", toy.path, toy.path, "--iterations", "19", names=("At least 20",))
    fails(2, "bench-compare", toy.path, toy.path, "--margin", "-1", names=("margin",))
    fails(3, "bench-compare", toy.path, tmp_path / "nothing", names=("nothing",))
    with pytest.raises(UsageError):
        s.SideBySideConfig(toy.path, toy.path, margin=float("nan"))
