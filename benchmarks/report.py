"""The report of one run: what was measured, of what, on what, and how far it can be trusted.

`report.json` is the one source: every table, the README's included, is printed from it (`tables.py`). It holds every
latency, so that another program can draw its own conclusions.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import RefusedError, command
from ..files import dump_json, parse_json, read_file, write_atomic
from .accuracy import Accuracy
from .machine import Machine
from .overhead import WrapperCost
from .peers import Skipped
from .statistics import Percentile, Ratio, Summary

FORMAT = "logoformer-bench"
SCHEMA_VERSION = 1
MAX_REPORT_BYTES = 16 << 20

_T = TypeVar("_T")


@dataclass(frozen=True)
class Row:
    """One peer of the run.

    Attributes:
        name: of the peer.
        what: what one result costs the wall clock for, in words.
        precision: of its arithmetic.
        summary: of its latencies.
        stages_p50_ms: (stage, median wall clock) in the order they run, empty where the peer has none.
        latency_ms: every latency, `[R][K]`, in the order they were taken.
    """

    name: str
    what: str
    precision: str
    summary: Summary
    stages_p50_ms: tuple[tuple[str, float], ...]
    latency_ms: tuple[tuple[float, ...], ...]

    def rounds(self) -> npt.NDArray[np.float64]:
        """The latencies as float64 `[R, K]`."""
        return np.asarray(self.latency_ms, np.float64)


@dataclass(frozen=True)
class Comparison:
    """Median of one peer over the median of another, beside the noise of the run.

    Attributes:
        numerator, denominator: names of rows.
        ratio: below 1 the numerator is faster.
        noise: how far from 1 the same program came against itself (A/A), None where it is not known.
    """

    numerator: str
    denominator: str
    ratio: Ratio
    noise: float | None


@dataclass(frozen=True)
class Subject:
    """The artifact that was timed.

    Attributes:
        bundle: name of its folder.
        preset: of its model.
        precision: of the graphs that ran.
        backend: what ran them.
        graphs: SHA-256 of each graph that ran.
    """

    bundle: str
    preset: str
    precision: str
    backend: str
    graphs: Mapping[str, str]


@dataclass(frozen=True)
class Settings:
    """How the run was made.

    Attributes:
        threads: CPU threads of every peer.
        rounds: blocks of each peer, their order drawn anew in each round.
        block: timed steps of a block.
        settle: untimed steps before each block.
        rest_s: seconds of sleep before those.
        warmup: untimed steps of each peer before the first round.
        seed: of the order.
        inputs: different clips that were fed in rotation.
    """

    threads: int
    rounds: int
    block: int
    settle: int
    rest_s: float
    warmup: int
    seed: int
    inputs: int


@dataclass(frozen=True)
class Report:
    """Everything about one run.

    Attributes:
        created: UTC, ISO 8601.
        machine: read before the first step.
        subject: what was timed.
        settings: how.
        rows: one for each peer.
        skipped: peers that could not take part.
        comparisons: of rows.
        accuracy: of the same artifact.
        wrapper: our own cost over a backend that does nothing.
        harness_us: what the load generator adds to each latency.
        seconds: the timed part, warm-up and untimed steps included.
        notes: what a reader must know before quoting a figure.
    """

    created: str
    machine: Machine
    subject: Subject
    settings: Settings
    rows: tuple[Row, ...]
    skipped: tuple[Skipped, ...]
    comparisons: tuple[Comparison, ...]
    accuracy: Accuracy
    wrapper: WrapperCost
    harness_us: float
    seconds: float
    notes: tuple[str, ...]

    def row(self, name: str) -> Row | None:
        """A row by name, None when that peer took no part."""
        return next((row for row in self.rows if row.name == name), None)

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, "schema_version": SCHEMA_VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, data: Any, shown: str) -> Report:
        """Reads what `to_json` wrote.

        Raises:
            RefusedError: not a report, a newer one, or one that lacks or garbles a field.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise RefusedError(f"{shown} is not a {FORMAT} report.", cause="a file of another program")
        version = data.get("schema_version")
        if version != SCHEMA_VERSION:
            raise RefusedError(
                f"{shown} has schema version {version}; this program reads {SCHEMA_VERSION}.",
                cause="it was written by another version of logoformer",
                next=command("logoformer", "bench", "BUNDLE", "-o", shown),
            )
        try:
            return cls(
                created=_text(data["created"]),
                machine=Machine.from_json(data["machine"]),
                subject=_subject(data["subject"]),
                settings=_numbers(Settings, data["settings"]),
                rows=tuple(_row(row) for row in data["rows"]),
                skipped=tuple(_texts(Skipped, item) for item in data["skipped"]),
                comparisons=tuple(_comparison(item) for item in data["comparisons"]),
                accuracy=_numbers(Accuracy, data["accuracy"]),
                wrapper=_numbers(WrapperCost, data["wrapper"]),
                harness_us=_number(data["harness_us"]),
                seconds=_number(data["seconds"]),
                notes=tuple(_text(note) for note in data["notes"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RefusedError(
                f"{shown} lacks or garbles a field: {error!r}.", cause="a report that this program did not write"
            ) from error


def _number(value: Any) -> Any:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{value!r:.80} is not a number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not a text")
    return value


def _texts(kind: type[_T], data: Mapping[str, Any]) -> _T:
    """A dataclass all of whose fields are texts."""
    return kind(**{name: _text(value) for name, value in data.items()})


def _numbers(kind: type[_T], data: Mapping[str, Any]) -> _T:
    """A dataclass all of whose fields are numbers."""
    return kind(**{name: _number(value) for name, value in data.items()})


def _subject(data: Mapping[str, Any]) -> Subject:
    subject = dict(data)
    graphs = {name: _text(digest) for name, digest in subject.pop("graphs").items()}
    return Subject(**{name: _text(value) for name, value in subject.items()}, graphs=graphs)


def _row(data: Mapping[str, Any]) -> Row:
    numbers = dict(data["summary"])
    percentiles = tuple(_numbers(Percentile, item) for item in numbers.pop("percentiles"))
    withheld = tuple((_number(p), _number(n)) for p, n in numbers.pop("withheld"))
    return Row(
        name=_text(data["name"]),
        what=_text(data["what"]),
        precision=_text(data["precision"]),
        summary=Summary(**{k: _number(v) for k, v in numbers.items()}, percentiles=percentiles, withheld=withheld),
        stages_p50_ms=tuple((_text(name), _number(ms)) for name, ms in data["stages_p50_ms"]),
        latency_ms=tuple(tuple(_number(ms) for ms in block) for block in data["latency_ms"]),
    )


def _comparison(data: Mapping[str, Any]) -> Comparison:
    noise = None if data["noise"] is None else _number(data["noise"])
    return Comparison(_text(data["numerator"]), _text(data["denominator"]), _numbers(Ratio, data["ratio"]), noise)


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
    data = read_file(path, MAX_REPORT_BYTES)
    return Report.from_json(parse_json(data, os.fspath(path), max_bytes=MAX_REPORT_BYTES), os.fspath(path))
