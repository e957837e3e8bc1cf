"""The file of answers: JSON lines or Parquet, with its provenance at the head."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from ...bundle.files import atomic_path
from ...errors import RefusedError, UsageError, needing, one_of, printable
from .entries import check_entry, parse_line

FORMATS = (".jsonl", ".parquet")
_MAX_HEAD_BYTES = 1 << 20
_ANSWER = ("time_s", "frame", "face", "box", "label")  # columns of an answer that are as in JSON lines
_OPTIONS = {"precision": "--precision", "face": "--face", "hop": "--hop", "warmup": "--warmup"}


def check_format(path: Path) -> None:
    """Refuses another kind of file, before anything is answered.

    Raises:
        UsageError: the suffix is another.
        MachineError: pyarrow is missing.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{path} is none of {one_of(FORMATS)}.", next=f"-o {path.stem}.jsonl")
    if path.suffix == ".parquet":
        with needing("pyarrow", "label", "Writing .parquet"):
            import pyarrow.parquet  # noqa: F401


def require_own(path: Path, head: Mapping[str, Any]) -> None:
    """Refuses to replace a file that holds anything but answers of the same provenance.

    Raises:
        UsageError: it does; says which option differs. Or it is no file: a pipe, or a link that leads nowhere.
    """
    if os.path.lexists(path) and not path.is_file() and not path.is_dir():
        raise UsageError(f"{printable(path)} exists and is no file; it was left alone.", next=_drop(path))
    if path.exists() and path.stat().st_size:
        require_same_head(path, _read_head(path), head)


def require_same_head(path: Path, there: object, here: Mapping[str, Any]) -> None:
    """Refuses what another call wrote.

    Args:
        path: the file.
        there: its head.
        here: this call's.

    Raises:
        UsageError: they differ; says in what.
    """
    drop = _drop(path)
    if not isinstance(there, dict) or "logoformer" not in there:
        raise UsageError(
            f"{printable(path)} exists and holds no answers of this program; it was left alone.", next=drop
        )
    differing = [name for name in {**here, **there} if there.get(name) != here.get(name)]
    if differing:
        # The classes are the bundle's: to name both lists would hide what matters.
        named = [name for name in differing if name != "labels"] or differing
        shown = "; ".join(f"{name}: {_short(there.get(name))} there, {_short(here.get(name))} now" for name in named)
        options = [f"{_OPTIONS[name]} {there[name]}" for name in named if name in _OPTIONS and name in there]
        again = f"repeat it with {' '.join(options)}, " if len(options) == len(named) else ""
        raise UsageError(
            f"{printable(path)} was written by another call ({shown}); it was left alone.",
            cause="an earlier call with the same -o",
            next=again + drop,
        )


def finished_entries(path: Path) -> dict[str, dict[str, Any]]:
    """What a whole file holds, by the recording's name as `entry_name` gives it.

    An entry is a line of the journal: recording, mark, and answers or an error. Names that two recordings share in a
    `.parquet` file are left out.

    Raises:
        UsageError: the file is damaged.
    """
    if not path.exists() or not path.stat().st_size:
        return {}
    try:
        entries = _read_parquet(path) if path.suffix == ".parquet" else _read_lines(path)
        named = [(entry_name(path, entry["recording"]), entry) for entry in entries]
        counts = Counter(name for name, _ in named)
        return {name: entry for name, entry in named if counts[name] == 1}
    except (OSError, ValueError, LookupError, TypeError, RefusedError) as error:  # pyarrow's own are ValueErrors
        raise UsageError(
            f"{printable(path)} is damaged; it was left alone.",
            cause="another program changed it, or a copy ended early",
            next=_drop(path),
        ) from error


def entry_name(path: Path, recording: str) -> str:
    """A recording's name as the file holds it: Arrow's texts hold no odd file names."""
    return printable(recording) if path.suffix == ".parquet" else recording


def require_asked_for(path: Path, finished: Iterable[str], asked: Container[str]) -> None:
    """Refuses to replace answers of recordings that this call does not name.

    Raises:
        UsageError: there are such.
    """
    lost = [name for name in finished if name not in asked]
    if lost:
        raise UsageError(
            f"{printable(path)} holds answers of {len(lost)} recordings that are not among these, the first "
            f"{printable(lost[0])}; it was left alone.",
            cause="an earlier call of other recordings with the same -o, or recordings that went away since",
            next="add --overwrite to do without those answers, or name another file with -o",
        )


def write_answers(path: Path, head: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> None:
    """Writes the file, whole or not at all.

    Raises:
        MachineError: the disk is full or may not be written.
    """
    with atomic_path(path) as part:
        (_write_parquet if path.suffix == ".parquet" else _write_lines)(part, head, entries)


def _drop(path: Path) -> str:
    return "name another file with -o" + ("" if path.is_dir() else ", or add --overwrite, which answers anew")


def _short(value: object) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value), 40)


def _read_head(path: Path) -> object:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            with path.open("rb") as file:
                text = (pq.read_schema(file).metadata or {}).get(b"logoformer", b"")
        else:
            with path.open("rb") as file:
                text = file.readline(_MAX_HEAD_BYTES)
        return parse_line(text, printable(path))
    except (OSError, ValueError, RefusedError):  # pyarrow's own are ValueErrors
        return None


def _write_lines(path: Path, head: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="ascii") as file:
        for line in (head, *entries):
            file.write(json.dumps(line, allow_nan=False) + "\n")


def _read_lines(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        labels = parse_line(file.readline(), printable(path))["labels"]
        return [check_entry(parse_line(line, printable(path)), labels) for line in file]


def _write_parquet(path: Path, head: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> None:
    """A row an answer; a recording without one has a row with its error, or with nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("recording", pa.string()), ("number", pa.int64()), ("mark", pa.list_(pa.int64())),
            ("time_s", pa.float64()), ("frame", pa.int64()), ("face", pa.int64()), ("box", pa.list_(pa.float32())),
            ("label", pa.string()), ("probabilities", pa.list_(pa.float32())), ("error", pa.string()),
        ],
        metadata={"logoformer": json.dumps(head)},
    )  # fmt: skip
    rows = []
    for number, entry in enumerate(entries):
        for answer in entry.get("answers") or [{}]:
            row = {name: answer.get(name) for name in _ANSWER}
            shares = answer.get("probabilities")
            row["probabilities"] = None if shares is None else [shares[label] for label in head["labels"]]
            of = {"recording": printable(entry["recording"]), "number": number, "mark": entry["mark"]}
            error = entry.get("error")
            rows.append({**of, **row, "error": None if error is None else printable(error)})
    table = pa.Table.from_pylist(rows, schema=schema)
    with path.open("wb") as file:  # an open one: Arrow takes no path with bytes that are no UTF-8
        pq.write_table(table, file)


def _read_parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        table = pq.read_table(file)
    labels = parse_line(table.schema.metadata[b"logoformer"], printable(path))["labels"]
    entries = []
    for _, of_one in groupby(table.to_pylist(), key=lambda row: (row.get("number"), row["recording"])):
        rows = list(of_one)
        entry = {"recording": rows[0]["recording"], "mark": rows[0].get("mark")}
        if rows[0]["error"] is not None:
            entry["error"] = rows[0]["error"]
        else:
            entry["answers"] = [
                {name: row[name] for name in _ANSWER if row[name] is not None}
                | {"probabilities": dict(zip(labels, row["probabilities"], strict=True))}
                for row in rows
                if row["label"] is not None
            ]
        entries.append(check_entry(entry, labels))
    return entries
