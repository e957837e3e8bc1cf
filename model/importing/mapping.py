"""Maps of names for checkpoints of other people's code: read from JSON, or suggested.

`{"preset": "base", "map": {"encoder.qkv.weight": ["q", "k", "v"], "aux.weight": null, ...}}`: each name of the file
becomes one of ours, several (packed Q, K and V are cut along their first axis), or nothing.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...bundle.files import parse_json, read_file
from ...bundle.kinds import refuse_other_kinds
from ...errors import BadInputError, advising, one_of
from ..foreign.inert import StoredTensor
from ..networks.family import ForeignTensor
from .plan import COUNTER

MAX_BYTES = 4 << 20
MOST_COMPARED = 200  # characters of a name
_WRITE = "write one with --suggest-map, and correct that"
SURE = 0.75  # likeness of two names from which a suggestion is not marked


@dataclass(frozen=True)
class NameMap:
    """What a map file says.

    Attributes:
        names: theirs -> ours; an empty tuple leaves a tensor out on purpose.
        preset: of the network, where the file names one.
    """

    names: Mapping[str, tuple[str, ...]]
    preset: str | None = None


def read_map(path: str | os.PathLike[str]) -> NameMap:
    """Reads a map.

    Raises:
        BadInputError: it is no map.
        RefusedError: it is no JSON that can be trusted.
    """
    shown = os.fspath(path)
    refuse_other_kinds(path, "map of names", _WRITE)
    with advising(_WRITE):
        data = parse_json(read_file(path, MAX_BYTES), shown)
    names = data.get("map") if isinstance(data, dict) else None
    if not isinstance(names, dict):
        raise BadInputError(
            f'{shown} is no map of names: {{"preset": ..., "map": {{theirs: ours, ...}}}} is expected.',
            next=_WRITE,
        )
    found: dict[str, tuple[str, ...]] = {}
    for theirs, ours in names.items():
        values = [] if ours is None else [ours] if isinstance(ours, str) else ours
        if not isinstance(values, list) or not all(isinstance(name, str) for name in values):
            raise BadInputError(
                f"{shown} maps {theirs[:80]!r} to {ours!r:.80}; a name, a list of names or null is expected.",
                next="correct that line",
            )
        found[theirs] = tuple(values)
    preset = data.get("preset")
    return NameMap(found, preset if isinstance(preset, str) else None)


def mapped(names: NameMap, tensors: Mapping[str, StoredTensor], ours: Mapping[str, Tensor], shown: str
           ) -> tuple[dict[str, ForeignTensor], dict[str, StoredTensor]]:  # fmt: skip
    """What each tensor of the file becomes, and the tensors that are not left out on purpose.

    Args:
        names: the map.
        tensors: of the file.
        ours: the network's state dict, on the meta device.
        shown: the file, for messages.

    Raises:
        BadInputError: the map names tensors that there are not, names one of ours twice or not at all, or shapes
            do not fit.
    """
    absent = [name for name in names.names if name not in tensors]
    targets = [name for values in names.names.values() for name in values]
    unknown = sorted(set(targets) - ours.keys())
    twice = sorted({name for name in targets if targets.count(name) > 1})
    missing = sorted(name for name in ours.keys() - set(targets) if not name.endswith(COUNTER))
    shapes = [
        f"{theirs}: {list(tensors[theirs].shape)} in the file; {[list(ours[name].shape) for name in values]} wanted"
        for theirs, values in names.names.items()
        if values and theirs in tensors and all(name in ours for name in values)
        and not fits(tensors[theirs].shape, [tuple(ours[name].shape) for name in values])
    ]  # fmt: skip
    if absent or unknown or twice or missing or shapes:
        raise BadInputError(
            f"The map does not fit: {len(absent)} of its names are not in {shown}, {len(unknown)} are none of ours, "
            f"{len(twice)} of ours come twice, {len(missing)} of ours not at all, {len(shapes)} have another shape.",
            cause="a map for another checkpoint or another preset",
            log=[
                *(f"not in the file: {name}" for name in absent[:3]),
                *(f"none of ours: {name}" for name in unknown[:3]),
                *(f"twice: {name}" for name in twice[:3]),
                *(f"not mapped to: {name}" for name in missing[:3]),
                *(f"other shape: {line}" for line in shapes[:3]),
            ],
        )
    wanted = {theirs: ForeignTensor(tensors[theirs].shape, values) for theirs, values in names.names.items() if values}
    wanted |= {name: ForeignTensor((), (name,)) for name in ours if name.endswith(COUNTER) and name not in targets}
    kept = {name: tensor for name, tensor in tensors.items() if names.names.get(name, (name,))}
    return wanted, kept


def fits(theirs: tuple[int, ...], ours: Sequence[tuple[int, ...]]) -> bool:
    """Whether a tensor becomes some of ours: equal parts, axes of length 1 apart."""
    if any(shape != ours[0] for shape in ours[1:]):
        return False
    if len(ours) > 1 and (not theirs or theirs[0] % len(ours)):
        return False
    part = theirs if len(ours) == 1 else (theirs[0] // len(ours), *theirs[1:])
    return _squeezed(part) == _squeezed(ours[0])


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


# ---------------------------------------------------------------------------------------------------------- suggestion
@dataclass(frozen=True)
class MapSuggestion:
    """A map to look over.

    Attributes:
        names: theirs -> ours.
        likeness: of the names, 0..1, for each of theirs.
        left: of theirs, for which no place was found.
        missing: of ours, for which nothing was found.
    """

    names: Mapping[str, tuple[str, ...]]
    likeness: Mapping[str, float]
    left: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def unsure(self) -> tuple[str, ...]:
        """Of theirs, those whose names are not like ours."""
        return tuple(name for name, value in self.likeness.items() if value < SURE)

    def to_json(self, preset: str) -> dict[str, Any]:
        """The content of a map file; `look_over` is for people and not read."""
        names = {theirs: list(ours) if len(ours) > 1 else ours[0] for theirs, ours in self.names.items()}
        look_over = {"unsure": list(self.unsure), "without a place": list(self.left), "missing": list(self.missing)}
        return {"preset": preset, "map": names, "look_over": look_over}


def suggest_map(tensors: Mapping[str, StoredTensor], ours: Mapping[str, Tensor]) -> MapSuggestion:
    """Pairs tensors by shape, likeness of names and order; the best pair goes first.

    Args:
        tensors: of the file, in its order.
        ours: the network's state dict.
    """
    groups = _groups(ours)
    places = {name: index / max(1, len(tensors) - 1) for index, name in enumerate(tensors)}
    pairs = []
    for index, group in enumerate(groups):
        where = index / max(1, len(groups) - 1)
        for theirs, tensor in tensors.items():
            if not fits(tensor.shape, [tuple(ours[name].shape) for name in group]):
                continue
            like = _likeness(theirs, group)
            pairs.append((like - 0.3 * abs(places[theirs] - where), like, theirs, group))
    names: dict[str, tuple[str, ...]] = {}
    likeness: dict[str, float] = {}
    taken: set[str] = set()
    for _, like, theirs, group in sorted(pairs, key=lambda pair: -pair[0]):
        if theirs not in names and not taken & set(group):
            names[theirs], likeness[theirs] = group, round(like, 3)
            taken |= set(group)
    unsure = [theirs for theirs in tensors if likeness.get(theirs, 1.0) < SURE]
    _untangle(names, {theirs: tensors[theirs].shape for theirs in unsure}, {g: n for n, g in enumerate(groups)})
    ordered = {theirs: names[theirs] for theirs in tensors if theirs in names}
    missing = tuple(name for name in ours if name not in taken and not name.endswith(COUNTER))
    return MapSuggestion(ordered, likeness, tuple(name for name in tensors if name not in names), missing)


def _untangle(
    names: dict[str, tuple[str, ...]],
    unsure: Mapping[str, tuple[int, ...]],
    places: Mapping[tuple[str, ...], int],
) -> None:
    """Puts pairs whose names tell nothing into the order of both sides.

    Only within one block, kind and shape.

    Args:
        names: theirs -> ours; changed.
        unsure: shapes of theirs, in the order of the file.
        places: of our groups.
    """
    alike: dict[tuple[object, ...], list[str]] = {}
    for name, shape in unsure.items():
        first = names[name][0]
        block = tuple(re.findall(r"(?<=\.)\d+(?=\.)", first))
        alike.setdefault((block, first.rpartition(".")[2], shape, len(names[name])), []).append(name)
    for some in alike.values():
        ordered = sorted((names[name] for name in some), key=places.__getitem__)
        names.update(zip(some, ordered, strict=True))


def _groups(ours: Mapping[str, Tensor]) -> list[tuple[str, ...]]:
    """Each of ours alone, and the Q, K and V (or K and V) of one attention together."""
    found: list[tuple[str, ...]] = []
    for name in ours:
        found.append((name,))
        match = re.fullmatch(r"(.*\.)([qk])\.(weight|bias)", name)
        if match:
            parts = tuple(f"{match[1]}{part}.{match[3]}" for part in ("qkv" if match[2] == "q" else "kv"))
            if all(part in ours for part in parts):
                found.append(parts)
    return found


_SAME = {
    "attn": "attention", "mlp": "ffn", "fn": "", "net": "", "layers": "blocks", "layer": "layer", "ln": "norm",
    "proj": "out", "to_out": "out", "to_qkv": "qkv", "in_proj": "qkv", "in_proj_weight": "qkv", "linear1": "fc1",
    "linear2": "fc2", "classifier": "head", "fc": "head", "backbone": "trunk", "resnet": "trunk", "encoder": "blocks",
    "temporal": "temporal", "spatial": "spatial", "cls_token": "cls", "pos_embed": "pos", "pos_embedding": "pos",
}  # fmt: skip


def _likeness(theirs: str, group: tuple[str, ...]) -> float:
    """0..1: how alike two names are; numbers that differ (another block) count heavily."""
    ours = group[0] if len(group) == 1 else re.sub(r"\.[qk]\.(weight|bias)$", r".qkv.\1", group[0])
    if len(group) == 2:
        ours = ours.replace(".qkv.", ".kv.")
    theirs = theirs[:MOST_COMPARED]  # the comparison is quadratic
    words, own = _words(theirs), _words(ours)
    ratio = difflib.SequenceMatcher(None, words, own, autojunk=False).ratio()
    text = difflib.SequenceMatcher(None, ".".join(words), ".".join(own), autojunk=False).ratio()
    numbers = re.findall(r"\d+", theirs)
    same = all(number in numbers for number in re.findall(r"(?<=\.)\d+(?=\.)", ours))
    return (ratio + text) / 2 - (0.0 if same else 0.3)


def _words(name: str) -> list[str]:
    return [word for part in re.split(r"\.", name.lower()) if (word := _SAME.get(part, part))]


def refuse_families(name: str) -> BadInputError:
    """The error for a map with a family whose files need none."""
    return BadInputError(
        f"Files of {name} need no map; a map is for LOGO-Former checkpoints of other people's code.",
        next=f"leave --map out, or name one of the families {one_of(['logoformer'])}",
    )
