"""Backends judged on held-out clips, each by its own answers.

The rounding reference computes what the graph says; a backend's kernels may compute something else (ONNX Runtime 1.24
truncates FP16 where the graph rounds). So each backend that is installed answers the same clips in each precision, and
the same gate holds its answers against the same FP32 ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...bundle import Bundle, Golden
from ...engine import Runtime, load
from ...engine.golden import answers_of_clip, answers_of_pair
from ...engine.sessions.backends import cpu_backends

if TYPE_CHECKING:
    from ...calibration.gate import Evaluate

Runtimes = Mapping[tuple[str, str], Runtime]  # by backend and precision


@contextmanager
def open_backends(bundle: Bundle, precisions: Sequence[str]) -> Iterator[Runtimes]:
    """Opens every backend on the CPU that is installed, in each of some precisions.

    Raises:
        MachineError: no backend is installed.
    """
    with ExitStack() as closing:
        yield {
            (backend, precision): closing.enter_context(load(bundle, backend=backend, precision=precision))
            for backend in cpu_backends()
            for precision in precisions
        }


def clip_answers(runtime: Runtime) -> Evaluate:
    """A runtime's own answers to clips, by its clip graph."""
    return lambda clips: answers_of_clip(runtime.session("clip"), _asked(runtime, clips))


def pair_answers(frame: Runtime, temporal: Runtime) -> Evaluate:
    """Answers to clips by `frame` of one runtime and `temporal` of another, of one backend."""

    def answers(clips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        sessions = frame.session("frame"), temporal.session("temporal")
        return answers_of_pair(*sessions, frame.bundle.stream, _asked(frame, clips))

    return answers


def _asked(runtime: Runtime, clips: npt.NDArray[np.uint8]) -> Golden:
    return Golden(clips, np.zeros((len(clips), len(runtime.labels)), np.float32))
