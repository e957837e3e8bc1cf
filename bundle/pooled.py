"""Verdicts pooled over the folds of a data set, one bundle a fold, and what makes them void.

Each bundle is judged on the test clips of its own fold, and the answers of all are one experiment. The verdict stands
in every bundle with a digest of each, over its index without verdicts. It is void as soon as one of them is another
bundle than the one that was judged, or no longer holds the same verdict. A bundle that was copied alone cannot be held
against the others: its verdict stands.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import BadInputError, LogoformerError, command
from .entries import FORMAT, SCHEMA_VERSION
from .files import MAX_JSON_BYTES, dump_json, read_regular, sha256
from .sealed import count, hex256, typed, unseal

POOLED = "pooled"  # the field of a verdict
ITSELF = "."
# What judging writes; all else in an index makes it another bundle.
_JUDGED = ("verdict", "reason", "graphs", "accuracy", POOLED)
_NAME = r"(?!\.{1,2}(?:/|$))[^/\x00]{1,255}"
_PLACE = re.compile(rf"\.|(?:\.\./){{1,16}}{_NAME}(?:/{_NAME}){{0,15}}")


@dataclass(frozen=True)
class PooledFold:
    """One bundle of a pooled verdict.

    Attributes:
        fold: whose test clips it was judged on.
        bundle: its folder, from the bundle that holds the verdict; '.' is that one.
        sha256: of its index without verdicts; see `index_sha256`.
    """

    fold: int
    bundle: str
    sha256: str


def index_sha256(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of everything in an index but the verdicts."""
    body = {key: value for key, value in manifest.items() if key not in ("digest", "verification")}
    body["precisions"] = {
        name: {key: value for key, value in entry.items() if key not in _JUDGED}
        for name, entry in manifest["precisions"].items()
    }
    return sha256(dump_json(body))


def pooled_folds(
    paths: Mapping[int, Path], manifests: Mapping[int, Mapping[str, Any]], own: int
) -> list[dict[str, Any]]:
    """The field of a pooled verdict, for the bundle of one fold.

    Args:
        paths: of the bundles by fold.
        manifests: their indexes by fold.
        own: the fold whose bundle will hold the field.
    """
    here = os.path.realpath(paths[own])
    found = []
    for fold in sorted(paths):
        place = ITSELF if fold == own else Path(os.path.relpath(os.path.realpath(paths[fold]), here)).as_posix()
        found.append(asdict(PooledFold(fold, place, index_sha256(manifests[fold]))))
    return found


def read_pooled(verdict: Mapping[str, Any]) -> tuple[PooledFold, ...]:
    """The folds of a verdict; none where it is not pooled.

    Raises:
        KeyError, TypeError, ValueError: a field is missing, of another type or out of range.
    """
    folds = tuple(
        PooledFold(count(typed(item, dict)["fold"]), typed(item["bundle"], str), hex256(item["sha256"]))
        for item in typed(verdict.get(POOLED, []), list)
    )
    if folds and (
        [fold.bundle for fold in folds].count(ITSELF) != 1
        or len({fold.fold for fold in folds}) < len(folds)
        or not all(_PLACE.fullmatch(fold.bundle) for fold in folds)
    ):
        raise ValueError("a pooled verdict names each fold once, one of them its own bundle")
    return folds


def void_verdicts(folder: Path, manifest: Mapping[str, Any]) -> dict[str, str]:
    """Pooled verdicts of an index that no longer hold, and why.

    Args:
        folder: the bundle.
        manifest: its index.

    Returns:
        By what the verdict is on, see `verdicts_of`: which bundle is no longer the one that was judged.
    """
    here = Path(os.path.realpath(folder))
    indexes: dict[str, dict[str, Any] | None] = {ITSELF: dict(manifest)}
    found: dict[str, str] = {}
    for kind, verdict in verdicts_of(manifest).items():
        for fold in read_pooled(verdict):
            if fold.bundle not in indexes:
                indexes[fold.bundle] = _index_of(Path(os.path.normpath(here / fold.bundle)))
            if why := _why_void(indexes[fold.bundle], kind, verdict, fold):
                found[kind] = f"{place_of(folder, fold)}, the bundle of fold {fold.fold}, {why}"
                break
    return found


def _why_void(index: Mapping[str, Any] | None, kind: str, verdict: Mapping[str, Any], fold: PooledFold) -> str:
    if index is None:
        return ""
    if not index or index_sha256(index) != fold.sha256:
        return "is not the one that was judged"
    holds = _identity(verdicts_of(index).get(kind, {})) == _identity(verdict)
    return "" if holds else "no longer holds this verdict"


def verdicts_of(manifest: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Verdicts of an index: on each precision ('int8'), and on a backend ('openvino int8')."""
    found: dict[str, Mapping[str, Any]] = dict(manifest["precisions"])
    for row in manifest.get("verification", {}).get("accuracy", []):
        found[backend_kind(row["backend"], row["precision"])] = row
    return found


def backend_kind(backend: str, precision: str) -> str:
    """The name that `verdicts_of` has for a backend's verdict."""
    return f"{backend} {precision}"


def judge_again(folder: Path, verdict: Mapping[str, Any]) -> str:
    """The command that judges the bundles of a pooled verdict again."""
    first, *others = (place_of(folder, fold) for fold in sorted(read_pooled(verdict), key=lambda one: one.fold))
    return command("logoformer", "verify", first, *others, "--accuracy", "--data", "DIR", "--fold", "all")


def place_of(folder: Path, fold: PooledFold) -> str:
    """The place of a bundle of the verdict, in the words that `folder` was named by."""
    place, short = Path(os.path.realpath(folder)) / fold.bundle, os.path.normpath(folder / fold.bundle)
    return short if os.path.realpath(short) == os.path.normpath(place) else os.path.normpath(place)


def _identity(verdict: Mapping[str, Any]) -> tuple[Any, ...]:
    folds = sorted((item["fold"], item["sha256"]) for item in verdict.get(POOLED, ()))
    return verdict.get("verdict"), verdict.get("graphs"), folds


def _index_of(folder: Path) -> dict[str, Any] | None:
    """The index of another bundle; None where there is none, empty where it cannot be believed."""
    try:
        index = unseal(read_regular(folder, "manifest.json", MAX_JSON_BYTES), str(folder), FORMAT, SCHEMA_VERSION)
        verdicts_of(index), index_sha256(index)
        return index
    except BadInputError:
        return None
    except (LogoformerError, LookupError, TypeError, ValueError, AttributeError):
        return {}
