"""The session contract: one compiled graph with its buffers.

A backend is a function that turns checked ONNX or engine bytes into a `Session`. Buffers are allocated once, when the
session opens, and keep their addresses; a call writes into `input(...)`, calls `run()`, and reads `output(...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...bundle import TensorSpec
from ...errors import RefusedError

Array = npt.NDArray[Any]
RING = "ring"  # the input that the `temporal` graphs of a runtime share


class Session(Protocol):
    """What the runtime needs of a backend; one thread uses it at a time.

    `close` may come from another thread, and only while no call runs. A backend in host memory derives from
    `HostSession` and says `run` and `take` alone.

    Attributes:
        overlaps: whether `start` and `run_into` return before the work is done.
    """

    overlaps: bool

    @property
    def inputs(self) -> Mapping[str, TensorSpec]: ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]: ...

    def input(self, name: str) -> Array:
        """The host-side buffer of an input; ask for it before each write.

        Its address never changes, but for the input of `run_into`, which may alternate between two. What `take` fills
        may live on the device alone from the first `take` on; its host buffer is not read any more.
        """

    def output(self, name: str) -> Array:
        """The host-side buffer of an output; valid after `run`, overwritten by the next one."""

    def run(self) -> None:
        """Computes the outputs from the inputs; returns when they can be read."""

    def start(self) -> None:
        """Begins a run; inputs may not be written before `wait` returns."""

    def wait(self) -> None:
        """Returns when the outputs of the run that was started last can be read."""

    def run_into(self, target: Session, output: str, name: str, rows: Sequence[int], *, followed: bool = False) -> None:
        """Compute, and copy an output into rows of another session's input.

        May return before it is done.

        Ordered before whatever the two sessions do next; `input` waits where a buffer may still be read.

        Args:
            target: of the same backend.
            output: `[B, n, d]` here.
            name: `[rows, d]` there.
            rows: where the n rows of each of the B begin.
            followed: another run of the same runtime follows at once, which spares one note of how far the device is.
        """

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


class HostSession:
    """The rest of `Session` for a backend that computes at once, in host memory."""

    overlaps = False

    def start(self: Session) -> None:
        self.run()

    def wait(self) -> None:
        return

    def run_into(
        self: Session, target: Session, output: str, name: str, rows: Sequence[int], *, followed: bool = False
    ) -> None:
        self.run()
        for index, row in enumerate(rows):
            target.take(self, output, name, row, index)


@dataclass(frozen=True)
class Backend:
    """A backend that was chosen for one bundle.

    Attributes:
        name: shown to people, such as 'onnxruntime 1.24.4 CPU'.
        precision: of every graph that it opens.
        open_session: turns an index entry into a session; given a session of `temporal` too, the new one reads that
            one's ring.
        frame_batches, temporal_batches: batches of these graphs that it can open.
        passed_over: with 'auto', why each backend before this one was not taken.
    """

    name: str
    precision: str
    open_session: Callable[..., Session]
    frame_batches: tuple[int, ...] = (1,)
    temporal_batches: tuple[int, ...] = (1,)
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


def allocate(specs: Mapping[str, TensorSpec], arena: Session | None = None) -> dict[str, Array]:
    """Zeroed host buffers for tensors; the ring is that of `arena`, where one is given."""
    shared = {} if arena is None else {RING: arena.input(RING)}
    return {name: shared[name] if name in shared else np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
