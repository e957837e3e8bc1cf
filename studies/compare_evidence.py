"""Evidence that `bench-compare` is quiet when nothing changed, and finds planted slowdowns.

Run as `python -m logoformer.studies.compare_evidence BUNDLE`, on a machine with nothing else to do: it refuses to begin
at a load of 0.5 and more, and to write where other programs took more than 5 % of the CPUs. Real answers of a real
bundle are compared with themselves by what the verb runs for two bundles (`benchmarks/side_by_side.py`), twenty times
as they are, twenty times with 2 % and twenty times with 5 % planted into one side: after each answer the thread
computes on for that share of the usual time. The same runs give twenty comparisons of two runs apart in time, as of two
reports.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..benchmarks.baselines.contract import CLIP, Baseline, StepAnswer
from ..benchmarks.compare import MARGIN, Change, change_of
from ..benchmarks.load.closed import LoadConfig
from ..benchmarks.report.text_tables import table
from ..benchmarks.sensors.machine import read_machine, usable_cpus
from ..benchmarks.side_by_side import Opener, SideBySideConfig, interleave, openers_of
from ..benchmarks.statistics import FloatArray, ratio, ratio_of_runs
from ..bundle import Bundle
from ..cli.terminal import Bar
from ..engine import load
from ..errors import MachineError
from .results import FOLDER, measured, show_results, write_results
from .watching import cpu_seconds, machine_busy_seconds

COMMAND = "python -m logoformer.studies.compare_evidence"
RESULTS, PAGE = FOLDER / "compare.json", Path("docs/benchmarks.md")
PAIRS, PLANTED = 20, (0.0, 0.02, 0.05)
IDLE_LOAD, OTHERS = 0.5, 0.05  # load average before; share of the CPUs that other programs may take meanwhile
THREADS = 1  # the other core is left to the system
BACKEND = "onnxruntime"

Sides = tuple[FloatArray, FloatArray]


@dataclass(frozen=True)
class Idle:
    """Whether the machine had nothing else to do.

    Attributes:
        load_1min: load average over one minute before the first run.
        others_cpu_share: of all CPUs, taken by other programs during the runs.
    """

    load_1min: float
    others_cpu_share: float

    def require(self) -> None:
        """Raises MachineError unless it was idle."""
        if self.load_1min >= IDLE_LOAD or self.others_cpu_share > OTHERS:
            raise MachineError(
                f"The machine is busy: load {self.load_1min:.2f} before, {self.others_cpu_share:.1%} of the CPUs "
                f"taken by others meanwhile; {IDLE_LOAD} and {OTHERS:.0%} are allowed. Nothing was written.",
                cause="other programs, or one that has just ended",
                next="wait for a minute with nothing else to do, then run it again",
            )


def slower(opener: Opener, extra_ns: int) -> Opener:
    """The same program, which computes on for so long after each answer."""

    def open_(stack: ExitStack) -> Baseline:
        plain = opener(stack)
        return replace(plain, answer=_delayed(plain.answer, extra_ns)) if extra_ns else plain

    return open_


def _delayed(plain: Callable[[int], StepAnswer], extra_ns: int) -> Callable[[int], StepAnswer]:
    def answer(index: int) -> StepAnswer:
        given = plain(index)
        until = time.perf_counter_ns() + extra_ns
        while time.perf_counter_ns() < until:
            pass
        return given

    return answer


def usual_ns(opener: Opener) -> int:
    """Median of 300 answers of three openings."""
    found = []
    for _ in range(3):
        with ExitStack() as stack:
            answer = opener(stack).answer
            for index in range(110):
                began = time.perf_counter_ns()
                answer(index)
                found += [time.perf_counter_ns() - began] * (index >= 10)
    return int(np.median(found))


def measure(opener: Opener, config: LoadConfig, pairs: int, bar: Bar) -> dict[float, list[Sides]]:
    """`pairs` runs of each planted slowdown, the three kinds in turns."""
    usual = usual_ns(opener)
    runs: dict[float, list[Sides]] = {share: [] for share in PLANTED}
    for pair in range(pairs):
        for kind, share in enumerate(PLANTED):
            sides = {"before": opener, "after": slower(opener, round(share * usual))}
            seeded = replace(config, seed=len(PLANTED) * pair + kind)
            runs[share].append(interleave({CLIP: sides}, seeded)[CLIP])
            bar("runs", len(PLANTED) * pair + kind + 1, len(PLANTED) * pairs)
    return runs


def judged(runs: dict[float, list[Sides]], margin: float = MARGIN) -> dict[str, dict[str, Any]]:
    """The verdicts: of the two sides of each run, and of sides that ran apart in time.

    Apart, the reference of a pair is the first side of its run without a planted slowdown, and what is compared with it
    the second side of the next such run, or of the run with the slowdown.
    """
    together: dict[float, list[Change]] = {}
    apart: dict[float, list[Change]] = {}
    quiet = runs[0.0]
    for share, found in runs.items():
        together[share] = [change_of(CLIP, "closed", a, b, ratio(b, a), None, margin) for a, b in found]
        others = [*quiet[1:], quiet[0]] if not share else found
        apart[share] = [
            change_of(CLIP, "closed", a, b, ratio_of_runs(b, a), None, margin)
            for (a, _), (_, b) in zip(quiet, others, strict=True)
        ]
    return {"one_run": _counted(together), "two_runs": _counted(apart)}


def _counted(changes: dict[float, list[Change]]) -> dict[str, Any]:
    return {
        "false_alarms": sum(change.regression for change in changes[0.0]),
        "found": {f"{share:g}": sum(one.regression for one in found) for share, found in changes.items() if share},
        "detectable": float(np.median([change.detectable for change in changes[0.0]])),
        "changes": {
            f"{share:g}": [{"median": asdict(one.median), "regression": one.regression} for one in found]
            for share, found in changes.items()
        },
    }


def evidence(path: Path, pairs: int, bar: Bar) -> tuple[dict[str, Any], Idle]:
    """Runs everything.

    Raises:
        MachineError: the machine is busy before the first run.
    """
    found = measured(COMMAND + " demo/face.bundle")
    load_before = read_machine().load_1min
    Idle(1.0 if load_before is None else load_before, 0.0).require()
    bundle = Bundle(path)
    config = SideBySideConfig(path, path, threads=THREADS, precision="fp32").load
    with load(bundle, backend=BACKEND, precision="fp32", threads=THREADS) as runtime:
        opener = openers_of(runtime, THREADS, BACKEND)[CLIP]
        began, own, machine = time.monotonic(), cpu_seconds(), machine_busy_seconds()
        runs = measure(opener, config, pairs, bar)
        wall = time.monotonic() - began
        others = (machine_busy_seconds() - machine) - (cpu_seconds() - own)
    idle = Idle(found["machine"]["load_1min"], max(0.0, others) / wall / usable_cpus())
    found |= {
        "preset": str(bundle.manifest["model"].get("preset", "")),
        "idle": asdict(idle),
        "load": asdict(config),
        "threads": THREADS,
        "seconds": wall,
        "margin": MARGIN,
        "pairs": pairs,
        "median_ms": float(np.median([before for before, _ in runs[0.0]])),
    }
    return {**found, **judged(runs)}, idle


def evidence_text(found: dict[str, Any]) -> str:
    """The counts for a terminal."""
    head = ["", "false alarms", *(f"{share:.0%} found" for share in PLANTED if share), "would find"]
    rows = [
        [name, *(f"{n} of {found['pairs']}" for n in (one["false_alarms"], *one["found"].values())),
         f"+{one['detectable']:.1%}"]
        for name, one in (("one run", found["one_run"]), ("two runs", found["two_runs"]))
    ]  # fmt: skip
    idle = found["idle"]
    state = f"load {idle['load_1min']:.2f} before, {idle['others_cpu_share']:.1%} of the CPUs taken by others"
    return f"{table([head, *rows])}\n{found['seconds']:.0f} s; {state}"


def page_table(found: dict[str, Any]) -> str:
    """The table of docs/benchmarks.md."""
    head = ["compared", "false alarms", *(f"{share:.0%} slower, found" for share in PLANTED if share), "would find"]
    names = (("two bundles, in turns", found["one_run"]), ("two runs, one after the other", found["two_runs"]))
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for name, one in names:
        counts = (f"{n} of {found['pairs']}" for n in (one["false_alarms"], *one["found"].values()))
        lines.append(f"| {' | '.join((name, *counts, '+{:.1%}'.format(one['detectable'])))} |")
    machine = found["machine"]
    note = f"`{found['preset']}`, {found['threads']} thread, {machine['cpu']}, load before it {machine['load_1min']}"
    return "\n".join([*lines, "", f"{note}; `{found['command']}`."]) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, and writes unless the machine was busy."""
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) not in (1, 2):
        print(f"usage: {COMMAND} BUNDLE [PAIRS]", file=sys.stderr)
        return 2
    bar = Bar()
    found, idle = evidence(Path(words[0]), int(words[1]) if len(words) == 2 else PAIRS, bar)
    bar.clear()
    print(evidence_text(found))
    idle.require()
    write_results(RESULTS, found)
    show_results(PAGE, {"compare": page_table(found)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
