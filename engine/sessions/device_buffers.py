"""The memory of one session: every tensor's place on the device, and the host memory beside it.

*Pinned*: each tensor has device memory and page-locked host memory, and is copied between them. *Mapped*: the
page-locked memory is the tensor, and the device reads and writes it where it is; on a Jetson, whose CPU and GPU share
one memory, that saves the copies. Which is faster depends on the board, so it is measured there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import numpy as np

from ...bundle import TensorSpec
from ...errors import LogoformerError
from ..cuda.layer import Cuda, CudaError, HostBlock, explain
from .contract import Array


class DeviceBuffers:
    """Allocated at once, zeroed, freed at once.

    Args:
        cuda: the device; its context is current.
        specs: tensors by name.
        mapped: see above.
        stream: in which the memory is zeroed.
        shown: whose memory it is, for a message.

    Raises:
        MachineError: not enough memory; what was taken is given back.
    """

    def __init__(self, cuda: Cuda, specs: Mapping[str, TensorSpec], mapped: bool, stream: int, shown: str) -> None:
        self.mapped = mapped
        self.host: dict[str, Array] = {}  # shaped views of the page-locked memory
        self.bytes: dict[str, Array] = {}  # the same, uint8 [size]
        self.pointers: dict[str, int] = {}
        self.sizes = {name: int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize for name, spec in specs.items()}
        self._cuda = cuda
        self._blocks: list[HostBlock] = []
        needed = sum(self.sizes.values()) * (1 if mapped else 2)
        try:
            for name, spec in specs.items():
                block = cuda.alloc_host(self.sizes[name], mapped=mapped)
                self._blocks.append(block)
                block.array[:] = 0
                self.bytes[name] = block.array
                self.host[name] = block.array.view(spec.dtype).reshape(spec.shape)
                if mapped:
                    self.pointers[name] = block.device_pointer
                else:
                    self.pointers[name] = cuda.alloc(self.sizes[name])
                    cuda.fill(self.pointers[name], 0, self.sizes[name], stream)
            cuda.synchronize(stream)
        except CudaError as fault:
            error: LogoformerError = explain(fault, cuda, f"opening {shown}", needed)
            self.close()
            raise error from fault

    def close(self) -> None:
        """Gives the memory back. Arrays that were handed out are of no use any more. A second call does nothing."""
        for pointer in () if self.mapped else self.pointers.values():
            with contextlib.suppress(CudaError):  # a device that is lost takes nothing back
                self._cuda.free(pointer)
        for block in self._blocks:
            with contextlib.suppress(CudaError):
                self._cuda.free_host(block)
        self.host, self.bytes, self.pointers, self._blocks = {}, {}, {}, []
