"""`bench-compare`: what changed between two reports, and how surely.

A row got slower when the whole interval of its median's ratio lies above 1. That is significance, not size: with many
samples a change of half a percent is significant. It is a *regression* when the whole interval lies beyond the margin,
and beyond the difference that either run showed between a program and itself (A/A). Beside each row stands the
smallest slowdown that would have been found: on a busy machine that is a large one, and `differs` says that the runs
are unqualified. Two bundles on one machine are compared more sharply in one run (`side_by_side.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import BadInputError, command
from .report.records import ReportRow, RowComparison
from .report.report import Report
from .report.text_tables import columns
from .statistics import MIN_ROUNDS, FloatArray, Ratio, minimum_samples, ratio_of_runs

EXIT_REGRESSION = 1
AGAIN = " again"  # behind the name of a program that was timed a second time
MARGIN = 0.005  # of what is smaller, nobody needs to hear


@dataclass(frozen=True)
class Change:
    """One row in both reports.

    Attributes:
        name, mode: of the row.
        before_ms, after_ms: medians.
        median: after over before.
        p90: the same of the 90th percentile, None where one side has too few samples for it.
        noise: how far from 1 the same program came against itself (A/A), in the run where that was more; None where
            neither took it.
        detectable: the slowdown, as a share, that nine of ten such comparisons would have called a regression.
        significant: the whole interval of `median` lies on one side of 1.
        regression: the whole interval of `median` lies beyond margin and noise.
    """

    name: str
    mode: str
    before_ms: float
    after_ms: float
    median: Ratio
    p90: Ratio | None
    noise: float | None
    detectable: float
    significant: bool
    regression: bool


@dataclass(frozen=True)
class Changes:
    """Differences between two reports, or between two bundles in one run.

    Attributes:
        margin: share from which on a slowdown counts.
        rows: those that both reports have.
        missing: names of rows that only one has.
        differences: what else is not the same: machine, backend, threads, verdicts.
        how: in which way they were measured.
    """

    margin: float
    rows: tuple[Change, ...]
    missing: tuple[str, ...]
    differences: tuple[str, ...]
    how: str = "two reports"

    @property
    def regressions(self) -> tuple[str, ...]:
        """Names of the rows that regressed."""
        return tuple(row.name for row in self.rows if row.regression)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "regressions": list(self.regressions)}


def compare_reports(before: Report, after: Report, margin: float = MARGIN) -> Changes:
    """Compares every row that both reports have.

    Args:
        before: the reference.
        after: what is judged.
        margin: share from which on a slowdown counts, 0 or more.

    Raises:
        BadInputError: they have no row in common, or a margin below 0.
    """
    if not margin >= 0:
        raise BadInputError(f"The margin is {margin}; a share of 0 or more is expected, such as 0.02.")
    rows = compare_rows(before.rows, after.rows, (*before.comparisons, *after.comparisons), margin)
    if not rows:
        raise BadInputError(
            "The two reports have no row in common that can be compared.",
            cause=f"other modes, or fewer than {MIN_ROUNDS} rounds",
            next=command("logoformer", "bench", "BUNDLE", "-o", "after.json"),
        )
    shared = {row.name for row in rows}
    missing = tuple(sorted({row.name for report in (before, after) for row in report.rows} - shared))
    return Changes(margin, rows, missing, tuple(_differences(before, after)))


def compare_rows(
    before: Sequence[ReportRow],
    after: Sequence[ReportRow],
    comparisons: Sequence[RowComparison],
    margin: float = MARGIN,
) -> tuple[Change, ...]:
    """Compares rows of one name and mode.

    Args:
        before: the reference.
        after: what is judged.
        comparisons: of both runs; the A/A noise is taken from them.
        margin: share from which on a slowdown counts.
    """
    named = {row.name: row for row in after}
    pairs = [(a, named[a.name]) for a in before if a.name in named]
    return tuple(
        _change(a, b, _noise(comparisons, a.name), margin)
        for a, b in pairs
        if a.mode == b.mode and min(len(a.latency_ms), len(b.latency_ms)) >= MIN_ROUNDS
    )


def _change(a: ReportRow, b: ReportRow, noise: float | None, margin: float) -> Change:
    before, after = a.rounds(), b.rounds()
    enough = min(before.size, after.size) >= minimum_samples(90)
    p90 = ratio_of_runs(after, before, 90.0) if enough else None
    return change_of(a.name, a.mode, before, after, ratio_of_runs(after, before), p90, margin, noise)


def change_of(
    name: str,
    mode: str,
    before_ms: FloatArray,
    after_ms: FloatArray,
    median: Ratio,
    p90: Ratio | None,
    margin: float,
    noise: float | None = None,
) -> Change:
    """Judges one row; both sides are float64 `[R, K]`."""
    beyond = max(margin, noise or 0.0)
    return Change(
        name=name,
        mode=mode,
        before_ms=float(np.median(before_ms)),
        after_ms=float(np.median(after_ms)),
        median=median,
        p90=p90,
        noise=noise,
        detectable=median.detectable(beyond),
        significant=median.low > 1 or median.high < 1,
        regression=median.low > 1 + beyond,
    )


def _noise(comparisons: Sequence[RowComparison], name: str) -> float | None:
    sides = {name, name.removesuffix(AGAIN), f"{name.removesuffix(AGAIN)}{AGAIN}"}
    found = [abs(c.ratio.value - 1.0) for c in comparisons if {c.numerator, c.denominator} <= sides]
    return max(found, default=None)


def _differences(before: Report, after: Report) -> list[str]:
    left, right = _conditions(before), _conditions(after)
    found = [f"{what}: {left[what]} -> {right[what]}" for what in left if left[what] != right[what]]
    for name, report in (("before", before), ("after", after)):
        if not report.qualification.qualified:
            found.append(f"{name} is {report.qualification.line()}")
    return found


def _conditions(report: Report) -> dict[str, Any]:
    machine, subject, settings = report.machine, report.subject, report.settings
    return {
        "machine": machine.board or machine.cpu,
        "system": machine.system,
        "preset": subject.preset,
        "precision": subject.precision,
        "backend": subject.backend,
        "device": subject.device,
        "threads": settings.threads,
        "rate": settings.rate_hz,
        "graphs": ", ".join(f"{name} {digest[:8]}" for name, digest in sorted(subject.graphs.items())),
    }


def changes_text(changes: Changes) -> str:
    """For a terminal."""
    lines = [["row", "mode", "before ms", "after ms", "ratio", "99 %", "p90", "A/A", "would find", ""]]
    for row in changes.rows:
        word = "REGRESSION" if row.regression else "not significant"
        if row.significant and not row.regression:
            word = "slower, within margin and noise" if row.median.value > 1 else "faster"
        lines.append(
            [
                row.name,
                row.mode,
                f"{row.before_ms:.3f}",
                f"{row.after_ms:.3f}",
                f"x{row.median.value:.3f}",
                f"[{row.median.low:.3f}, {row.median.high:.3f}]",
                "" if row.p90 is None else f"x{row.p90.value:.3f}",
                "" if row.noise is None else f"±{100 * row.noise:.1f} %",
                f"+{100 * row.detectable:.1f} %",
                word,
            ]
        )
    shown = columns(lines)
    shown += [f"only in one of them: {name}" for name in changes.missing]
    shown += [f"differs: {item}" for item in changes.differences]
    count = len(changes.regressions)
    shown.append(f"{count} regression(s) beyond {100 * changes.margin:g} % and the runs' own noise")
    shown.append(changes.how)
    shown.append("would find: the smallest slowdown that nine of ten such comparisons call a regression")
    return "\n".join(shown) + "\n"
