"""The weights among a file's dictionaries, and their names without wrappers and prefixes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import BadInputError
from ..foreign.inert import Inert, StoredTensor
from ..foreign.prefixes import MOST_PREFIXES, NO_WEIGHTS, WRAPPERS, shared_prefix

MOST_LEVELS = 4  # of dictionaries around the weights
MOST_MODULES = 100_000
_HALVES = ("encoder", "decoder")  # of a pre-training: what is in them is no classifier, whole or not
_TRAINING_STATE = ("optim", "scaler", "scheduler", "lr_sched", "amp", "loss_scaler", "grad")  # how keys begin


@dataclass(frozen=True)
class FoundWeights:
    """The weights of a file.

    Attributes:
        where: the keys that lead to them, with dots; '' where the file is nothing else.
        prefix: that their names carried.
        tensors: by name, without the prefix, in the file's order.
        outside: names beside them that do not carry the prefix.
        others: further dictionaries of weights in the file, by the keys that lead there.
    """

    where: str
    prefix: str
    tensors: Mapping[str, StoredTensor]
    outside: tuple[str, ...]
    others: tuple[str, ...]


def find_weights(content: Any, shown: str, named: str | None, choose: Callable[[str], str]) -> FoundWeights:
    """The weights of a file's content.

    Args:
        content: of `ForeignFile`.
        shown: the file, for messages.
        named: keys that lead to the weights, with dots; None takes them where trainings usually put them.
        choose: the command that takes the weights at other keys.

    Raises:
        BadInputError: there are none and what is there instead, or they lie elsewhere and have to be named.
    """
    places = dict(_places(content))
    weights = {where: found for where, found in places.items() if not _is_training_state(where)}
    if named is not None:
        if named not in places:
            raise BadInputError(
                f"{shown} holds no weights at {named!r}.",
                cause=f"weights are at {_listed(tuple(weights)) or 'no place'}",
                next=choose(next(iter(weights))) if weights else "",
            )
        return _found(named, places[named], tuple(where for where in weights if where != named))
    usual = [where for where in weights if all(key in WRAPPERS for key in where.split(".") if where)]
    if usual:
        where = max(usual, key=lambda place: (len(weights[place]), -len(place)))
        many = len(weights[where]) / 2
        others = tuple(other for other, found in weights.items() if other != where and len(found) >= many)
        return _found(where, weights[where], others)
    if weights:
        averages = any(word in where.lower() for where in weights for word in ("ema", "average", "swa", "shadow"))
        raise BadInputError(
            f"{shown} holds its weights at {_listed(tuple(weights))}, where no training of this field puts those that "
            "it evaluates.",
            cause="an average of weights (EMA): its scores may differ from the published ones"
            if averages
            else "a checkpoint of another training program",
            next=choose(next(iter(weights))),
        )
    raise _none(content, shown, tuple(places))


def _found(where: str, tensors: Mapping[str, StoredTensor], others: tuple[str, ...]) -> FoundWeights:
    kept = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in NO_WEIGHTS}
    prefix = shared_prefix(kept)
    inside = {name[len(prefix) :]: tensor for name, tensor in kept.items() if name.startswith(prefix)}
    outside = tuple(name for name in tensors if name not in kept or not name.startswith(prefix))
    return FoundWeights(where, prefix, inside, outside, others)


def without_wrapper(found: FoundWeights, fits: Callable[[Mapping[str, tuple[int, ...]]], bool]) -> FoundWeights:
    """The weights under a wrapper's attribute of any name, such as `net.` of a LightningModule.

    Args:
        found: without the prefixes that are known.
        fits: whether names, with their shapes, are those of a network that can be imported.
    """
    for _ in range(MOST_PREFIXES):
        (first, count), *_ = Counter(name.partition(".")[0] for name in found.tensors).most_common(1) or [("", 0)]
        prefix = f"{first}."
        inside = {name[len(prefix) :]: tensor for name, tensor in found.tensors.items() if name.startswith(prefix)}
        halves = first in _HALVES or 2 * count <= len(found.tensors)
        if halves or not fits({name: tensor.shape for name, tensor in inside.items()}):
            break
        left = tuple(found.prefix + name for name in found.tensors if not name.startswith(prefix))
        found = replace(found, prefix=found.prefix + prefix, tensors=inside, outside=(*found.outside, *left))
    return found


def _places(content: Any) -> Iterator[tuple[str, dict[str, StoredTensor]]]:
    """(keys, tensors) of every dictionary of named tensors, and of every whole module."""
    waiting: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()
    for where, value in waiting:
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Inert) and "_modules" in value.attributes():
            yield where, _module_state(value)
            continue
        if not isinstance(value, dict):
            continue
        tensors = {key: item for key, item in value.items() if isinstance(key, str) and isinstance(item, StoredTensor)}
        if tensors:
            yield where, tensors
        if where.count(".") + 1 < MOST_LEVELS:
            waiting += [
                (f"{where}.{key}" if where else key, item)
                for key, item in value.items()
                if isinstance(key, str) and isinstance(item, (dict, Inert))
            ]


def _module_state(module: Inert) -> dict[str, StoredTensor]:
    """The state dict of a module that was pickled whole: parameters and buffers, by their paths."""
    found: dict[str, StoredTensor] = {}
    waiting = [("", module)]
    seen: set[int] = set()
    for path, one in waiting:
        if id(one) in seen:
            continue
        seen.add(id(one))
        parts = one.attributes()
        skipped = parts.get("_non_persistent_buffers_set")
        for kind in ("_parameters", "_buffers"):
            for name, value in _items(parts.get(kind)):
                if isinstance(value, StoredTensor) and not (isinstance(skipped, (set, frozenset)) and name in skipped):
                    found[path + name] = value
        for name, value in _items(parts.get("_modules")):
            if isinstance(value, Inert) and len(waiting) < MOST_MODULES:
                waiting.append((f"{path}{name}.", value))
    return found


def _items(value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return []
    return [(key, item) for key, item in value.items() if isinstance(key, str)]


def _is_training_state(where: str) -> bool:
    return any(part.lower().startswith(_TRAINING_STATE) for part in where.split("."))


def _none(content: Any, shown: str, training: tuple[str, ...]) -> BadInputError:
    keys = [key for key in content if isinstance(key, str)] if isinstance(content, dict) else []
    optimizer = {"state", "param_groups"} <= set(keys)
    if training or optimizer or any(_is_training_state(key) for key in keys):
        return BadInputError(
            f"{shown} holds the state of a training and no weights: {_listed(tuple(keys[:6]))}.",
            cause="the optimizer's file was taken; the weights are in another file of the same training",
            next="give the file of the weights, such as checkpoint-best.pth or model_best.pth",
        )
    if isinstance(content, list) or (isinstance(content, dict) and any(isinstance(v, list) for v in content.values())):
        return BadInputError(
            f"{shown} holds lists and no tensors by name.",
            cause="an average of weights without names (shadow_params of torch_ema), or results",
            next="give the checkpoint of the model itself: names say which tensor is which",
        )
    what = "one tensor without a name" if isinstance(content, StoredTensor) else f"a {_kind(content)}"
    return BadInputError(
        f"{shown} holds no tensors by name{f': {_listed(tuple(keys[:6]))}' if keys else f', but {what}'}.",
        cause="results, features or a configuration that torch.save wrote",
        next="give the file of the weights, such as checkpoint-best.pth or model_best.pth",
    )


def _kind(content: Any) -> str:
    return str(content.name) if isinstance(content, Inert) else type(content).__name__


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(repr(name[:60]) for name in names)
