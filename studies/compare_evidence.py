"""Evidence that `bench-compare` is quiet when nothing changed, and finds a planted 5 %.

Run as `python -m logoformer.studies.compare_evidence BUNDLE OUT.json`. Real answers of a real bundle: forty runs of
one program, compared two by two; then every second one again with a planted slowdown: after each answer the thread
computes for another 5 % of the usual time. The clock is the thread's own CPU time, so that other programs on a busy
machine count as little as they can; the figures are no latencies.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..benchmarks.baselines.contract import CLIP, CLIP_AGAIN, Baseline, Inputs, StepAnswer, clip_baseline
from ..benchmarks.compare import MARGIN, Change, compare_rows
from ..benchmarks.load.closed import LoadConfig
from ..benchmarks.load.modes import run_closed
from ..benchmarks.report.records import ReportRow, RowComparison
from ..benchmarks.report.rows import comparisons_of
from ..bundle import Bundle
from ..engine import load
from .results import measured, write_results

PAIRS, PLANTED = 20, 0.05
LOAD = LoadConfig(rounds=20, block=14, settle=2, rest_s=0.02, warmup=10)


def evidence(path: Path) -> dict[str, Any]:
    """Runs everything; one thread, so that the thread's clock sees all of the work."""
    bundle = Bundle(path)
    inputs = Inputs.of(bundle)
    runs: dict[float, list[tuple[list[ReportRow], list[RowComparison]]]] = {0.0: [], PLANTED: []}
    with load(bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        usual_ns: list[int] = []
        for _ in range(50):
            began = time.thread_time_ns()
            runtime(inputs.clip(0), color="rgb")
            usual_ns.append(time.thread_time_ns() - began)
        extra_ns = round(PLANTED * sorted(usual_ns)[len(usual_ns) // 2])
        for number in range(2 * PAIRS):
            for planted in (0.0, PLANTED) if number % 2 else (0.0,):
                baselines = [clip_baseline(runtime, inputs, name) for name in (CLIP, CLIP_AGAIN)]
                if planted:
                    baselines = [replace(baseline, answer=_slower(baseline, extra_ns)) for baseline in baselines]
                rows, _, result = run_closed(baselines, replace(LOAD, seed=number), 0, clock=time.thread_time_ns)
                runs[planted].append((rows, comparisons_of(result.latency_ms)))
    quiet, found = [], []
    for pair in range(PAIRS):
        before, same, slow = runs[0.0][2 * pair], runs[0.0][2 * pair + 1], runs[PLANTED][pair]
        quiet.append(compare_rows(before[0], same[0], (*before[1], *same[1])))
        found.append(compare_rows(before[0], slow[0], (*before[1], *slow[1])))
    return {
        **measured("python -m logoformer.studies.compare_evidence BUNDLE OUT.json"),
        "clock": "CPU time of the thread",
        "preset": str(bundle.manifest["model"].get("preset", "")),
        "margin": MARGIN,
        "planted": PLANTED,
        "false_alarms": sum(any(change.regression for change in changes) for changes in quiet),
        "found": sum(any(change.regression for change in changes) for changes in found),
        "pairs": PAIRS,
        "quiet": [_short(changes) for changes in quiet],
        "slowed": [_short(changes) for changes in found],
    }


def _slower(baseline: Baseline, extra_ns: int) -> Callable[[int], StepAnswer]:
    def answer(index: int) -> StepAnswer:
        given = baseline.answer(index)
        until = time.thread_time_ns() + extra_ns
        while time.thread_time_ns() < until:
            pass
        return given

    return answer


def _short(changes: tuple[Change, ...]) -> list[dict[str, Any]]:
    return [
        {"row": change.name, "median": asdict(change.median), "noise": change.noise, "regression": change.regression}
        for change in changes
    ]


if __name__ == "__main__":
    write_results(Path(sys.argv[2]), evidence(Path(sys.argv[1])))
