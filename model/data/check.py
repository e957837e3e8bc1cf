"""Check of a data set before a training: `logoformer data-check`.

Lists are read, every folder is looked into, every frame is decoded. A *fault* would spoil a training or a score; a
*note* is something to know, such as clips that are shorter than the model's, or images that are not of the size that
their folder is named after.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...bundle.files import read_regular
from ...errors import LogoformerError, RefusedError
from ...media.stills import MAX_IMAGE_BYTES, decode_still, still_names
from .clips import Progress
from .datasets import find_layout, folds_of, open_listing
from .decoding import count_frames
from .folders import unread_entries
from .listing import Entry, Listing

FEWEST = 16
SHOWN = 20


@dataclass(frozen=True)
class DataFinding:
    """One fault or note.

    Attributes:
        kind: such as 'damaged frame'.
        where: list, folder or file.
        what: in words.
        fault: whether it would spoil a training or a score.
    """

    kind: str
    where: str
    what: str
    fault: bool


@dataclass(frozen=True)
class DataReport:
    """Contents of a data set, and its faults.

    Attributes:
        root: its folder.
        layout: which data set.
        clips: listed clips, each once.
        frames: images that were decoded, or frames of videos.
        classes: clips by class.
        shortest, median, longest: frames of a clip.
        sizes: images by 'width x height', the most frequent first.
        findings: faults first.
    """

    root: str
    layout: str
    clips: int
    frames: int
    classes: dict[str, int]
    shortest: int
    median: int
    longest: int
    sizes: dict[str, int]
    findings: tuple[DataFinding, ...]

    @property
    def faults(self) -> tuple[DataFinding, ...]:
        """The findings that would spoil a training or a score."""
        return tuple(finding for finding in self.findings if finding.fault)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """The report as readable text."""
        lines = [
            f"{self.root}: {self.layout}, {self.clips} clips, {self.frames} frames",
            "  classes  " + ", ".join(f"{name} {count}" for name, count in self.classes.items()),
            f"  frames of a clip  {self.shortest} to {self.longest}, median {self.median}",
            "  images   " + ", ".join(f"{size}: {count}" for size, count in list(self.sizes.items())[:4]),
        ]
        for kind, fault in dict.fromkeys((f.kind, f.fault) for f in self.findings):
            some = [f for f in self.findings if (f.kind, f.fault) == (kind, fault)]
            lines.append(f"  {'FAULT' if fault else 'note '}  {kind}: {len(some)}")
            lines += [f"             {f.where}: {f.what}" for f in some[:SHOWN]]
            lines += [f"             ... and {len(some) - SHOWN} more"] if len(some) > SHOWN else []
        lines.append(f"  {len(self.faults)} faults")
        return "\n".join(lines)


def check_data(root: str | os.PathLike[str], progress: Progress | None = None) -> DataReport:
    """Checks a data set.

    Raises:
        BadInputError: no data set is there.
    """
    layout = find_layout(root)
    findings: list[DataFinding] = []
    listings = _listings(root, layout, findings)
    findings += _splits(folds_of(root, layout), listings)
    entries: dict[str, tuple[Listing, Entry]] = {}
    for listing in listings.values():
        for entry in listing.entries:
            entries.setdefault(entry.name, (listing, entry))
    lengths: list[int] = []
    sizes: Counter[str] = Counter()
    digests: list[str] = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for done, (length, seen, digest, found) in enumerate(pool.map(_clip, entries.values()), start=1):
            findings += found
            sizes.update(seen)
            digests.append(digest)
            if length:
                lengths.append(length)
            if progress:
                progress("data-check", done, len(entries))
    findings += _copies(list(entries.values()), digests, {key: listings[key] for key in listings if key[1] == 1})
    if layout == "folders":
        findings += [DataFinding("not read", place, what, fault=False) for place, what in unread_entries(root)]
    findings += _unlisted(layout, Path(root), {entry.place for _, entry in entries.values()})
    classes = Counter(listing.labels[entry.label] for listing, entry in entries.values())
    lengths = sorted(lengths) or [0]
    return DataReport(
        root=os.fspath(root),
        layout=layout,
        clips=len(entries),
        frames=sum(lengths),
        classes=dict(classes),
        shortest=lengths[0],
        median=lengths[len(lengths) // 2],
        longest=lengths[-1],
        sizes=dict(sizes.most_common()),
        findings=tuple(sorted(findings, key=lambda finding: (not finding.fault, finding.kind, finding.where))),
    )


# -------------------------------------------------------------------------------------------------------------- lists
def _listings(root: str | os.PathLike[str], layout: str, findings: list[DataFinding]) -> dict[tuple[str, int], Listing]:
    """Reads every list of the data set; one that cannot be read is a fault."""
    found = {}
    for fold in folds_of(root, layout):
        for split in ("train", "test"):
            try:
                found[split, fold] = open_listing(root, split, fold, layout=layout)
            except LogoformerError as error:
                cause = f" ({error.cause})" if error.cause else ""
                findings.append(DataFinding("bad list", f"{split}, fold {fold}", error.what + cause, fault=True))
    return found


def _splits(folds: tuple[int, ...], listings: dict[tuple[str, int], Listing]) -> Iterator[DataFinding]:
    """Clips in training and test, in two test folds, in two classes; classes without clips."""
    names = {key: {entry.name for entry in listing.entries} for key, listing in listings.items()}
    for (split, fold), own in names.items():
        both = own & names.get(("test", fold), set()) if split == "train" else set()
        for name in sorted(both):
            yield DataFinding("in training and test", name, f"fold {fold}", fault=True)
    if len(folds) > 1:
        tested = Counter(name for (split, _), own in names.items() if split == "test" for name in own)
        for name in sorted(name for name, times in tested.items() if times > 1):
            yield DataFinding(
                "in two test folds", name, f"{tested[name]} folds; pooled figures would count it twice", fault=True
            )
        everything = set().union(*names.values()) if names else set()
        if all(("test", fold) in names for fold in folds):
            for name in sorted(everything - tested.keys()):
                yield DataFinding("in no test fold", name, "pooling would leave it out", fault=True)
    classes: dict[str, int] = {}
    for listing in listings.values():
        for entry in listing.entries:
            if classes.setdefault(entry.name, entry.label) != entry.label:
                yield DataFinding("two classes", entry.name, f"{listing.source} and another list disagree", fault=True)
        # Often a numbering that is off by one.
        for label in sorted(set(range(len(listing.labels))) - {entry.label for entry in listing.entries}):
            what = f"{listing.labels[label]}: a small part, or another numbering"
            yield DataFinding("class without clips", listing.source, what, fault=False)


# -------------------------------------------------------------------------------------------------------------- clips
def _copies(
    listed: Sequence[tuple[Listing, Entry]], digests: Sequence[str], first_fold: Mapping[tuple[str, int], Listing]
) -> Iterator[DataFinding]:
    """Clips whose files are byte for byte those of another, whatever their names.

    A copy on both sides of a split is a fault: a test clip that was trained on. So is a copy in another class.
    """
    side = {entry.name: split for (split, _), listing in first_fold.items() for entry in listing.entries}
    groups: dict[str, list[Entry]] = {}
    for (_, entry), digest in zip(listed, digests, strict=True):
        if digest:
            groups.setdefault(digest, []).append(entry)
    for one, *others in groups.values():
        for other in others:
            if side.get(one.name) != side.get(other.name):
                yield DataFinding("copy in training and test", other.place, f"is {one.place}", fault=True)
            elif one.label != other.label:
                yield DataFinding("copy in another class", other.place, f"is {one.place}", fault=True)
            else:
                yield DataFinding("copies of one clip", other.place, f"is {one.place}", fault=False)


def _clip(listed: tuple[Listing, Entry]) -> tuple[int, Counter[str], str, list[DataFinding]]:
    """(frames, images by 'width x height', hash of the files, findings) of one clip."""
    listing, entry = listed
    found: list[DataFinding] = []
    sizes: Counter[str] = Counter()
    place = f"{listing.root}/{entry.place}"
    names: list[str] = []
    hashed = hashlib.sha256()

    def note(kind: str, what: str, *, fault: bool = False) -> None:
        found.append(DataFinding(kind, place, what, fault))

    try:
        if entry.is_video:
            length = count_frames(listing.root, entry.place)
            with (listing.root / entry.place).open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    hashed.update(chunk)
        else:
            names = still_names(listing.root / entry.place)
            length = len(names)
            for name in names:
                _frame(listing.root / entry.place, name, sizes, found, hashed)
    except LogoformerError as error:
        there = listing.root / entry.place
        gone = not there.exists() or (there.is_dir() and not any(there.iterdir()))
        kind = "missing clip" if gone else "damaged clip"
        return 0, sizes, "", [DataFinding(kind, place, error.what, fault=True)]
    if len(sizes) > 1:
        note("images of several sizes", ", ".join(sizes))
    promised = re.search(r"_(\d{2,4})x\1(?:_|/)", entry.place)  # 224 of 'clip_224x224'
    if promised and sizes and f"{promised[1]} x {promised[1]}" not in sizes:
        note("another size than the folder's name", ", ".join(sizes))
    gap, missing = _gaps(names)
    if missing:
        note("gaps between frames", f"{missing} numbers are not there, the first after {gap}")
    if length < FEWEST:
        note("short clip", f"{length} frames; the policy for short clips decides")
    if entry.frames is not None and entry.frames != length:
        note("frame count differs", f"the list says {entry.frames} frames, there are {length}", fault=True)
    return length, sizes, hashed.hexdigest(), found


def _gaps(names: Sequence[str]) -> tuple[str, int]:
    """Gaps in numbered names: (the frame before the first gap, how many numbers are missing)."""
    first, missing, before, last = "", 0, "", -1
    for name in names:
        digits = re.search(r"([0-9]{1,9})\.[a-zA-Z]+$", name)
        number = int(digits[1]) if digits else -1
        if 0 <= last < number - 1:
            first, missing = first or before, missing + number - last - 1
        before, last = name, number
    return first, missing


def _frame(folder: Path, name: str, sizes: Counter[str], found: list[DataFinding], hashed: hashlib._Hash) -> None:
    try:
        data = read_regular(folder, name, MAX_IMAGE_BYTES)
        hashed.update(hashlib.sha256(data).digest())
        image = decode_still(data, f"{folder}/{name}")
        sizes["{} x {}".format(*image.size)] += 1
    except LogoformerError as error:
        kind = "not a regular file" if isinstance(error, RefusedError) else "damaged frame"
        found.append(DataFinding(kind, f"{folder}/{name}", error.what, fault=True))


def _unlisted(layout: str, root: Path, listed: set[str]) -> Iterator[DataFinding]:
    """Folders of clips that no list names: one note, however many."""
    if not listed or layout not in ("dfew", "ferv39k"):
        return
    parents = {os.path.dirname(place) for place in listed}  # noqa: PTH120 - POSIX paths of a list
    there = {
        f"{parent}/{item.name}"
        for parent in parents
        if (root / parent).is_dir()
        for item in os.scandir(root / parent)
        if item.is_dir() and not item.name.startswith(".")
    }
    unlisted = sorted(there - listed)
    if unlisted:
        what = f"{len(unlisted)} folders, such as {unlisted[0]}; DFEW's own has clips without a single label"
        yield DataFinding("folders that no list names", os.fspath(root), what, fault=False)
