"""What an output may replace: an older output of the same verb, and nothing else.

`-o`, `--layers`, `--sensitivity` and `--suggest-map` name outputs. An older one is told by its content. Everything else
is left alone until `--overwrite` is given: files of other programs, and what took hours or was edited by hand (trained
and imported weights, maps). `export`, `label`, `triton` and `demo` tell their own older output themselves; but for
`label --overwrite` they replace nothing else at all.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadInputError, LogoformerError, UsageError, command
from . import choices

Paths = Callable[[argparse.Namespace], Sequence[Sequence[Path]]]  # what is written together, the deciding one first
Ours = Callable[[Path], bool]

MAX_JSON_BYTES = 64 << 20
TELL_THEMSELVES = frozenset({"export", "label", "triton", "demo"})
_FOREIGN = "a file of yours, or of another program, in the output's place"
_OLDER = "an output of another day with the same name"


def check_output(a: argparse.Namespace, words: Sequence[str]) -> None:
    """Refuses, before any work, to write where nothing can be and to replace what is not ours.

    Args:
        a: the call; `--overwrite` allows to replace.
        words: the command line, for the next step.

    Raises:
        UsageError: a name that no output can have.
        BadInputError: something else is there; it is named.
        MachineError: the folder of an output cannot be written.
    """
    _check_empty(a)
    for path in _places(a):
        _check_place(path)
    if a.verb in TELL_THEMSELVES or getattr(a, "overwrite", True):
        return
    if a.verb in _WEIGHTS:
        _check_weights(a, words)
        _check_log(a, words)
    rule = _FILES.get(a.verb)
    if rule is None:
        return
    named, ours, why = rule
    for together in named(a):
        paths = [path for path in together if path.is_symlink() or (path.exists() and not path.is_dir())]
        # The first that a verb writes decides for those beside it, such as the page beside a report.
        if not paths or (paths[0] == together[0] and paths[0].is_file() and ours(paths[0])):
            continue
        raise BadInputError(
            f"{paths[0]} exists and {why}; it was left alone.",
            cause=_OLDER if ours is _never else _FOREIGN,
            next=_allowing(words),
        )


def _check_empty(a: argparse.Namespace) -> None:
    """Refuses an empty name of an input or an output, which would mean the current folder.

    Raises:
        UsageError: says which one.
    """
    from .completion import takes_path

    for action in a.root.verbs.choices[a.verb]._actions:
        given = getattr(a, action.dest, None)
        if takes_path(action) and (given == "" or (isinstance(given, list) and "" in given)):
            raise UsageError(
                f"The name of {(action.option_strings or [action.dest])[-1]} is empty.",
                cause="a variable of the shell that is not set",
                next=command("logoformer", a.verb, "--help"),
            )


def _places(a: argparse.Namespace) -> list[Path]:
    """Every output that a call names or, as `export`, makes beside its input.

    Raises:
        UsageError: a name that no output can have.
        BadInputError: the folder is a mount point.
    """
    named = _FILES[a.verb][0](a) if a.verb in _FILES else []
    places = [together[0] for together in named]
    for path in places:
        _check_name(path, a.verb)
        if path.is_dir():
            raise UsageError(
                f"{path} is a folder; the output is a file.",
                next=f"name a file in it: {path / f'output{path.suffix}'}",
            )
    if a.verb in _INSIDE:
        return [Path(a.out) / "inside"]
    if a.verb == "export":
        return [*places, _whole(Path(a.out), a.verb)] if a.out else [Path(a.checkpoint).absolute()]
    if a.verb in _WEIGHTS and a.out and not getattr(a, "dry_run", False):
        places.append(_whole(Path(a.out), a.verb))
    return [*places, *([Path(a.out)] if a.verb == "label" else [])]


def _whole(path: Path, verb: str) -> Path:
    """A folder that is replaced as a whole."""
    _check_name(path, verb)
    if path.is_mount():
        raise BadInputError(
            f"{path} is a mount point, which cannot be replaced.",
            cause="a volume is mounted there",
            next=f"name a folder in it: {path / verb}",
        )
    return path


def _check_name(path: Path, verb: str) -> None:
    if path.name in ("", ".."):
        raise UsageError(
            f"{str(path)!r} is no name of its own for an output.",
            cause="it is the folder that you are in, or one above it",
            next=f"name what will be made: {path / verb}",
        )


def _check_place(path: Path) -> None:
    """Refuses an output whose folder cannot be made or written."""
    from ..bundle.files import require_place

    above = [*path.absolute().parents]
    require_place(next((place for place in above if os.path.lexists(place)), above[-1]), path)


def _check_weights(a: argparse.Namespace, words: Sequence[str]) -> None:
    """Refuses to replace weights that were trained or imported.

    What is no checkpoint, the verb itself refuses.
    """
    if a.out is None or getattr(a, "resume", False) or getattr(a, "dry_run", False):
        return
    folder = Path(a.out)
    state = folder.with_name(f"{folder.name}.state.pt")  # of a training that was interrupted
    if a.verb == "train" and state.is_file():
        raise BadInputError(
            f"A training into {folder} was interrupted, and its state is in {state}; it was left alone.",
            cause="--resume, which goes on with it, was left out",
            next=_allowing(words, "--resume"),
        )
    found = _json(folder / "config.json")
    extra = found.get("extra")
    recipe = extra.get("recipe") if isinstance(extra, dict) else None
    if found.get("format") != "logoformer-checkpoint" or (isinstance(recipe, str) and recipe.startswith("init:")):
        return
    imported = extra.get("imported") if isinstance(extra, dict) else None
    if a.verb == "import" and isinstance(imported, dict) and imported.get("file") == Path(a.file).name:
        return  # made of the same file, and made of it again
    origin = "trained" if imported is None else "imported"
    raise BadInputError(
        f"{folder} holds weights that were {origin}; they were left alone.",
        cause="a checkpoint of another day with the same name",
        next=_allowing(words),
    )


def _check_log(a: argparse.Namespace, words: Sequence[str]) -> None:
    """Refuses to replace the log of another training."""
    if a.verb != "train" or a.out is None or a.resume:
        return
    log = Path(a.out).with_name(f"{Path(a.out).name}.log.jsonl")
    empty = (
        log.is_file() and not log.is_symlink() and not log.stat().st_size
    )  # of a training that another process began
    if os.path.lexists(log) and not empty:
        raise BadInputError(
            f"{log} exists, where the log of this training would be written; it was left alone.",
            cause="the log of another training, or a file of yours with that name",
            next="name another folder with -o" if log.is_symlink() or not log.is_file() else _allowing(words),
        )


def _allowing(words: Sequence[str], option: str = "--overwrite") -> str:
    """The same command with an option that allows it."""
    if any("@" in word for word in words):  # the password of a camera, perhaps
        return f"name another place with -o, or add {option}"
    again = ["logoformer", words[0], option, *words[1:]]
    return command(*again)


# -------------------------------------------------------------------------------------------------------------- outputs
def _out(a: argparse.Namespace) -> list[list[Path]]:
    return [[Path(a.out)]] if a.out else []


def _beside_source(a: argparse.Namespace) -> list[list[Path]]:
    """The video that is written; not a name that the verb refuses in any case."""
    sources = getattr(a, "sources", None) or [a.source]
    for (path,) in _out(a):
        if path.suffix.lower() != ".mp4":
            return []
        with contextlib.suppress(OSError, ValueError):
            if any(path.samefile(source) for source in sources):
                return []
    return _out(a)


def _synthetic(a: argparse.Namespace) -> list[list[Path]]:
    """A video and its labels; a folder of clips is refused by the verb where it is not empty."""
    _check_name(Path(a.out), a.verb)
    return [[Path(a.out), Path(a.out).with_suffix(".json")]] if a.kind in ("video", "scene") else []


def _report(a: argparse.Namespace) -> list[list[Path]]:
    if not a.out:
        return []
    report = Path(a.out) if Path(a.out).suffix == ".json" else Path(a.out) / "report.json"
    return [[report, report.with_suffix(".html")]]


def _evaluation(a: argparse.Namespace) -> list[list[Path]]:
    names = ("result.json", "confusion.svg", *(("features.svg",) if a.tsne else ()))
    return [[Path(a.out) / name for name in names]] if a.out else []


def _picture(a: argparse.Namespace) -> list[list[Path]]:
    return _out(a) if a.complexity else []


def _map(a: argparse.Namespace) -> list[list[Path]]:
    return [[Path(a.suggest_map)]] if a.suggest_map else []


def _layers(a: argparse.Namespace) -> list[list[Path]]:
    """Of each precision; which of them the bundle has, the verb sees."""
    if a.layers is None:
        return []
    return [_table(Path(a.layers) / f"layers.{name}") for name in choices.PRECISIONS if name != "fp32"]


def _sensitivity(a: argparse.Namespace) -> list[list[Path]]:
    return [_table(Path(a.sensitivity) / "sensitivity")] if a.sensitivity is not None else []


def _table(place: Path) -> list[Path]:
    """A table and its picture."""
    return [place.with_name(f"{place.name}.json"), place.with_name(f"{place.name}.svg")]


# -------------------------------------------------------------------------------------------------------- older outputs
def _marked(path: Path) -> bool:
    from ..media.marks import has_mark

    return has_mark(path)


def _is_report(path: Path) -> bool:
    return _json(path).get("format") == "logoformer-bench"


def _is_evaluation(path: Path) -> bool:
    return {"call", "parts", "machine", "metrics", "clips"} <= _json(path).keys()


def _is_layers(path: Path) -> bool:
    return {"graph", "precision", "layers", "first", "worst", "threshold"} <= _json(path).keys()


def _is_sensitivity(path: Path) -> bool:
    return {"groups", "steps", "clips"} <= _json(path).keys()


def _is_picture(path: Path) -> bool:
    with path.open("rb") as stream:
        found = stream.read(MAX_JSON_BYTES)
    return found.startswith(b"<svg") and b">Six attention schemes in " in found


def _is_kit(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "kit.json" in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def _never(path: Path) -> bool:
    return False


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; an empty one where the file is none."""
    from ..bundle.files import parse_json, read_file

    try:
        found = parse_json(read_file(path, MAX_JSON_BYTES), str(path), max_bytes=MAX_JSON_BYTES)
    except LogoformerError:
        return {}
    return found if isinstance(found, dict) else {}


_WEIGHTS = frozenset({"init", "import", "train"})
_INSIDE = frozenset({"triton", "demo"})  # write into the folder that is named
_FILES: dict[str, tuple[Paths, Ours, str]] = {
    "import": (_map, _never, "may have been corrected by hand"),
    "synth": (_synthetic, _marked, "is no synthetic video of logoformer"),
    "run": (_beside_source, _marked, "is no overlay video of logoformer"),
    "watch": (_beside_source, _marked, "is no overlay video of logoformer"),
    "bench": (_report, _is_report, "is no report of logoformer"),
    "fieldtest": (_out, _is_kit, "is no field kit"),
    "evaluate": (_evaluation, _is_evaluation, "is no evaluation of logoformer"),
    "quantize": (_sensitivity, _is_sensitivity, "is no sensitivity table of logoformer"),
    "verify": (_layers, _is_layers, "is no comparison of layers by logoformer"),
    "inspect": (_picture, _is_picture, "is no picture of logoformer"),
}

KNOWN = TELL_THEMSELVES | _WEIGHTS | _FILES.keys()
