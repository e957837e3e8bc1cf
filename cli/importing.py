"""The verb import: checkpoints of other people."""

from __future__ import annotations

import argparse

from ..errors import UsageError
from . import choices
from .options import AddVerb, choice_option, overwrite_option, show
from .terminal import Bar


def _import(a: argparse.Namespace, bar: Bar) -> int:
    from ..workflows.import_ import ImportRequest, import_checkpoint, suggest_import_map

    if a.map and a.suggest_map:
        raise UsageError("--map uses a map and --suggest-map writes one.", next="leave one of the two out")
    sizes = {"heads": a.heads, "region": a.region, "frames": a.frames, "image_size": a.size, "stride": a.stride}
    options = {name: value for name, value in {**sizes, "preset": a.preset, **_labels(a.labels)}.items() if value}
    request = ImportRequest(a.file, a.out, a.family, a.weights, a.map, options)
    if a.suggest_map:
        found = suggest_import_map(request, a.suggest_map)
        text = (
            f"{a.suggest_map}: {len(found.names)} tensors paired, {len(found.unsure)} of them by shape alone; "
            f"{len(found.left)} of the file without a place, {len(found.missing)} of ours without a tensor. "
            "Look it over ('look_over'), then give it with --map"
        )
        return show(a, bar, {"map": a.suggest_map, **found.to_json(a.preset or "base")}, text, a.suggest_map)
    report = import_checkpoint(request, dry_run=a.dry_run, progress=bar)
    ending = f"{report.checkpoint}: written" if report.checkpoint else "nothing was written"
    return show(a, bar, report.to_json(), f"{report.text()}\n{ending}", ending)


def _labels(given: str | None) -> dict[str, object]:
    """`--labels`: a data set's name, or the classes in their order."""
    if given is None:
        return {}
    known = {name.lower(): name for name in choices.DATA_SETS}
    if given.lower() in known:
        return {"data_set": known[given.lower()]}
    labels = tuple(label.strip() for label in given.split(","))
    if len(labels) < 2 or not all(labels):
        raise UsageError(
            f"--labels is {given!r}: the name of a data set, or at least two classes with commas between them.",
            next=f"choose from {', '.join(known)}, or write --labels happy,sad,...",
        )
    return {"labels": labels}


def _region(text: str) -> tuple[int, ...]:
    sizes = tuple(int(size) for size in text.replace("x", ",").split(","))
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(text)
    return sizes


def _size(text: str) -> int:
    size = int(text)
    if not 1 <= size <= 4096:
        raise ValueError(text)
    return size


_region.__name__, _size.__name__ = "three sizes such as 2,5,10", "number from 1 to 4096"  # argparse shows them


def add(verb: AddVerb) -> None:
    """Adds this verb to the parser."""
    p = verb(
        "import", _import, "read a published checkpoint of other people, without running it",
        "logoformer import checkpoint-best.pth -o mae-dfer",
    )  # fmt: skip
    p.add_argument("file", help="a .pth, .pt or .safetensors file; .pth.tar too where torch.save wrote it")
    p.add_argument("-o", "--out", metavar="CHECKPOINT", help="the folder of the checkpoint")
    overwrite_option(p)
    shown = "logoformer, former-dfer or mae-dfer; default: recognised by names and shapes"
    choice_option(p, "--family", choices.FAMILIES, "F", shown)
    p.add_argument("--weights", metavar="KEY", help="which weights of the file, such as model_ema; default: model, ...")
    p.add_argument(
        "--labels", metavar="L", help="dfew, ferv39k, mafw, crema-d or ravdess, or the classes in order: happy,sad,..."
    )
    p.add_argument("--heads", type=_size, metavar="N", help="attention heads, where the file does not say it")
    p.add_argument("--region", type=_region, metavar="T,H,W", help="MAE-DFER's regions in tokens, such as 2,5,10")
    p.add_argument("--frames", type=_size, metavar="N", help="frames of a clip")
    p.add_argument("--size", type=_size, metavar="PX", help="side of the pictures")
    p.add_argument("--stride", type=_size, metavar="N", help="frames between two that are taken")
    shown = "base, wide or tiny, with --map or --suggest-map: the LOGO-Former that the names are mapped to"
    choice_option(p, "--preset", choices.LOGOFORMER_PRESETS, "NAME", shown)
    p.add_argument("--map", metavar="JSON", help="names of the file -> ours, for LOGO-Formers of other people's code")
    p.add_argument("--suggest-map", metavar="JSON", help="write such a map, guessed from shapes and names, and stop")
    p.add_argument("--dry-run", action="store_true", help="compare and report; write nothing")
