"""Device arrays of other libraries, through `__cuda_array_interface__` or DLPack.

pycuda, cupy, numba and torch offer one or both. DLPack is asked first, because its producer makes our stream wait for
its own; an interface without a `stream` (version 2) says nothing of what is still being computed, so the whole device
is waited for. Nothing is ever cast, copied into another layout or taken from another card silently.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...bundle import TensorSpec
from ...errors import BadInputError
from .layer import Cuda

_CUDA_KINDS = (2, 3, 13)  # kDLCUDA, kDLCUDAHost, kDLCUDAManaged
_HOST_KIND = 1  # kDLCPU
_DLPACK_DTYPES = {(0, 32): "int32", (0, 64): "int64", (1, 8): "uint8", (2, 16): "float16", (2, 32): "float32"}


@dataclass(frozen=True)
class DeviceArray:
    """Description of an array in device memory, as its producer gives it.

    Attributes:
        pointer: of the first element.
        dtype: numpy's name.
        shape: sizes.
        contiguous: C order without gaps.
        device: the card, or None when the producer does not say.
        stream: what must be waited for; None: nothing, or the producer has seen to it.
    """

    pointer: int
    dtype: str
    shape: tuple[int, ...]
    contiguous: bool
    device: int | None
    stream: int | None


def is_on_device(array: object) -> bool:
    """Whether an array is in device memory, so that `opened` takes it."""
    if isinstance(array, np.ndarray):  # it speaks DLPack too, and this is asked for every frame
        return False
    if hasattr(array, "__cuda_array_interface__"):
        return True
    return hasattr(array, "__dlpack_device__") and int(array.__dlpack_device__()[0]) != _HOST_KIND


@contextmanager
def opened(array: Any, stream: int) -> Iterator[DeviceArray]:
    """Read an array's description; the array is held until the block ends.

    Args:
        array: with `__dlpack__` or `__cuda_array_interface__`.
        stream: in which we shall read it; a DLPack producer makes it wait.

    Raises:
        BadInputError: neither, or a kind of memory or element that we do not know.
    """
    if hasattr(array, "__dlpack_device__"):
        kind, device = (int(number) for number in array.__dlpack_device__())
        if kind not in _CUDA_KINDS:
            raise BadInputError(f"The array is in memory of DLPack's kind {kind}; the card's (2) is expected.")
        capsule = array.__dlpack__(stream=stream)
        try:
            yield _read_capsule(capsule, device)
        finally:
            del capsule  # a capsule that was not consumed frees what it holds
    elif hasattr(array, "__cuda_array_interface__"):
        yield _read_interface(array.__cuda_array_interface__)
    else:
        raise BadInputError(
            f"A {type(array).__name__} is no array on a card.",
            next="pass a numpy array, or one with __dlpack__ or __cuda_array_interface__",
        )


def check_device_array(found: DeviceArray, spec: TensorSpec, cuda: Cuda) -> None:
    """Refuse an array that is not exactly what a tensor expects.

    Raises:
        BadInputError: another dtype, shape, layout or card; names both sides.
    """
    single = spec.shape[0] == 1 and found.shape == spec.shape[1:]  # the batch's axis may be left out
    if found.dtype != spec.dtype or not (single or found.shape == spec.shape):
        raise BadInputError(
            f"{spec.name} is given as {found.dtype} {list(found.shape)}; {spec.dtype} {list(spec.shape)} is expected.",
            cause="a scaled, transposed or unbatched array; nothing is cast or reshaped silently",
            next="pass the camera's bytes as they are: scaling is inside the graph",
        )
    if not found.contiguous:
        raise BadInputError(
            f"{spec.name} is given with gaps or another order of axes in memory.",
            cause="a slice, a flip or a permuted view",
            next="make it contiguous on the card first: tensor.contiguous(), cupy.ascontiguousarray(array)",
        )
    size = int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize
    if found.device not in (None, cuda.device) or not cuda.owns(found.pointer, size):
        where = "elsewhere" if found.device in (None, cuda.device) else f"on card {found.device}"
        raise BadInputError(
            f"{spec.name} is given {where}; this engine runs on card {cuda.device}.",
            cause="memory of another card, of the host, or freed memory",
            next=f"tensor.to('cuda:{cuda.device}'), or logoformer.load(..., device=...)",
        )


def _read_interface(said: dict[str, Any]) -> DeviceArray:
    dtype, shape = np.dtype(said["typestr"]), tuple(int(size) for size in said["shape"])
    strides = said.get("strides")
    stream = said.get("stream", 0 if int(said.get("version", 0)) < 3 else None)  # 0: all of them, see `Cuda.follow`
    return DeviceArray(
        pointer=int(said["data"][0]),
        dtype=dtype.name,
        shape=shape,
        contiguous=strides is None or _contiguous(shape, tuple(int(s) for s in strides), dtype.itemsize),
        device=None,
        stream=None if stream is None else int(stream),
    )


def _contiguous(shape: tuple[int, ...], strides: tuple[int, ...], step: int) -> bool:
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True


class _Tensor(ctypes.Structure):
    """DLPack's DLTensor, dlpack.h of version 0.8 (its layout is part of the protocol)."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _read_capsule(capsule: object, device: int) -> DeviceArray:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = _Tensor.from_address(get(capsule, b"dltensor"))  # DLManagedTensor begins with its DLTensor
    kind = (tensor.code, tensor.bits)
    if kind not in _DLPACK_DTYPES or tensor.lanes != 1:
        raise BadInputError(f"The array's elements are of DLPack's type {kind} x {tensor.lanes}, which no graph takes.")
    dtype = _DLPACK_DTYPES[kind]
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    strides = tuple(tensor.strides[axis] for axis in range(tensor.ndim)) if tensor.strides else None
    return DeviceArray(
        pointer=(tensor.data or 0) + tensor.byte_offset,
        dtype=dtype,
        shape=shape,
        contiguous=strides is None or _contiguous(shape, strides, 1),  # in elements here
        device=device,
        stream=None,
    )
