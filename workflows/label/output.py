"""The file of answers: JSON lines or Parquet, with its provenance at the head."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...bundle.files import atomic_path
from ...errors import UsageError, command, needing, one_of, printable

FORMATS = (".jsonl", ".parquet")
_MAX_HEAD_BYTES = 1 << 20
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
        UsageError: it does; says which option differs.
    """
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
    drop = f"name another file with -o, or drop it: {command('rm', path)}"
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


def write_answers(path: Path, head: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> None:
    """Writes the file, whole or not at all.

    Raises:
        MachineError: the disk is full or may not be written.
    """
    with atomic_path(path) as part:
        (_write_parquet if path.suffix == ".parquet" else _write_lines)(part, head, entries)


def _short(value: object) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value), 40)


def _read_head(path: Path) -> object:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            text = (pq.read_schema(path).metadata or {}).get(b"logoformer", b"")
        else:
            with path.open("rb") as file:
                text = file.readline(_MAX_HEAD_BYTES)
        return json.loads(text)
    except (OSError, ValueError):  # pyarrow's own are ValueErrors
        return None


def _write_lines(path: Path, head: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="ascii") as file:
        for line in (head, *entries):
            file.write(json.dumps(line, allow_nan=False) + "\n")


def _write_parquet(path: Path, head: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> None:
    """A row an answer; a recording without one has a row with its error, or with nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("recording", pa.string()), ("time_s", pa.float64()), ("frame", pa.int64()), ("face", pa.int64()),
            ("box", pa.list_(pa.float32())), ("label", pa.string()), ("probabilities", pa.list_(pa.float32())),
            ("error", pa.string()),
        ],
        metadata={"logoformer": json.dumps(head)},
    )  # fmt: skip
    rows = []
    for entry in entries:
        for answer in entry.get("answers") or [{}]:
            row = {name: answer.get(name) for name in ("time_s", "frame", "face", "box", "label")}
            shares = answer.get("probabilities")
            row["probabilities"] = None if shares is None else [shares[label] for label in head["labels"]]
            rows.append({"recording": printable(entry["recording"]), **row, "error": entry.get("error")})
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
