"""Prefixes and wrappers that training programs put around the names of weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# {prefix: who puts it there}
PREFIXES: Mapping[str, str] = {
    "module.": "DataParallel or DistributedDataParallel",
    "_orig_mod.": "torch.compile",
    "model.": "a wrapper such as Lightning's",
}
WRAPPERS = ("state_dict", "model", "module", "model_state_dict")
MOST_PREFIXES = 4
# Counters and profilers' marks that are saved beside weights and are none.
NO_WEIGHTS = ("n_averaged", "total_ops", "total_params")


def shared_prefix(names: Iterable[str]) -> str:
    """The prefix, made of known ones, that most names begin with; '' where there is none.

    >>> shared_prefix(["module.model.fc.weight", "module.model.fc.bias"])
    'module.model.'
    """
    kept = [name for name in names if name.rpartition(".")[2] not in NO_WEIGHTS]
    found = ""
    for _ in range(MOST_PREFIXES):
        longer = next(
            (
                found + prefix
                for prefix in PREFIXES
                if 2 * sum(name.startswith(found + prefix) for name in kept) > len(kept)
            ),
            None,
        )
        if longer is None:
            return found
        found = longer
    return found


def who_puts(prefix: str) -> str:
    """Who puts a prefix before names, for a message."""
    who = [who for known, who in PREFIXES.items() if known in prefix]
    for known in PREFIXES:
        prefix = prefix.replace(known, "")
    return " and ".join([*who, "a wrapper of the training program"] if prefix else who)
