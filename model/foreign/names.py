"""Which names a checkpoint may mention; the others show a pickle that was made to run code."""

from __future__ import annotations

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
}  # fmt: skip
_BUILTINS = ("builtins", "__builtin__", "__builtins__")
_OLD_LIBRARY = {"commands", "popen2", "dl", "imp", "exceptions", "pip", "setuptools"}  # Python 2's, and installers
_OTHER_CODE = ("numpy.testing", "numpy.f2py", "numpy.distutils", "pandas.io", "cffi", "joblib", "dill", "cloudpickle")
_TORCH_CODE = ("torch.hub", "torch.jit", "torch.package", "torch.utils.cpp_extension")

# What every checkpoint names; not worth telling.
_COMMON = {Name("collections", "OrderedDict"), Name("torch", "Size")}
_COMMON_MODULES = ("torch._utils", "torch.nn.parameter", "torch.storage", "torch._tensor")


def is_code(name: Name) -> bool:
    """Whether a name is of the standard library or torch, and no part of a training's records.

    It would not be run either way: a file that names such a thing was made to attack whoever loads it.
    """
    top = name.module.partition(".")[0]
    if name.module in _BUILTINS:
        return name.name not in _DATA_BUILTINS
    if top == "torch":
        return name.module.startswith(_TORCH_CODE) or name.name in ("load", "torch_load", "compile")
    if name.module.startswith(_OTHER_CODE):
        return True
    if top in _DATA_MODULES:  # a dotted name climbs out of it: `collections`, `_sys.modules`
        return ("." in name.name and not top.startswith("__")) or name.name in _NOT_DATA
    return top in sys.stdlib_module_names or top in _OLD_LIBRARY


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
