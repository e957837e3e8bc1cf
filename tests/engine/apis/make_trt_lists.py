"""Writes the lists `tensorrt-<version>.json`: every name that a real TensorRT's Python bindings offer.

    python -m pip download --no-deps --python-version 3.11 --only-binary=:all: tensorrt-cu12-bindings==10.3.0
    python tests/engine/apis/make_trt_lists.py tensorrt_cu12_bindings-10.3.0-cp311-*.whl ... [--rtx]

The bindings import without TensorRT's libraries: a stub library with the dozen C functions that they link to is enough,
because nothing is called. Python and wheel must fit each other (cp311). `--rtx` adds the installed TensorRT-RTX.

A list holds, for the module and for every class: enum members with their values, functions and methods with the
signature that pybind11 wrote into their docstring, properties (with `=` behind the name where they can be set) and base
classes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

FUNCTIONS = (
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry",
    "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins",
)  # fmt: skip
_SIGNED = re.compile(r"(\d+\. )?\w+\(.*\) -> ")
LIBRARIES = ("libnvinfer", "libnvonnxparser", "libnvinfer_plugin")


def describe(module: object) -> dict[str, object]:
    """The list of one imported module."""
    names = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    classes = {name: _class(value) for name, value in names.items() if isinstance(value, type)}
    functions = {n: _signature(v) for n, v in names.items() if n not in classes and "pybind" in type(v).__name__}
    functions |= {n: _signature(v) for n, v in names.items() if type(v).__name__ == "builtin_function_or_method"}
    return {"version": str(module.__version__), "functions": functions, "classes": classes}


def _class(cls: type) -> dict[str, object]:
    members = getattr(cls, "__members__", None)
    if members is not None:
        return {"enum": {name: int(value) for name, value in members.items()}}
    found: dict[str, object] = {"bases": [base.__name__ for base in cls.__bases__ if base is not object]}
    methods, properties = {}, []
    nested = {n: _class(v) for n, v in vars(cls).items() if isinstance(v, type) and hasattr(v, "__members__")}
    if nested:
        found["classes"] = nested
    for name, value in vars(cls).items():
        if name.startswith("_") and name not in ("__init__", "__len__", "__getitem__", "__enter__", "__exit__"):
            continue
        if isinstance(value, property):
            properties.append(name + ("=" if value.fset else ""))
        elif callable(value) or isinstance(value, staticmethod):
            if not isinstance(value, type):
                methods[name] = _signature(value)
        else:
            properties.append(name)
    return found | {"methods": dict(sorted(methods.items())), "properties": sorted(properties)}


def _signature(function: object) -> str | list[str]:
    """The signature lines of a docstring, package names left out."""
    lines = (getattr(function, "__doc__", None) or "").strip().splitlines()
    signed = [
        re.sub(r"^\d+\. ", "", line.strip()) for line in lines if re.match(r"(\d+\. )?\w+\(.*\) -> ", line.strip())
    ]
    short = [re.sub(r"\b(tensorrt\w*\.)+", "", line[line.index("(") :]) for line in signed]
    real = [line for line in short if not line.startswith("(*args, **kwargs)")] or short
    return real[0] if len(real) == 1 else real


def _child(package: str) -> None:
    import importlib

    print(json.dumps(describe(importlib.import_module(package))))


def _of_wheel(wheel: Path) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
        source = Path(folder, "stub.c")
        source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
        major = wheel.name.split("-")[1].split(".")[0]
        for library in LIBRARIES:
            so = f"{library}.so.{major}"
            words = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{so}", "-o", str(Path(folder, so)), str(source)]
            subprocess.run(words, check=True)
        environment = {**os.environ, "PYTHONPATH": folder, "LD_LIBRARY_PATH": folder}
        words = [sys.executable, __file__, "--child", "tensorrt_bindings"]
        return json.loads(subprocess.run(words, env=environment, check=True, capture_output=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("wheels", nargs="*", type=Path)
    parser.add_argument("--rtx", action="store_true")
    parser.add_argument("--child")
    given = parser.parse_args()
    if given.child:
        return _child(given.child)
    found = [("tensorrt", _of_wheel(wheel)) for wheel in given.wheels]
    if given.rtx:
        import tensorrt_rtx_bindings

        found.append(("tensorrt_rtx", describe(tensorrt_rtx_bindings)))
    for name, listed in found:
        path = Path(__file__).parent / f"{name}-{listed['version']}.json"
        text = json.dumps(listed, sort_keys=True, separators=(",", ":"))
        # One line a class: a later version's difference can be read.
        path.write_text(text.replace('},"', '},\n"') + "\n")
        print(path.name, len(text), sum(len(c.get("enum", c.get("methods", ()))) for c in listed["classes"].values()))


if __name__ == "__main__":
    main()
