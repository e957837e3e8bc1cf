"""Why weights do not fit a network, from names alone, and the command that mends it."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from ...errors import command
from .paths import resolved_link
from .prefixes import shared_prefix, who_puts

COUNTER = "num_batches_tracked"


def explain_misfit(
    shown: Path, names: Collection[str], missing: Sequence[str], unknown: Collection[str], other_shapes: int
) -> tuple[str, str]:
    """Cause and next step for weights that do not fit.

    Args:
        shown: the checkpoint.
        names: of its weights.
        missing: that the network needs.
        unknown: that it has no place for.
        other_shapes: how many have another shape.
    """
    prefix = shared_prefix(names)
    bare = {name[len(prefix) :] for name in names if name.startswith(prefix)}
    if prefix and sum(name in bare for name in missing) > len(missing) / 2:
        return f"the names carry the prefix {prefix!r}, which {who_puts(prefix)} puts there", import_command(shown)
    if missing and not unknown and not other_shapes and all(name.endswith(COUNTER) for name in missing):
        return (
            "BatchNorm's counters were left out, as by torch before 0.4.1 or by a converter; no answer needs them",
            import_command(shown),
        )
    return "config.json and the weights come from different trainings", ""


def import_command(checkpoint: str | os.PathLike[str]) -> str:
    """The command that makes a checkpoint of ours out of a file or folder."""
    given = Path(checkpoint)
    file = given / "model.safetensors" if given.is_dir() else given
    name = given.name.removesuffix(".tar")
    return command("logoformer", "import", file, "-o", given.with_name(f"{Path(name).stem}-imported"))


def advise_path(path: str | os.PathLike[str]) -> str:
    """What to do about a checkpoint's path that is no plain file or folder; '' where it is one."""
    given = Path(path)
    if given.is_dir():
        links = [item.name for item in given.iterdir() if item.is_symlink()]
        return command("cp", "-rL", given, given.with_name(f"{given.name}-copied")) if links else ""
    if given.is_symlink():
        target = resolved_link(given)
        return f"name the file itself: {command(target)}" if target else "download the file again"
    return "" if given.is_file() else "write what comes out of it to a file, and give that"
