"""Write a bundle: files first, the index last and in one step."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import BadInputError, MachineError, RefusedError, UsageError, one_of
from .card import CARD_FILE, card_text
from .entries import Golden
from .files import dump_json, read_regular, sha256, write_atomic, writing
from .npz import dump_npz
from .reader import FORMAT, SCHEMA_VERSION, Bundle
from .sealed import content_name, only_writer, seal, sweep

_FOLDERS = ("graphs", "golden", "calibration")
_OURS = re.compile(r"(clip|frame|temporal)\.[a-z0-9]+\.b\d+\.[0-9a-f]{8}\.onnx|[0-9a-f]{8}\.(npz|json)|\.part-.*")


class BundleWriter:
    """Writer of a bundle: files first, named by their content, the index last and in one step.

    Args:
        path: the folder; made when it is not there. A folder that holds something else is refused.

    Raises:
        UsageError: the folder holds other things than a bundle.
        MachineError: it may not be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        known = {"manifest.json", CARD_FILE, "engines", ".lock", *_FOLDERS}
        with writing(self.path):
            if self.path.exists():
                # A link is foreign too: what is written or swept below one would lie elsewhere.
                foreign = [
                    p.name
                    for p in self.path.iterdir()
                    if p.is_symlink() or (p.name not in known and not p.name.startswith(".part-"))
                ]
                if foreign:
                    raise UsageError(
                        f"{self.path} exists and holds {one_of(sorted(foreign)[:3])}: not a bundle, left alone.",
                        next="name a new folder with -o",
                    )
            self.path.mkdir(parents=True, exist_ok=True)

    def add(self, folder: str, stem: str, data: bytes, suffix: str) -> dict[str, Any]:
        """Writes one file and returns `{file, sha256, size}` for the index."""
        file = content_name(folder, stem, data, suffix)
        write_atomic(self.path / file, data)
        return {"file": file, "sha256": sha256(data), "size": len(data)}

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


def replace_manifest(bundle: Bundle, manifest: Mapping[str, Any]) -> Bundle:
    """Replaces the index alone, as `verify` does.

    Raises:
        MachineError: it may not be written, or it was replaced by somebody else meanwhile.
    """
    with only_writer(bundle.path):
        _require_unchanged(bundle)
        return _replace_index(bundle.path, manifest)


def _require_unchanged(bundle: Bundle) -> None:
    if Bundle(bundle.path).manifest["digest"] != bundle.manifest["digest"]:
        raise MachineError(f"{bundle.path} was changed by another process meanwhile.", next="run this again")


def _replace_index(path: Path, manifest: Mapping[str, Any]) -> Bundle:
    index = seal({**manifest, "format": FORMAT, "schema_version": SCHEMA_VERSION})
    bundle = Bundle(path, index=index)
    replace_card = _has_no_other_card(path)
    write_atomic(path / "manifest.json", index)
    if replace_card:
        with contextlib.suppress(MachineError):  # the bundle is whole; the card is a note beside it
            write_atomic(path / CARD_FILE, card_text(bundle.manifest).encode("utf-8"))
    return bundle


def _has_no_other_card(path: Path) -> bool:
    """Whether `CARD.md` is missing, or is what we wrote before a user's edits."""
    if not os.path.lexists(path / CARD_FILE):
        return True
    try:
        written = card_text(Bundle(path).manifest).encode("utf-8")
        return read_regular(path, CARD_FILE, len(written)) == written
    except (BadInputError, RefusedError, MachineError):
        return False
