"""Write a bundle: files first, the index last and in one step."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import BadInputError, MachineError, RefusedError, UsageError, one_of
from .card import CARD_FILE, card_text
from .entries import FORMAT, SCHEMA_VERSION, Golden
from .files import dump_json, read_regular, require_place, require_space, sha256, write_atomic, writing
from .npz import dump_npz
from .reader import Bundle
from .sealed import content_name, only_writer, seal, sweep

_FOLDERS = ("graphs", "golden", "calibration")
_OURS = re.compile(r"(clip|frame|temporal)\.[a-z0-9]+\.b\d+\.[0-9a-f]{8}\.onnx|[0-9a-f]{8}\.(npz|json)|\.part-.*")
_HASHED = r"([A-Za-z0-9._-]+\.)?[0-9a-f]{8}"
# Every path that a whole bundle has below its folder, its engines and their signatures included.
PATHS = rf"(manifest\.json|CARD\.md|\.lock|graphs(/{_HASHED}\.onnx)?|golden(/{_HASHED}\.npz)?" + (
    rf"|calibration(/{_HASHED}\.json)?|engines(/index\.json|/\.lock|/[A-Za-z0-9._+-]+(/{_HASHED}\.engine(\.sig)?)?)?)"
)


class BundleWriter:
    """Writer of a bundle: files first, named by their content, the index last and in one step.

    As a context manager it takes back what a new folder holds when the block ends by any error, `KeyboardInterrupt`
    included.

    Args:
        path: the folder; made with the first file when it is not there. A folder that holds something else is refused.
        needed_bytes: about what will be written.

    Raises:
        UsageError: the folder holds other things than a bundle.
        MachineError: it may not be written, or the disk has less left than is needed.
    """

    def __init__(self, path: str | os.PathLike[str], needed_bytes: int = 0) -> None:
        self.path = Path(path)
        self._new: list[Path] = []
        self._folder_is_new = not os.path.lexists(self.path)
        require_bundle_place(self.path)
        with writing(self.path):
            require_space(self.path, needed_bytes, "the bundle")

    def __enter__(self) -> BundleWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._withdraw()

    def add(self, folder: str, stem: str, data: bytes, suffix: str) -> dict[str, Any]:
        """Writes one file and returns `{file, sha256, size}` for the index."""
        file = content_name(folder, stem, data, suffix)
        target = self.path / file
        if not target.exists():
            self._new.append(target)
        write_atomic(target, data)
        return {"file": file, "sha256": sha256(data), "size": len(data)}

    def _withdraw(self) -> None:
        """Removes what a new folder holds without an index; in an old bundle it is swept later."""
        if (self.path / "manifest.json").exists():
            return
        new = [*self._new, *([self.path / ".lock"] if self._folder_is_new else [])]
        for path in new:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        for folder in [*{path.parent for path in self._new}, *([self.path] if self._folder_is_new else [])]:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def add_graph(self, data: bytes, **fields: Any) -> dict[str, Any]:
        """Writes one ONNX file; `fields` are those of `GraphEntry` but file, sha256 and size."""
        stem = f"{fields['graph']}.{fields['precision']}.b{fields['batch']}"
        tensors = {side: [asdict(spec) for spec in fields[side]] for side in ("inputs", "outputs")}
        return {**fields, **tensors, **self.add("graphs", stem, data, ".onnx")}

    def add_golden(self, golden: Golden, source: str) -> dict[str, Any]:
        """Writes the golden clips; `source` says where they come from."""
        data = dump_npz({"clips": golden.clips, "probabilities": golden.probabilities})
        return {**self.add("golden", "", data, ".npz"), "clips": len(golden.clips), "source": source}

    def add_calibration(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a calibration record."""
        return self.add("calibration", "", dump_json(dict(record)), ".json")

    def commit(self, manifest: Mapping[str, Any], replacing: Bundle | None = None) -> Bundle:
        """Replaces the index once it is proven to open, and sweeps old leftovers.

        Args:
            manifest: the new index.
            replacing: what the new index was made from; it must still be the current one.

        Raises:
            RefusedError: the index would not open; the current one is kept.
            MachineError: it may not be written, or it was replaced by somebody else meanwhile.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        with only_writer(self.path):
            if replacing is not None:
                _require_unchanged(replacing)
            before: set[str] = set()
            with contextlib.suppress(BadInputError, RefusedError):  # there is none, or nobody can read it
                before = _named(Bundle(self.path))
            bundle = _replace_index(self.path, manifest)
            leftovers = [*(p for name in _FOLDERS for p in self.path.glob(f"{name}/*")), *self.path.glob(".part-*")]
            sweep(self.path, leftovers, _OURS, _named(bundle), before)
        return bundle


def _named(bundle: Bundle) -> set[str]:
    others = (bundle._golden, *bundle._calibrations.values())
    return {entry.file for entry in bundle.graphs} | {file for file, _, _ in others}


def require_bundle_place(path: str | os.PathLike[str]) -> None:
    """Refuses, before work is done for it, a place where no bundle can be written.

    Raises:
        UsageError: the folder holds other things than a bundle.
        MachineError: it may not be written.
    """
    folder = Path(path)
    known = {"manifest.json", CARD_FILE, "engines", ".lock", *_FOLDERS}
    with writing(folder):
        if not folder.exists():
            places = (folder, *folder.absolute().parents)
            require_place(next(place for place in places if os.path.lexists(place)), folder)
            return
        # A link is foreign too: what is written or swept below one would lie elsewhere.
        foreign = [
            p.name
            for p in folder.iterdir()
            if p.is_symlink() or (p.name not in known and not p.name.startswith(".part-"))
        ]
        if foreign:
            raise UsageError(
                f"{folder} exists and holds {one_of(sorted(foreign)[:3])}: not a bundle, left alone.",
                next="name a new folder with -o",
            )
        require_place(folder, folder / "manifest.json")


def require_changeable(*bundles: Bundle) -> None:
    """Refuses, before work is done for it, to change a bundle whose folder may not be written.

    Raises:
        MachineError: one may not be written.
    """
    for bundle in bundles:
        require_place(bundle.path, bundle.path / "manifest.json")


def replace_manifest(bundle: Bundle, manifest: Mapping[str, Any]) -> Bundle:
    """Replaces the index alone, as `verify` does.

    Raises:
        MachineError: it may not be written, or it was replaced by somebody else meanwhile.
    """
    with only_writer(bundle.path):
        _require_unchanged(bundle)
        return _replace_index(bundle.path, manifest)


def replace_manifests(bundles: Sequence[Bundle], *rounds: Sequence[Mapping[str, Any]]) -> list[Bundle]:
    """Replace the indexes of several bundles, in rounds.

    All get the first of theirs, then all the second, and so on.

    A process that is killed leaves some bundles a step ahead of the others: what they say in one round may not
    contradict what they say in the next.

    Args:
        bundles: all different; all are locked, and every index is proven to open, before the first is written.
        rounds: an index for each bundle.

    Returns:
        The bundles, opened again.

    Raises:
        MachineError: one may not be written, or was replaced by somebody else meanwhile.
    """
    done = list(bundles)
    with contextlib.ExitStack() as locks:
        for bundle in sorted(bundles, key=lambda one: os.path.realpath(one.path)):
            locks.enter_context(only_writer(bundle.path))
        for bundle in bundles:
            _require_unchanged(bundle)
        for manifests in rounds:
            for bundle, manifest in zip(bundles, manifests, strict=True):
                Bundle(bundle.path, index=_sealed(manifest))
        try:
            for manifests in rounds:
                done = [_replace_index(b.path, manifest) for b, manifest in zip(bundles, manifests, strict=True)]
        except MachineError as error:
            error.next = "free space, then run this again: some of the bundles were changed, others not yet"
            raise
    return done


def _require_unchanged(bundle: Bundle) -> None:
    if Bundle(bundle.path).manifest["digest"] != bundle.manifest["digest"]:
        raise MachineError(f"{bundle.path} was changed by another process meanwhile.", next="run this again")


def _replace_index(path: Path, manifest: Mapping[str, Any]) -> Bundle:
    index = _sealed(manifest)
    bundle = Bundle(path, index=index)
    replace_card = _has_no_other_card(path)
    write_atomic(path / "manifest.json", index)
    if replace_card:
        with contextlib.suppress(MachineError):  # the bundle is whole; the card is a note beside it
            write_atomic(path / CARD_FILE, card_text(bundle.manifest).encode("utf-8"))
    return bundle


def _sealed(manifest: Mapping[str, Any]) -> bytes:
    return seal({**manifest, "format": FORMAT, "schema_version": SCHEMA_VERSION})


def _has_no_other_card(path: Path) -> bool:
    """Whether `CARD.md` is missing, or is what we wrote before a user's edits."""
    if not os.path.lexists(path / CARD_FILE):
        return True
    try:
        written = card_text(Bundle(path).manifest).encode("utf-8")
        return read_regular(path, CARD_FILE, len(written)) == written
    except (BadInputError, RefusedError, MachineError):
        return False
