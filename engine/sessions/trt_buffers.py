"""Memory of one session on a GPU: where each tensor lies, and what of it the host sees."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from ...bundle import TensorSpec
from ...errors import LogoformerError
from ..cuda.layer import Cuda, CudaError, HostBlock, explain
from .contract import Array

DEVICE, PINNED, MAPPED, MANAGED = "device", "pinned", "mapped", "managed"
IN_PLACE = (MAPPED, MANAGED)  # the device reads and writes the host's memory itself
CHUNK = 1 << 20  # bytes that pass through the host at a time, where a tensor has no memory there


class DeviceTensor:
    """One tensor of a session.

    Attributes:
        spec, size: what it is, and its bytes.
        kind: 'pinned' has device memory and page-locked host memory, and is copied between them; 'mapped' is
            page-locked memory that the device reads and writes where it is, 'managed' the same in memory that the
            driver moves; 'device' has none on the host.
        pointers: device address by copy of the host's memory; all the same unless mapped or managed.
        blocks, host: the host's memory, and shaped views of it; empty for 'device' until `DeviceBuffers.mirror`.
    """

    __slots__ = ("blocks", "host", "kind", "pointers", "size", "spec")

    def __init__(self, spec: TensorSpec, kind: str) -> None:
        self.spec, self.kind = spec, kind
        self.size = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
        self.pointers: tuple[int, ...] = ()
        self.blocks: tuple[HostBlock, ...] = ()
        self.host: tuple[Array, ...] = ()


class DeviceBuffers:
    """All tensors of a session, allocated at once, zeroed, and freed at once.

    One may be exchanged for another of the same spec.

    Args:
        cuda: the device; its context is current.
        specs: tensors by name.
        kinds: 'device', 'pinned', 'mapped' or 'managed' by name.
        copies: of the host's memory, by name; one where nothing is said.
        stream: in which copies and zeroing go.
        shown: whose memory it is, for a message.
        shared: tensors of other buffers, used here and freed there.

    Raises:
        MachineError: not enough memory; what was taken is given back.
    """

    def __init__(
        self,
        cuda: Cuda,
        specs: Mapping[str, TensorSpec],
        kinds: Mapping[str, str],
        copies: Mapping[str, int],
        stream: int,
        shown: str,
        shared: Mapping[str, DeviceTensor] = MappingProxyType({}),
    ) -> None:
        self.tensors: dict[str, DeviceTensor] = {}
        self._cuda, self._stream, self._shown, self._copies = cuda, stream, shown, copies
        self._foreign = frozenset(shared)
        try:
            for name, spec in specs.items():
                self.tensors[name] = shared[name] if name in shared else self.allocate(spec, kinds[name])
        except LogoformerError:
            self.close()
            raise

    def allocate(self, spec: TensorSpec, kind: str) -> DeviceTensor:
        """Memory of one tensor, zeroed.

        It is for `tensors`, or to be tried there and given to `release`.

        Raises:
            MachineError: not enough memory; what was taken is given back.
        """
        cuda, tensor, copies = self._cuda, DeviceTensor(spec, kind), self._copies.get(spec.name, 1)
        try:
            if kind != DEVICE:
                self._host_side(tensor, copies)
            if kind in IN_PLACE:
                tensor.pointers = tuple(block.device_pointer for block in tensor.blocks)
            else:
                tensor.pointers = (cuda.alloc(tensor.size),) * copies
                cuda.fill(tensor.pointers[0], 0, tensor.size, self._stream)
            cuda.synchronize(self._stream)
        except CudaError as fault:
            needed = tensor.size * (1 + (kind == PINNED))
            error: LogoformerError = explain(fault, cuda, f"opening {self._shown}", needed)
            self.release(tensor)
            raise error from fault
        return tensor

    def _host_side(self, tensor: DeviceTensor, copies: int) -> None:
        for _ in range(copies):
            managed = tensor.kind == MANAGED
            block = self._cuda.alloc_host(tensor.size, mapped=tensor.kind == MAPPED, managed=managed)
            tensor.blocks = (*tensor.blocks, block)
            block.array[:] = 0
        tensor.host = tuple(block.array.view(tensor.spec.dtype).reshape(tensor.spec.shape) for block in tensor.blocks)

    def mirror(self, name: str) -> Array:
        """The host's copy of a tensor that lives on the device; what it holds is old."""
        tensor = self.tensors[name]
        if not tensor.host:
            self._host_side(tensor, 1)
        return tensor.host[0]

    def read(self, name: str) -> Array:
        """A copy of what is on the device; waits for it."""
        tensor = self.tensors[name]
        return self.read_first(name, tensor.size).reshape(tensor.spec.shape)

    def read_first(self, name: str, limit: int) -> Array:
        """A flat copy of the tensor's first bytes on the device, `limit` at most; waits for it."""
        tensor = self.tensors[name]
        found = np.empty(min(limit, tensor.size), np.uint8)
        with contextlib.ExitStack() as stack:
            block = self._staging(stack, found.nbytes)
            for start in range(0, found.nbytes, CHUNK):
                size = min(CHUNK, found.nbytes - start)
                self._cuda.to_host(block, tensor.pointers[0] + start, size, self._stream)
                self._cuda.synchronize(self._stream)
                found[start : start + size] = block.array[:size]
        return found.view(tensor.spec.dtype)

    def write(self, name: str, values: Array) -> None:
        """Puts values onto the device; waits until they are there.

        Args:
            name: of the tensor.
            values: all of it, or its first elements.
        """
        tensor, given = self.tensors[name], np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        with contextlib.ExitStack() as stack:
            block = self._staging(stack, given.nbytes)
            for start in range(0, given.nbytes, CHUNK):
                size = min(CHUNK, given.nbytes - start)
                block.array[:size] = given[start : start + size]
                self._cuda.to_device(tensor.pointers[0] + start, block, size, self._stream)
                self._cuda.synchronize(self._stream)

    def _staging(self, stack: contextlib.ExitStack, size: int) -> HostBlock:
        block = self._cuda.alloc_host(min(CHUNK, size), mapped=False)
        stack.callback(self._quietly_free, block)
        return block

    def _quietly_free(self, block: HostBlock) -> None:
        with contextlib.suppress(CudaError):
            self._cuda.free_host(block)

    def release(self, tensor: DeviceTensor) -> None:
        """Frees the memory of one tensor, which makes its host arrays invalid."""
        if tensor.kind not in IN_PLACE and tensor.pointers:
            with contextlib.suppress(CudaError):  # a device that is lost takes nothing back
                self._cuda.free(tensor.pointers[0])
        for block in tensor.blocks:
            self._quietly_free(block)
        tensor.pointers, tensor.blocks, tensor.host = (), (), ()

    def close(self) -> None:
        """Frees everything; a second call does nothing."""
        tensors, self.tensors = self.tensors, {}
        for name, tensor in tensors.items():
            if name not in self._foreign:
                self.release(tensor)
