"""Which names a checkpoint may mention; the others show a pickle that was made to run code."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from ...errors import RefusedError
from .inert import Name

# Of the standard library, what a training's own records are made of. Anything else of it is no data.
_DATA_MODULES = {
    "argparse", "array", "collections", "copy_reg", "copyreg", "datetime", "decimal", "enum", "fractions", "pathlib",
    "random", "time", "types", "typing", "uuid", "_codecs", "functools", "logging", "dataclasses", "__main__",
    "__mp_main__", "_thread", "threading", "weakref", "zoneinfo", "itertools", "numbers", "string", "ipaddress",
}  # fmt: skip
_DATA_BUILTINS = {
    "set", "frozenset", "dict", "list", "tuple", "int", "float", "str", "bytes", "bytearray", "bool", "complex",
    "slice", "range", "object", "long", "unicode", "xrange", "NoneType", "Ellipsis",
}  # fmt: skip
_NOT_DATA = {
    "FunctionType",
    "CodeType",
    "MethodType",
    "LambdaType",
    "FileHandler",
    "start_new_thread",
    "Timer",
    "reduce",
    "make_dataclass",
    "namedtuple",
    "new_class",
}  # fmt: skip
_BUILTINS = ("builtins", "__builtin__", "__builtins__")
_OLD_LIBRARY = {"commands", "popen2", "dl", "imp", "exceptions", "pip", "setuptools"}  # Python 2's, and installers
_OTHER_CODE = ("pandas.io", "cffi", "joblib", "dill", "cloudpickle", "logging.config", "logging.handlers")

# Of torch and numpy, what weights, optimizers, their records and pickled networks are made of: a list of what is data,
# because both hold more ways to run a text than anybody can list.
_CLASS = re.compile(r"_?(?!(F|VF|NamedTuple|TypedDict)$)[A-Z]\w*", re.ASCII)
_CLASS_MODULES = re.compile(
    r"torch\.(nn|optim|amp|cuda\.amp|distributed\.tensor|distributed\._tensor|distributed\._shard)(\.\w+)*|numpy\.dtypes",
    re.ASCII,
)
_TENSORS = re.compile(r"torch(\.cuda)?(\.sparse)?|torch\.storage")
_TENSOR = re.compile(r"_?[A-Za-z0-9]*(Storage|Tensor)|Size|Generator", re.ASCII)
_DTYPE = re.compile(r"(quint|qint|uint|int|bits|float|bfloat|complex)\d+(x\d|_\w+)?", re.ASCII)
_VALUES = {
    "bool", "bit", "half", "float", "double", "short", "int", "long", "chalf", "cfloat", "cdouble", "dtype", "device",
    "layout", "strided", "jagged", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "_mkldnn",
    "memory_format", "contiguous_format", "legacy_contiguous_format", "preserve_format", "channels_last",
    "channels_last_3d", "per_tensor_affine", "per_tensor_symmetric", "per_channel_affine", "per_channel_symmetric",
    "per_channel_affine_float_qparams",
}  # fmt: skip
_ACTIVATIONS = {
    "relu", "relu6", "gelu", "silu", "mish", "elu", "selu", "celu", "leaky_relu", "tanh", "sigmoid", "softplus",
    "softmax", "log_softmax", "hardtanh", "hardswish", "hardsigmoid", "logsigmoid", "softsign",
}  # fmt: skip
_NUMPY_SCALARS = re.compile(
    r"(float|int|uint|complex)\d+|u?(byte|short|intc|int_|int|intp|long|longlong)|half|c?(single|double|longdouble)"
    r"|bool_?|str_|bytes_|unicode_|string_|object_|void|datetime64|timedelta64"
)
_NUMPY = {
    "numpy": {"dtype", "ndarray", "generic", "matrix", "recarray"},
    "multiarray": {"_reconstruct", "scalar"},  # of numpy.core, since numpy 2 of numpy._core
    "numeric": {"_frombuffer"},
    "records": {"recarray"},
    "numpy.ma": {"MaskedArray"},
    "numpy.ma.core": {"MaskedArray", "_mareconstruct"},
    "numpy.random": {"RandomState", "Generator"},
    "numpy.random._pickle": {"__randomstate_ctor", "__generator_ctor", "__bit_generator_ctor"},
    "numpy.random.bit_generator": {"SeedSequence", "__pyx_unpickle_SeedSequence"},
    "numpy.random._mt19937": {"MT19937"}, "numpy.random._pcg64": {"PCG64", "PCG64DXSM"},
    "numpy.random._philox": {"Philox"}, "numpy.random._sfc64": {"SFC64"},
}  # fmt: skip
_OTHER_DATA = {
    Name("torch._tensor", "_rebuild_from_type"), Name("torch._tensor", "_rebuild_from_type_v2"),
    Name("torch.serialization", "_get_layout"), Name("torch.torch_version", "TorchVersion"),
    Name("torch._C", "Generator"), Name("torch.amp.grad_scaler", "_refresh_per_optimizer_state"),
    Name("torch.cuda.amp.grad_scaler", "_refresh_per_optimizer_state"),
    Name("re", "_compile"), Name("re", "RegexFlag"),  # a pattern among a training's arguments
}  # fmt: skip

# What every checkpoint names; not worth telling.
_COMMON = {Name("collections", "OrderedDict"), Name("torch", "Size")}
_COMMON_MODULES = ("torch._utils", "torch.nn.parameter", "torch.storage", "torch._tensor")


def is_code(name: Name) -> bool:
    """Whether a name is of Python, torch or numpy, and no part of a training's records.

    It would not be run either way: a file that names such a thing was made to attack whoever loads it.
    """
    top = name.module.partition(".")[0]
    if name in _OTHER_DATA:
        return False
    if name.module in _BUILTINS:
        return name.name not in _DATA_BUILTINS
    if top == "torch":
        return not _is_torch_data(name)
    if top == "numpy":
        return not _is_numpy_data(name)
    if name.module.startswith(_OTHER_CODE):
        return True
    if top in _DATA_MODULES:  # a dotted name climbs out of it: `collections`, `_sys.modules`
        return ("." in name.name and not top.startswith("__")) or name.name in _NOT_DATA
    return top in sys.stdlib_module_names or top in _OLD_LIBRARY


def _is_torch_data(name: Name) -> bool:
    if name.name.startswith("torch."):  # a value without a module of its own: pickle names any that imported torch
        return _is_torch_data(Name("torch", name.name.removeprefix("torch.")))
    if _CLASS_MODULES.fullmatch(name.module) and _CLASS.fullmatch(name.name):
        return True
    if _TENSORS.fullmatch(name.module) and _TENSOR.fullmatch(name.name):
        return True
    if name.module == "torch._utils":
        return re.fullmatch(r"_rebuild_\w+", name.name, re.ASCII) is not None
    if name.module in ("torch", "torch.nn.functional", "torch._C._nn") and name.name in _ACTIVATIONS:
        return True
    return name.module == "torch" and (name.name in _VALUES or _DTYPE.fullmatch(name.name) is not None)


def _is_numpy_data(name: Name) -> bool:
    module = re.sub(r"^numpy\._?core\.(?=(multiarray|numeric|records)$)", "", name.module)
    if name.name in _NUMPY.get(module, ()):
        return True
    if _CLASS_MODULES.fullmatch(name.module) and _CLASS.fullmatch(name.name):
        return True
    return name.module == "numpy" and _NUMPY_SCALARS.fullmatch(name.name) is not None


def refuse_code(shown: str, names: Iterable[Name]) -> None:
    """Refuses a pickle that names code.

    Raises:
        RefusedError: it does; nothing of it was run.
    """
    hostile = [str(name) for name in names if is_code(name)]
    if hostile:
        raise RefusedError(
            f"{shown} names {hostile[0]}, which no checkpoint needs. Nothing was run.",
            cause="a pickle that was made to run code on whoever loads it",
            next="do not load this file with any program; get the weights from their author",
            log=hostile[:8],
        )


def worth_telling(names: Iterable[Name]) -> tuple[str, ...]:
    """The names beyond those of every checkpoint."""
    told = [n for n in names if n not in _COMMON and n.module not in _COMMON_MODULES]
    return tuple(sorted(str(n) for n in told if not (n.module == "torch" and n.name.endswith("Storage"))))
