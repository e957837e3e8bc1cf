"""The report of one run: what was measured, of what, on what, and how far it can be trusted.

`report.json` is the one source: every table, the README's included, is printed from it. It holds every
latency, so that another program can draw its own conclusions.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import Any

from ...bundle.files import dump_json, parse_json, read_file, write_atomic
from ...bundle.kinds import refuse_other_kinds
from ...errors import RefusedError, advising, command, one_of
from ..accuracy import Accuracy
from ..baselines.contract import Skipped
from ..load.overhead import WrapperCost
from ..roofline.report import Roofline
from ..sensors.machine import Machine
from . import fields
from .records import (
    DOUBLE,
    CacheCheck,
    ColdStart,
    IdleGap,
    Qualification,
    ReportRow,
    RowComparison,
    Settings,
    Subject,
    Telemetry,
    TrtexecRun,
)

FORMAT = "logoformer-bench"
SCHEMA_VERSION = 3
MAX_REPORT_BYTES = 32 << 20


@dataclass(frozen=True)
class Report:
    """Everything about one run.

    Attributes:
        command: that gives the run again, with the name of the bundle's folder.
        created: UTC, ISO 8601.
        machine: read before the first step.
        subject: what was timed.
        settings: how.
        rows: one for each baseline and mode.
        skipped: baselines that could not take part.
        comparisons: of rows.
        accuracy: of the artifacts that were timed, one for each precision.
        cache: None where the mode 'closed' was not run.
        cold: None where the mode 'cold' was not run.
        idle_gaps: empty where the mode 'idle' was not run.
        telemetry: what was read beside the run.
        qualification: whether the figures describe the device.
        trtexec: empty where it was not asked for or is not there.
        roofline: computed, not measured; None where it was not asked for.
        wrapper: our own cost over a backend that does nothing.
        harness_us: what the load generator adds to each latency.
        seconds: the timed part, warm-up and untimed steps included.
        notes: what a reader must know before quoting a figure.
    """

    command: str
    created: str
    machine: Machine
    subject: Subject
    settings: Settings
    rows: tuple[ReportRow, ...]
    skipped: tuple[Skipped, ...]
    comparisons: tuple[RowComparison, ...]
    accuracy: tuple[Accuracy, ...]
    cache: CacheCheck | None
    cold: ColdStart | None
    idle_gaps: tuple[IdleGap, ...]
    telemetry: Telemetry
    qualification: Qualification
    trtexec: tuple[TrtexecRun, ...]
    roofline: Roofline | None
    wrapper: WrapperCost
    harness_us: float
    seconds: float
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{one_of(twice)} stands twice")

    def row(self, name: str) -> ReportRow | None:
        """A row by name, None when that baseline took no part."""
        return next((row for row in self.rows if row.name == name), None)

    def require_measured(self) -> None:
        """Refuses figures of a card that a test plays: nobody may print, write or read them.

        Raises:
            RefusedError: there are some.
        """
        names = {self.subject.device, *(row.device for row in self.rows)}
        played = sorted(name for name in names if name.lower().startswith(DOUBLE))
        if played:
            raise RefusedError(
                f"The figures of {one_of(played)} are those of a test's double, not of a card.",
                cause="a test that let a report out",
                next=command("logoformer", "bench", "BUNDLE"),
            )

    def to_json(self) -> dict[str, Any]:
        self.require_measured()
        return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Any, shown: str) -> Report:
        """Reads what `to_json` wrote.

        Raises:
            RefusedError: not a report, one of another schema, or one that lacks or garbles a field.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise RefusedError(f"{shown} is not a {FORMAT} report.", cause="a file of another program")
        version = data.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise RefusedError(
                f"{shown} has schema version {version!r:.80}; this program reads {SCHEMA_VERSION}.",
                cause="it was written by another version of logoformer",
                next=command("logoformer", "bench", "BUNDLE", "-o", shown),
            )
        try:
            report = fields.read(cls, {k: v for k, v in data.items() if k not in ("format", "schema_version")})
        except (TypeError, ValueError) as error:
            raise RefusedError(
                f"{shown} lacks or garbles a field: {error!r}.", cause="a report that this program did not write"
            ) from error
        report.require_measured()
        return report


def write_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Writes `report.json`, whole or not at all.

    Raises:
        MachineError: the disk is full or the folder may not be written.
    """
    write_atomic(path, dump_json(report.to_json()))


def read_report(path: str | os.PathLike[str]) -> Report:
    """Reads `report.json`.

    Raises:
        BadInputError: there is no such file.
        RefusedError: it is not a report of this version.
    """
    making = command("logoformer", "bench", "BUNDLE", "-o", "report.json")
    refuse_other_kinds(path, "report of logoformer bench", making)
    with advising(making):
        data = read_file(path, MAX_REPORT_BYTES)
        return Report.from_json(parse_json(data, os.fspath(path), max_bytes=MAX_REPORT_BYTES), os.fspath(path))
