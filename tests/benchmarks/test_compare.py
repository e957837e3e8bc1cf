"""What changed between two reports: a planted slowdown is found, the same program twice stays quiet."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
from logoformer.benchmarks.baselines.contract import CLIP, CLIP_AGAIN
from logoformer.benchmarks.compare import changes_text, compare_reports
from logoformer.benchmarks.report.report import write_report
from logoformer.benchmarks.report.rows import comparisons_of
from logoformer.benchmarks.statistics import Ratio, ratio_of_runs
from logoformer.cli import main as cli
from logoformer.errors import BadInputError


def noisy(rng, base, rounds=40, block=4):
    """float64 `[R, K]`: skewed latencies, rounds that differ, neighbours that resemble each other, a rare outlier."""
    rough = base * (1 + rng.gamma(2, 0.01, (rounds, block)))
    rough *= 1 + rng.normal(0, 0.01, (rounds, 1))
    rough[rng.random(rough.shape) < 0.01] *= 1.5
    return rough


@pytest.fixture(scope="module")
def report(made):
    """`report(seed, slow)` -> one run; every row `slow` times as long as it would be."""

    @functools.cache
    def run(seed, slow, names):
        rng = np.random.default_rng(seed)
        latency = {name: noisy(rng, 20 * slow) for name in names}
        compared = comparisons_of(latency, dict.fromkeys(latency, "cpu"))
        return tuple(made.row(name, ms) for name, ms in latency.items()), tuple(compared)

    def make(seed, slow=1.0, names=(CLIP, CLIP_AGAIN, "stream"), **changes):
        rows, comparisons = run(seed, slow, names)
        return made.report(rows=rows, comparisons=comparisons, **changes)

    return make


def test_twenty_runs_of_one_program_raise_at_most_one_alarm_and_a_planted_slowdown_of_5_percent_is_found(report):
    names, alarms, missed = (CLIP, CLIP_AGAIN), 0, 0
    for seed in range(20):
        before = report(2 * seed, names=names)
        alarms += bool(compare_reports(before, report(2 * seed + 1, names=names)).regressions)
        missed += CLIP not in compare_reports(before, report(2 * seed + 1, slow=1.05, names=names)).regressions
    assert alarms <= 1
    assert missed == 0


def test_a_speedup_is_no_regression_but_significant(report):
    changes = compare_reports(report(0, slow=1.05), report(1))
    assert not changes.regressions
    assert all(row.significant and row.median.high < 1 for row in changes.rows)
    assert "faster" in changes_text(changes)


def test_a_slowdown_within_the_margin_is_shown_and_does_not_count(report):
    changes = compare_reports(report(0), report(1, slow=1.05), margin=0.10)
    assert not changes.regressions
    assert all(row.significant for row in changes.rows)
    assert "slower, within margin and noise" in changes_text(changes)


def test_no_run_vouches_for_less_than_its_own_noise(report):
    before, after = report(0), report(1, slow=1.05)
    loud = tuple(replace(c, ratio=Ratio(0.8, 0.79, 0.81)) for c in before.comparisons if "again" in c.denominator)
    changes = compare_reports(replace(before, comparisons=loud), after)
    noise = {row.name: row.noise for row in changes.rows}
    assert noise[CLIP] == noise[CLIP_AGAIN] == pytest.approx(0.2)
    assert CLIP not in changes.regressions
    assert "stream" in changes.regressions  # nobody took its noise


def test_a_large_change_that_could_be_chance_is_no_regression(made):
    moody = noisy(np.random.default_rng(0), 20.0)
    moody[20:] *= 1.3  # over half of the run the machine was slow
    before = made.report(rows=(made.row(CLIP, noisy(np.random.default_rng(1), 20.0)),), comparisons=())
    changes = compare_reports(before, made.report(rows=(made.row(CLIP, moody),), comparisons=()))
    assert changes.rows[0].median.value > 1.1
    assert changes.rows[0].median.low < 1.02
    assert not changes.regressions


def test_medians_and_ratios_are_those_of_the_rows(report):
    before, after = report(0), report(1)
    for row in compare_reports(before, after).rows:
        a, b = before.row(row.name).rounds(), after.row(row.name).rounds()
        assert (row.before_ms, row.after_ms) == (np.median(a), np.median(b))
        assert row.median == ratio_of_runs(b, a) and row.p90 == ratio_of_runs(b, a, 90)
        assert row.median.value == pytest.approx(np.median(b) / np.median(a), rel=0.01)
        beyond = 1 + max(0.005, row.noise or 0)
        assert row.detectable == pytest.approx(beyond * row.median.high / row.median.low - 1)
        assert f"+{100 * row.detectable:.1f} %" in changes_text(compare_reports(before, after))


def test_what_else_differs_is_told(report, made):
    other = report(1, machine=replace(made.machine, cpu="Another CPU"))
    other = replace(other, settings=replace(other.settings, threads=1))
    changes = compare_reports(report(0), other)
    assert "machine: Example CPU -> Another CPU" in changes.differences
    assert "threads: 2 -> 1" in changes.differences
    assert any(item.startswith("before is unqualified") for item in changes.differences)
    shown = changes_text(changes)
    assert "differs: threads: 2 -> 1" in shown


def test_rows_of_other_modes_are_not_compared(report, made):
    before, after = report(0), report(1)
    paced = tuple(replace(row, mode="paced") if row.name == "stream" else row for row in after.rows)
    changes = compare_reports(before, replace(after, rows=paced))
    assert [row.name for row in changes.rows] == [CLIP, CLIP_AGAIN]
    assert changes.missing == ("stream",)
    with pytest.raises(BadInputError, match="no row in common"):
        compare_reports(before, replace(after, rows=(made.row("other"),)))
    short = made.row(CLIP, noisy(np.random.default_rng(0), 9, rounds=7))
    with pytest.raises(BadInputError, match="no row in common"):  # seven rounds say too little
        compare_reports(before, replace(after, rows=(short,)))


@pytest.mark.parametrize("margin", [-0.01, float("nan")])
def test_an_impossible_margin_is_refused(report, margin):
    with pytest.raises(BadInputError, match="margin"):
        compare_reports(report(0), report(1), margin)


def test_the_verb_exits_1_on_a_regression_and_0_without(report, tmp_path, capsys):
    paths = {name: tmp_path / f"{name}.json" for name in ("before", "same", "slow")}
    write_report(report(0), paths["before"])
    write_report(report(1), paths["same"])
    write_report(report(2, slow=1.10), paths["slow"])
    assert cli.main(["bench-compare", str(paths["before"]), str(paths["same"])]) == 0
    assert "0 regression(s)" in capsys.readouterr().out
    assert cli.main(["bench-compare", str(paths["before"]), str(paths["slow"]), "--json"]) == 1
    assert CLIP in json.loads(capsys.readouterr().out)["regressions"]
    assert cli.main(["bench-compare", str(paths["before"]), str(paths["slow"]), "--margin", "0.5"]) == 0
    assert cli.main(["bench-compare", str(paths["before"]), str(tmp_path / "nothing.json")]) == 3
    (tmp_path / "foreign.json").write_text("{}")
    assert cli.main(["bench-compare", str(paths["before"]), str(tmp_path / "foreign.json")]) == 4
    assert "1 bench-compare found a regression" in cli.make_parser().format_help()
