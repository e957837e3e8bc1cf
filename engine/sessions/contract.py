"""The session contract: one compiled graph with its buffers.

A backend is a function that turns checked ONNX or engine bytes into a `Session`. Buffers are allocated once, when the
session opens, and keep their addresses; a call writes into `input(...)`, calls `run()`, and reads `output(...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...bundle import GraphEntry, TensorSpec
from ...errors import RefusedError

Array = npt.NDArray[Any]


class Session(Protocol):
    """What the runtime needs of a backend; only the thread that opened it may use it.

    `close` alone may come from another thread, and only while no call runs.
    """

    @property
    def inputs(self) -> Mapping[str, TensorSpec]: ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]: ...

    def input(self, name: str) -> Array:
        """The host-side buffer of an input; write into it, its address never changes.

        What `take` fills may live on the device alone from the first `take` on; its host buffer is not read any more.
        """

    def output(self, name: str) -> Array:
        """The host-side buffer of an output; valid after `run`, overwritten by the next one."""

    def run(self) -> None:
        """Computes the outputs from the inputs; returns when they can be read."""

    def take(self, source: Session, output: str, name: str, row: int, index: int = 0) -> None:
        """Copy another session's output into rows of an input, on the device if both are there.

        Ordered after the source's last `run`, and before whatever runs next in either session.

        Args:
            source: of the same backend.
            output: `[B, n, d]` there.
            name: `[rows, d]` here.
            row: where the n rows begin.
            index: which of the B to copy.
        """

    def close(self) -> None:
        """Frees everything. A second call does nothing."""


@dataclass(frozen=True)
class Backend:
    """A backend that was chosen for one bundle.

    Attributes:
        name: shown to people, such as 'onnxruntime 1.24.4 CPU'.
        precision: of every graph that it opens.
        open_session: turns an index entry into a session.
        frame_batches: batches of the `frame` graph that it can open.
        passed_over: with 'auto', why each backend before this one was not taken.
    """

    name: str
    precision: str
    open_session: Callable[[GraphEntry], Session]
    frame_batches: tuple[int, ...] = (1,)
    passed_over: tuple[str, ...] = ()


def check_tensors(shown: str, promised: tuple[TensorSpec, ...], found: tuple[TensorSpec, ...]) -> None:
    """Refuse a graph or engine whose tensors differ from those that the index promises.

    Raises:
        RefusedError: names both sides.
    """
    if set(promised) != set(found):
        raise RefusedError(
            f"{shown} has tensors {[str(spec) for spec in found]}, the index promises {[str(s) for s in promised]}.",
            cause="a file of another model under this name",
        )


def allocate(specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """Zeroed host buffers for tensors."""
    return {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
