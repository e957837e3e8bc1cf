"""Check of a field kit by whoever receives it: form, hashes, figures, what it gives away.

What a kit says is computed again from what it holds: summaries from every latency, energy from the power samples, the
qualification from the sensors. Who changes one figure must change them all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ... import __version__
from ...errors import RefusedError, command
from ..baselines.contract import OTHERS
from ..qualify import qualify
from ..report.records import CPU
from ..report.report import Report
from ..report.rows import with_energy
from ..sensors.jetson import GPU
from ..statistics import Summary
from .kit import DONE, FAILED, NOT_RUN, TOO_LONG, FieldKit, KitStep, read_kit
from .plan import BENCHES, plan
from .privacy import private_texts

SLACK_S = 30.0  # for starting and ending a process


@dataclass(frozen=True)
class CheckedKit:
    """A kit that holds together.

    Attributes:
        kit: its index.
        results: what its steps gave, by file name.
        reports: those of them that are benchmarks, by step.
    """

    kit: FieldKit
    results: Mapping[str, Any]
    reports: Mapping[str, Report]

    def lines(self) -> list[str]:
        """For people: the machine, what became of each step, and each benchmark's verdict."""
        kit = self.kit
        gpu = f"{kit.gpu.model}, {kit.gpu.compute_capability}" if kit.gpu else "no GPU"
        found = [f"{kit.machine.board or kit.machine.cpu}; {gpu}; {kit.preset}; {kit.backend} {kit.precision}"]
        for step in kit.steps:
            found.append(f"  {step.name:<13} {step.status:<13} {step.why}".rstrip())
            if step.name in self.reports:
                found.append(f"  {'':<13} {self.reports[step.name].qualification.line()}")
        return found

    def to_json(self) -> dict[str, Any]:
        """The verdicts as JSON."""
        steps = [{"name": step.name, "status": step.status, "why": step.why} for step in self.kit.steps]
        qualified = {name: report.qualification.line() for name, report in self.reports.items()}
        return {"passed": True, "created": self.kit.created, "steps": steps, "benchmarks": qualified}


def check_kit(path: str | os.PathLike[str]) -> CheckedKit:
    """Checks everything that can be checked without the machine.

    Raises:
        BadInputError: there is no such file.
        RefusedError: it is no kit, was changed, contradicts itself, or names somebody; the log says each fault.
    """
    kit, results = read_kit(path)
    reports: dict[str, Report] = {}
    faults = [*_steps(kit, results), *_private(kit, results)]
    for step in kit.steps:
        if step.name in BENCHES and step.status == DONE and step.result in results:
            try:
                reports[step.name] = Report.from_json(results[step.result], step.result)
            except RefusedError as error:
                faults.append(f"{step.name}: {error.what}")
    for name, report in reports.items():
        faults += [f"{name}: {fault}" for fault in (*_belongs(kit, report, name), *_figures(kit, report))]
    if faults:
        raise RefusedError(
            f"{os.fspath(path)} does not hold together: {len(faults)} faults.",
            cause="it was changed by hand, or made by another version of logoformer",
            next=command("logoformer", "fieldtest", "BUNDLE", "-o", "kit.zip"),
            log=faults[:40],
        )
    return CheckedKit(kit, results, reports)


def _steps(kit: FieldKit, results: Mapping[str, Any]) -> Iterator[str]:
    if kit.backend not in ("tensorrt", "tensorrt_rtx"):
        yield f"the backend {kit.backend!r} is none of a GPU"
        return
    planned = [(step.name, step.limit_s, step.needs_gpu) for step in plan(kit.backend, kit.precision, "fp32", 140)]
    if [(step.name, step.limit_s, step.needs_gpu) for step in kit.steps] != planned:
        yield "its steps are not those of the plan"
    named = {step.result for step in kit.steps if step.result}
    if named != set(results):
        yield f"results without a step, or steps without a result: {sorted(named ^ set(results))}"
    for step in kit.steps:
        yield from _step(kit, step)


def _step(kit: FieldKit, step: KitStep) -> Iterator[str]:
    done = step.status == DONE
    if step.status not in (DONE, NOT_RUN, FAILED, TOO_LONG):
        yield f"{step.name}: the status {step.status!r} is unknown"
    if done != (step.exit_code == 0) or done != bool(step.result) or done == bool(step.why):
        yield f"{step.name}: status, exit code, result and reason contradict each other"
    if not 0 <= step.seconds <= step.limit_s + SLACK_S:
        yield f"{step.name}: {step.seconds} s, {step.limit_s} s was the limit"
    if done and step.needs_gpu and kit.gpu is None:
        yield f"{step.name}: done on a GPU, and the machine has none"


def _private(kit: FieldKit, results: Mapping[str, Any]) -> Iterator[str]:
    texts = [step.why + step.next for step in kit.steps] + [str(value) for value in vars(kit.machine).values()]
    for text in private_texts([texts, list(results.values())]):
        yield f"it gives away a path, an address or a serial number: {text!r:.120}"


def _belongs(kit: FieldKit, report: Report, name: str) -> Iterator[str]:
    """Faults of a report that is another machine's, bundle's or device's."""
    if (report.machine.cpu, report.machine.board) != (kit.machine.cpu, kit.machine.board):
        yield "it was measured on another machine"
    graphs = {f"{graph}.{report.subject.precision}.b1": digest for graph, digest in report.subject.graphs.items()}
    if not graphs or any(kit.graphs.get(graph) != digest for graph, digest in graphs.items()):
        yield "it was measured on another bundle"
    on_gpu = name != "reference"
    if (report.subject.device != CPU) != on_gpu:
        yield f"it was measured on {report.subject.device}"
    if on_gpu and (
        report.subject.device != report.telemetry.facts.get(GPU) or report.subject.precision != kit.precision
    ):
        yield "its device or precision is not the kit's"
    if any(row.device not in (CPU, report.subject.device) for row in report.rows):
        yield "a row names another device"


def _figures(kit: FieldKit, report: Report) -> Iterator[str]:
    """Faults of figures that do not follow from what was measured."""
    for row in report.rows:
        if row.mode != "paced" and row.summary != Summary.of(row.rounds().reshape(-1)):
            yield f"{row.name}: its summary is not that of its latencies"
    if kit.logoformer != __version__:  # another version may judge otherwise
        return
    if with_energy(report.rows, report.telemetry) != report.rows:
        yield "energy does not follow from the power samples"
    ours = [row for row in report.rows if row.name not in OTHERS]
    if qualify(ours, report.machine, report.telemetry, report.cache) != report.qualification:
        yield "its qualification does not follow from its samples and sensors"
