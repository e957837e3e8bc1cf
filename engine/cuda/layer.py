"""The protocol of a CUDA layer: the calls that a session needs, and their errors.

Device memory, streams, events and graphs are plain integers, as they are for the driver, so that TensorRT, which takes
integers, and torch, which gives them, need no translation. A `Cuda` is bound to one device and to its *primary*
context: torch, ONNX Runtime and TensorRT live in that one too. What a session does happens inside `with cuda:`, which
makes that context current for the calling thread and afterwards puts back what was current before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...errors import DeviceLostError, LogoformerError, MachineError

# After one of these the context serves nothing but the same error again, for good (CUDA runtime API, cudaError).
STICKY = {
    "cudaErrorECCUncorrectable": "uncorrectable ECC error encountered",
    "cudaErrorNvlinkUncorrectable": "uncorrectable NVLink error detected during the execution",
    "cudaErrorIllegalAddress": "an illegal memory access was encountered",
    "cudaErrorLaunchTimeout": "the launch timed out and was terminated",
    "cudaErrorContextIsDestroyed": "context is destroyed",
    "cudaErrorAssert": "device-side assert triggered",
    "cudaErrorHardwareStackError": "hardware stack error",
    "cudaErrorIllegalInstruction": "an illegal instruction was encountered",
    "cudaErrorMisalignedAddress": "misaligned address",
    "cudaErrorInvalidAddressSpace": "operation not supported on global/shared address space",
    "cudaErrorInvalidPc": "invalid program counter",
    "cudaErrorLaunchFailure": "unspecified launch failure",
    "cudaErrorMpsClientTerminated": "the MPS client has been terminated by the server",
    "cudaErrorExternalDevice": "an async error has occured in external entity outside of CUDA",
    "cudaErrorUnknown": "unknown error",
}
NO_MEMORY = ("cudaErrorMemoryAllocation", "out of memory")


class CudaError(Exception):
    """A CUDA call that failed; sessions turn it into a `LogoformerError`.

    Args:
        call: which one, such as 'cudaMemcpyAsync'.
        said: the error's name and text, as far as the layer knows them.
    """

    def __init__(self, call: str, said: str) -> None:
        super().__init__(f"{call}: {said}")
        self.call, self.said = call, said
        self.sticky = any(name in said or text in said for name, text in STICKY.items())
        self.no_memory = any(text in said for text in NO_MEMORY)


@dataclass(frozen=True)
class HostBlock:
    """Page-locked host memory.

    Attributes:
        array: uint8 `[size]`, the memory itself.
        device_pointer: the same bytes as the device sees them, when the block is mapped or managed; else 0.
        handle: the layer's own.
        managed: whether the driver moves it between both sides, instead of locking it on the host's.
    """

    array: npt.NDArray[np.uint8]
    device_pointer: int
    handle: Any
    managed: bool = False


class Cuda(Protocol):
    """One device. Every method but `memory` may raise `CudaError`."""

    name: str  # shown to people, such as 'cuda-python 13.5.0'
    device: int
    compute_capability: str  # such as 'sm87'
    integrated: bool  # shares its memory with the CPU, as on a Jetson
    managed: bool  # integrated, and the host may touch managed memory while the device works
    has_graphs: bool
    queue: Any  # a `queue.Queue`: what the sessions of one runtime share
    lost: str  # the sticky error that made the device useless to this process; empty while it is well

    def __enter__(self) -> object:
        """Makes the device's primary context current for this thread."""

    def __exit__(self, *exception: object) -> None:
        """Puts back what was current before."""

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the card that is current; (0, 0) when the driver does not say."""

    def owns(self, pointer: int, size: int) -> bool:
        """Whether these bytes are memory of this device, as far as the driver can tell."""

    def alloc(self, size: int) -> int: ...

    def free(self, pointer: int) -> None: ...

    def alloc_host(self, size: int, *, mapped: bool, managed: bool = False) -> HostBlock: ...

    def free_host(self, block: HostBlock) -> None: ...

    def stream(self, *, first: bool = False) -> int:
        """A new stream that does not wait for the default stream; `first`: of the greatest priority."""

    def free_stream(self, stream: int) -> None: ...

    def synchronize(self, stream: int) -> None: ...

    def follow(self, stream: int, foreign: int) -> None:
        """Make later work in `stream` wait for another library's stream; 0: for all streams."""

    def event(self, *, blocking: bool = False, timing: bool = False) -> int:
        """A new event; `blocking`: a thread that waits for it sleeps; `timing`: for `elapsed_ms`."""

    def free_event(self, event: int) -> None: ...

    def record(self, event: int, stream: int) -> None: ...

    def query(self, event: int) -> bool:
        """Whether the device has come past the event; never waits."""

    def elapsed_ms(self, start: int, end: int) -> float:
        """The device's time between two events that are past."""

    def await_event(self, event: int) -> None:
        """Waits until the device has come past the event."""

    def wait(self, stream: int, event: int) -> None:
        """Make later work in `stream` wait for the event."""

    def to_device(self, pointer: int, block: HostBlock, size: int, stream: int) -> None:
        """Copies; returns at once. The block must stay as it is until the stream has come past."""

    def to_host(self, block: HostBlock, pointer: int, size: int, stream: int) -> None:
        """Copies; returns at once. The block may be read once the stream has come past."""

    def on_device(self, to: int, source: int, size: int, stream: int) -> None: ...

    def fill(self, pointer: int, value: int, size: int, stream: int) -> None:
        """Sets every byte."""

    def capture(self, stream: int, body: Callable[[], bool]) -> tuple[int, int]:
        """Record what `body` enqueues instead of running it; other threads are not disturbed.

        Args:
            stream: idle.
            body: gives False when it failed.

        Returns:
            (graph, number of its nodes). Only with `has_graphs`.
        """

    def launch(self, graph: int, stream: int) -> None: ...

    def free_graph(self, graph: int) -> None: ...


def no_device(device: int, layer: str, said: str) -> MachineError:
    """The error for a GPU that does not exist."""
    return MachineError(
        f"{layer} finds no card {device}: {said}",
        cause="no NVIDIA driver, a driver older than this CUDA, or fewer cards than that",
        next="nvidia-smi",
    )


def explain(fault: CudaError, cuda: Cuda, doing: str, needed: int = 0) -> LogoformerError:
    """Turn a fault into a `LogoformerError`; a sticky one marks the device as lost.

    Args:
        fault: what a call raised.
        cuda: on which device.
        doing: such as 'running temporal.fp16'.
        needed: bytes that were asked for; 0 when unknown.
    """
    if fault.sticky:
        cuda.lost = cuda.lost or str(fault)
        return lost(cuda, doing)
    if fault.no_memory:
        return out_of_memory(cuda, doing, needed, str(fault))
    return MachineError(
        f"CUDA failed while {doing} on card {cuda.device}: {fault}",
        cause="a driver or library fault; the lines of `dmesg` may say more",
        next="logoformer doctor",
    )


def lost(cuda: Cuda, doing: str) -> DeviceLostError:
    """The error for every call after a sticky one."""
    return device_lost(f"Card {cuda.device} is lost to this process ({cuda.lost}); {doing} is refused.")


def device_lost(what: str, log: Sequence[str] = ()) -> DeviceLostError:
    """The error for a device that gave a sticky error, with the way out."""
    return DeviceLostError(
        what,
        cause="a kernel crashed, the card fell off the bus, or the driver was restarted: no call can mend the context",
        next="end this process and start it again; its supervisor may do so on exit code 7",
        log=log,
    )


def out_of_memory(cuda: Cuda, doing: str, needed: int, said: str) -> MachineError:
    """The error for too little device memory, with what is free there."""
    free = total = 0
    with contextlib.suppress(CudaError), cuda:  # type: ignore[attr-defined]
        free, total = cuda.memory()  # of this card: another one's context may be current by now
    asked = f"{needed} bytes were asked for, " if needed else ""
    return MachineError(
        f"Card {cuda.device} has not enough memory for {doing}: {asked}{free} of {total} are free ({said}).",
        cause="other programs on the card; on a Jetson every program, because CPU and GPU share the memory",
        next="end them (nvidia-smi lists them), or open fewer engines, then run again",
    )
