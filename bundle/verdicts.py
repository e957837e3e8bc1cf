"""Verdicts by precision and backend, and which precisions may run where.

The manifest's `precisions` hold the verdict of the rounding reference, which computes as the graph says. `verification`
holds what backends answered themselves: `rows` on the golden clips, `accuracy` on held-out clips. A backend that was
never judged follows the reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .sealed import typed

FIRST_BACKEND = "onnxruntime"  # the one backend that judged bundles of 0.1, whose rows name none
FAILED_ROW = "failed"
ACCEPTS = "accept"  # verdicts that begin so may run


@dataclass(frozen=True)
class BackendVerdicts:
    """Verdicts of backends on their own answers.

    Attributes:
        failed: (backend, precision) whose golden answers were wrong.
        judged: verdict on held-out clips by (backend, precision).
    """

    failed: frozenset[tuple[str, str]] = frozenset()
    judged: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def allows(self, backend: str, precision: str, otherwise: bool) -> bool:
        """Whether a precision may run on a backend.

        Args:
            backend: as in `engine.sessions.backends.BACKENDS`.
            precision: by name, or 'mixed'.
            otherwise: what the reference's verdict says, for a backend that gave none.
        """
        own = self.judged.get((backend, precision))
        return (backend, precision) not in self.failed and (otherwise if own is None else own.startswith(ACCEPTS))


def read_verdicts(noted: Mapping[str, Any]) -> BackendVerdicts:
    """Read `verification` of a manifest.

    Raises:
        KeyError, TypeError, ValueError: a field is missing or of another type.
    """
    rows = [(_key(row), typed(row["verdict"], str)) for row in typed(noted.get("rows", []), list)]
    judged = {_key(row): typed(row["verdict"], str) for row in typed(noted.get("accuracy", []), list)}
    return BackendVerdicts(frozenset(key for key, verdict in rows if verdict == FAILED_ROW), judged)


def with_verdicts(
    manifest: Mapping[str, Any],
    machine: str,
    *,
    rows: Iterable[Mapping[str, Any]] = (),
    accuracy: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A manifest with new verdicts; what other backends said before stays.

    Args:
        manifest: the one before.
        machine: where they were found; written into each.
        rows: on the golden clips; in place of all rows of the same backends.
        accuracy: on held-out clips; in place of those of the same backend and precision.
    """
    noted = typed(manifest.get("verification", {}), dict)
    added, judged = [{**row, "machine": machine} for row in rows], [{**row, "machine": machine} for row in accuracy]
    backends, keys = {row["backend"] for row in added}, {_key(row) for row in judged}
    before = typed(noted.get("machine", ""), str)
    kept = [{"machine": before, **row} for row in noted.get("rows", []) if _key(row)[0] not in backends]
    others = [row for row in noted.get("accuracy", []) if _key(row) not in keys]
    found = {**noted, "machine": machine, "rows": [*kept, *added], "accuracy": [*others, *judged]}
    return {**manifest, "verification": found}


def without_verdicts(manifest: Mapping[str, Any], *precisions: str) -> dict[str, Any]:
    """A manifest without the verdicts of backends on graphs that are replaced."""
    noted = typed(manifest.get("verification", {}), dict)
    kept = {
        name: [row for row in noted[name] if row["precision"] not in precisions]
        for name in ("rows", "accuracy")
        if name in noted
    }
    return {**manifest, "verification": {**noted, **kept}} if kept else dict(manifest)


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return typed(row.get("backend", FIRST_BACKEND), str), typed(row["precision"], str)
