"""What torch's pickles call, answered without torch: tensors become shapes and places.

The functions are those of `torch/_utils.py`; their arguments are compared with what torch writes, and a tensor that
reaches outside its storage, or stands for more values than its storage has, is refused.
"""

from __future__ import annotations

from typing import Any

from .inert import STORAGES, Inert, Name, StoredBytes, StoredTensor
from .machine import PickleError, to_dict, to_set
from .source import DamagedError

MAX_AXES = 16
_DTYPE_BYTES = dict(STORAGES.values()) | {
    "uint16": 2, "uint32": 4, "uint64": 8, "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1, "complex32": 4,
}  # fmt: skip
_UNREADABLE = {  # torch._utils: function -> what it makes
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_qtensor": "quantized",
    "_rebuild_meta_tensor_no_storage": "meta",
    "_rebuild_nested_tensor": "nested",
    "_rebuild_wrapper_subclass": "wrapped",
    "_rebuild_device_tensor_from_numpy": "another device's",
    "_rebuild_device_tensor_from_cpu_tensor": "another device's",
    "_rebuild_xla_tensor": "another device's",
}


def rebuild(name: Name, args: tuple[Any, ...]) -> Any:
    """What a call makes: a tensor's place, a plain container, or an `Inert`.

    Raises:
        PickleError: a tensor or container made from what torch and Python never give them.
    """
    if name.module == "torch._utils" and (found := _tensor(name.name, args)) is not None:
        return found
    if name == Name("torch._tensor", "_rebuild_from_type_v2"):
        return _of_type(args)
    if name == Name("torch", "Size") and len(args) == 1 and type(args[0]) in (tuple, list):
        return tuple(args[0])
    if name.module in ("collections", "builtins", "__builtin__"):
        if name.name in ("OrderedDict", "dict"):
            return to_dict(args[0]) if args else {}
        if name.name in ("set", "frozenset") and name.module != "collections":
            return to_set(args[0]) if args else set()
        if name.name == "defaultdict":
            return to_dict(args[1]) if len(args) > 1 else {}
    return Inert(name, args)


def _of_type(args: tuple[Any, ...]) -> Any:
    """A tensor of a subclass, or one with attributes: the tensor inside."""
    if len(args) < 3 or not isinstance(args[0], Name) or type(args[2]) is not tuple:
        raise PickleError("a tensor's subclass is rebuilt from something else")
    if args[0].module != "torch._utils":
        return StoredTensor("wrapped")
    plain = args[1] in (Name("torch", "Tensor"), Name("torch.nn.parameter", "Parameter"))
    found = _tensor(args[0].name, args[2])
    return found if plain and found is not None else StoredTensor("wrapped")


def _tensor(function: str, args: tuple[Any, ...]) -> StoredTensor | None:
    if function in _UNREADABLE:
        return StoredTensor(_UNREADABLE[function])
    if function in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        if not args or not isinstance(args[0], StoredTensor):
            raise PickleError("a parameter is made from something else than a tensor")
        return args[0]
    if function not in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
        return None
    if len(args) < (4 if function == "_rebuild_tensor" else 6):
        raise PickleError(f"{function} with {len(args)} arguments")
    storage, offset, size, stride = args[:4]
    if not isinstance(storage, StoredBytes):
        raise PickleError("a tensor without a storage")
    dtype = storage.dtype
    if function == "_rebuild_tensor_v3":
        if len(args) < 7 or not isinstance(args[6], Name) or args[6].module != "torch":
            raise PickleError("a tensor without a dtype")
        dtype = args[6].name
    return placed(storage, dtype, offset, size, stride)


def placed(storage: StoredBytes, dtype: str, offset: Any, size: Any, stride: Any) -> StoredTensor:
    """A dense tensor that lies inside its storage.

    Raises:
        PickleError: sizes that are none, or values outside the storage.
    """
    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride) or len(size) > MAX_AXES:
        raise PickleError("a tensor's sizes and strides do not fit each other")
    if not all(type(n) is int and 0 <= n < 2**62 for n in (offset, *size, *stride)):
        raise PickleError("a tensor with sizes, strides or an offset that are none")
    if dtype not in _DTYPE_BYTES:
        return StoredTensor("wrapped", dtype)
    held = storage.count
    if storage.dtype == "bytes":
        held //= _DTYPE_BYTES[dtype]
    elif storage.dtype != dtype:
        raise PickleError(f"a tensor of {dtype} in a storage of {storage.dtype}")
    found = StoredTensor("dense", dtype, size, stride, offset, storage)
    if found.count > held:
        raise PickleError(f"a tensor of sizes {list(size)} in a storage of {held} values")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if found.count else offset
    if last >= held and found.count:
        raise PickleError(f"a tensor that reaches value {last} of a storage of {held}")
    return found


def storage_of(given: Any, *, legacy: bool = False) -> Any:
    """The value of a persistent id: a storage; of the old format also a module's class.

    Raises:
        PickleError: an id that torch does not write.
    """
    if type(given) is not tuple or not given:
        raise PickleError("a persistent id that torch does not write")
    if legacy and given[0] == "module" and len(given) >= 2 and isinstance(given[1], Name):
        return given[1]
    if given[0] != "storage" or len(given) != (6 if legacy else 5):
        raise PickleError("a persistent id that torch does not write")
    kind, key, count = given[1], given[2], given[4]
    if not isinstance(kind, Name) or type(key) is not str or type(count) is not int or not 0 <= count < 2**48:
        raise PickleError("a persistent id that torch does not write")
    if kind.module not in ("torch", "torch.cuda", "torch.storage") or kind.name not in STORAGES:
        raise PickleError(f"a storage of the unknown kind {kind}")
    if legacy and given[5] is not None:
        raise DamagedError("it holds views of storages", "torch older than 0.4 wrote it")
    return StoredBytes(key, STORAGES[kind.name][0], count)


def bytes_of(storage: StoredBytes) -> int:
    """Bytes of a storage."""
    return storage.count * _DTYPE_BYTES[storage.dtype]


def bytes_each(dtype: str) -> int:
    """Bytes of one value."""
    return _DTYPE_BYTES[dtype]
