"""Which backend runs a bundle, and in which precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..bundle import Bundle, GraphEntry
from ..errors import UsageError, VerificationError, advising, command, one_of
from .session import Session

BACKENDS = ("auto", "onnxruntime")
# Cheapest first. ONNX Runtime's CPU kernels compute FP16 by way of FP32: slower, and no proof of anything.
_PREFERENCE = {"onnxruntime": ("fp32", "fp16", "int8")}


@dataclass(frozen=True)
class Backend:
    """A backend that was chosen for one bundle.

    Attributes:
        name: shown to people, such as 'onnxruntime 1.24.4 CPU'.
        precision: of every graph that it opens.
        open_session: turns an index entry into a session.
        frame_batches: batches of the `frame` graph that it can open.
    """

    name: str
    precision: str
    open_session: Callable[[GraphEntry], Session]
    frame_batches: tuple[int, ...] = (1,)


def open_backend(bundle: Bundle, backend: str, precision: str, options: Mapping[str, Any]) -> Backend:
    """Chooses.

    Args:
        bundle: opened for reading.
        backend: one of `BACKENDS`.
        precision: 'verdict', or a precision by name.
        options: `threads`: CPU threads of one session, or None; `device`: which GPU; `engines_dir`: where built
            engines live, or None; `cuda`: which CUDA layer.

    Raises:
        UsageError: an unknown backend, or the bundle has no such precision.
        VerificationError: no precision was accepted.
        MachineError: the backend is not installed.
    """
    if backend not in BACKENDS:
        raise UsageError(f"Unknown backend {backend!r}.", next=f"choose from {one_of(BACKENDS)}")
    from . import ort

    chosen = choose_precision(bundle, precision, "onnxruntime")

    def open_session(entry: GraphEntry) -> Session:
        with advising(command("logoformer", "export", "CHECKPOINT", "-o", bundle.path)):
            return ort.open_session(bundle.read_graph(entry), entry, options)

    return Backend(ort.runtime_name(), chosen, open_session, bundle.frame_batches(chosen))


def choose_precision(bundle: Bundle, wanted: str, backend: str) -> str:
    """Follows the verdicts of the bundle, or the caller.

    Args:
        bundle: opened for reading.
        wanted: 'verdict', or a precision by name.
        backend: 'onnxruntime'.

    Raises:
        VerificationError: no precision was accepted.
        UsageError: the bundle has no such precision.
    """
    if wanted != "verdict":
        if wanted not in bundle.precisions:
            raise UsageError(
                f"{bundle.path} has no precision {wanted!r}.", next=f"choose from {one_of(bundle.precisions)}"
            )
        return wanted
    for precision in _PREFERENCE[backend]:
        if precision not in bundle.failed and str(bundle.precisions.get(precision, {}).get("verdict", "")).startswith(
            "accept"
        ):
            return precision
    reasons = [f"{name}: {entry.get('reason', 'no verdict')}" for name, entry in bundle.precisions.items()]
    reasons += [f"{name}: failed logoformer verify" for name in sorted(bundle.failed)]
    raise VerificationError(
        f"No precision of {bundle.path} was accepted.",
        cause="; ".join(reasons),
        next=command("logoformer", "export", "CHECKPOINT", "-o", bundle.path),
    )
