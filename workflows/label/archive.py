"""Label an archive: every recording once, also over interruptions, damaged ones listed.

A recording is a video file or a folder of frames. What is answered goes to a journal beside the output, a line for each
recording; the output is written from it at the end, in the recordings' order, and the journal removed. A run that was
interrupted goes on where the journal ends, and writes the file that it would have written. What a whole output of the
same provenance holds is not answered again either: only what came to the archive or changed since is.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import BadInputError, VerificationError, command, printable
from .answering import Labeller
from .journal import Journal
from .output import check_format, entry_name, finished_entries, require_asked_for, require_own, write_answers
from .recordings import list_archive

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelReport:
    """What was labelled.

    Attributes:
        out: the file.
        recordings: in it.
        answers: of all of them.
        resumed: recordings that an earlier run had answered; all of them where the file was complete before, and was
            left as it is.
        damaged: (recording, what is wrong with it).
        seconds: wall clock of answering the others, without what it took to start.
        ray: what Ray did, see `RayLabeller.to_json`; None without it.
        links: folders below the sources that are links to elsewhere; they were left out.
    """

    out: str
    recordings: int
    answers: int
    resumed: int
    damaged: tuple[tuple[str, str], ...]
    seconds: float = 0.0
    ray: dict[str, Any] | None = None
    links: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def label_archive(
    labeller: Labeller,
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    progress: Callable[[str, int, int], None] | None = None,
    *,
    overwrite: bool = False,
) -> LabelReport:
    """Answers every recording and writes one file.

    Args:
        labeller: what answers them.
        sources: video files, folders of frames, and folders that hold such at any depth. Linked folders below them are
            left out; the report names those that lead elsewhere.
        out: a `.jsonl` or `.parquet` file; answers there that are of the same provenance, and of the recordings as they
            are now, are kept.
        progress: called with ("label", recordings done, recordings in all).
        overwrite: answer anew, and replace whatever file is there. Answers in a journal of the same provenance count
            all the same: they are of a run that did not come to its end. What failed there is tried again.

    Raises:
        UsageError: another kind of output, or another call's answers are there or in a journal beside it, or answers of
            other recordings.
        BadInputError: there is no recording, or none that can be read.
        MachineError: pyarrow is missing, another run writes this file, or the disk is full.
        RefusedError: a graph of the bundle is damaged; what was answered is kept.
        DeviceLostError: the device is gone; what was answered is kept.
        VerificationError: a recording was answered twice, or not at all.
    """
    target = Path(out)
    check_format(target)
    links: list[str] = []
    items = list_archive(sources, lambda link: links.append(printable(link)))
    if links:
        _log.warning(
            "%d folders are links and were left out, the first %s; name each as a source to have it answered",
            len(links),
            links[0],
        )
    head = labeller.prepare()
    kept: dict[str, dict[str, Any]] = {}
    names = {item.path: entry_name(target, os.fspath(item.path)) for item in items}
    if not overwrite or target.is_dir():
        require_own(target, head)
        kept = finished_entries(target)
        require_asked_for(target, kept, set(names.values()))
    with Journal(target, head, overwrite=overwrite) as journal:
        # Marks are taken before anything is read: a recording that is still being written is answered again.
        marks = {item.path: item.mark() for item in items}
        recalled = 0
        for path in (item.path for item in items if not journal.holds(item.path, marks[item.path])):
            entry = kept.get(names[path])
            if entry is not None and entry.get("mark") == marks[path]:
                journal.recall(path, marks[path], entry)
                recalled += 1
        todo = [item for item in items if not journal.holds(item.path, marks[item.path])]
        left, began_s = {item.path for item in todo}, time.perf_counter()
        if progress is not None:
            progress("label", len(items) - len(left), len(items))
        for item, found in labeller.answers(todo) if todo else ():
            if item.path not in left:
                raise VerificationError(f"{printable(item.path)} was answered twice.")
            left.remove(item.path)
            journal.add(item.path, marks[item.path], found)
            if progress is not None:
                progress("label", len(items) - len(left), len(items))
        seconds = time.perf_counter() - began_s - labeller.start_s
        if left:
            raise VerificationError(f"{len(left)} recordings were not answered; the first: {printable(min(left))}.")
        entries = [journal.entry(item.path) for item in items]
        damaged = tuple((printable(entry["recording"]), entry["error"]) for entry in entries if "error" in entry)
        if len(damaged) == len(entries):
            if not journal.answered:  # else the next call would repeat these errors without a look
                journal.remove()
            raise BadInputError(
                f"None of {len(entries)} recordings could be read; the first: {damaged[0][1]}",
                next=command("logoformer", "run", labeller.bundle, entries[0]["recording"]),
            )
        if recalled < len(items):
            write_answers(target, head, entries)
        journal.remove()
    answers = sum(len(entry.get("answers", ())) for entry in entries)
    resumed = len(items) - len(todo)
    return LabelReport(
        os.fspath(target),
        len(entries),
        answers,
        resumed,
        damaged,
        round(seconds, 3),
        labeller.to_json(),
        tuple(links),
    )
