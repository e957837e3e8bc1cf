"""Writes `cuda-bindings.json` and `pycuda.json`: every name of the two CUDA layers that our code may use.

    python -m pip install cuda-bindings
    python -m pip download --no-deps --no-build-isolation --no-binary :all: pycuda==2026.1
    python tests/engine/apis/make_cuda_lists.py pycuda-2026.1.tar.gz

cuda-bindings is imported and asked. pycuda needs a driver even to be imported, so its names are read from its source:
the Boost.Python definitions of `pycuda._driver`, and the functions of `pycuda/driver.py`.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import tarfile
from pathlib import Path

HERE = Path(__file__).parent
_DEFINITION = re.compile(
    r"""py::class_<[^;"]*?\(\s*"(?P<cls>\w+)"
      | py::enum_<[^;"]*?\(\s*"(?P<enum>\w+)"
      | (?<!_)py::def\(\s*"(?P<function>\w+)"
      | DEF_SIMPLE_FUNCTION(?:_WITH_ARGS)?\(\s*(?P<simple_function>\w+)
      | DECLARE_EXC\(\s*(?P<error>[A-Z]\w+)\s*,\s*(?P<base>[^)]*)
      | \.def(?:_readwrite|_readonly)?\(\s*"(?P<method>\w+)"
      | DEF_SIMPLE_(?:RO_|RW_)?(?:METHOD|MEMBER)(?:_WITH_ARGS)?\(\s*(?P<simple_method>\w+)
      | \.add_property\(\s*"(?P<property>\w+)"
      | \.value\(\s*"(?P<value>\w+)"
      | \bcls\.attr\(\s*"(?P<attribute>\w+)"\)""",
    re.VERBOSE,
)


def read_pycuda(sdist: Path) -> dict[str, object]:
    """Functions, classes with their members, and exceptions of `pycuda.driver`."""
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1]: name for name in archive.getnames() if "/" in name}

        def text(path: str) -> str:
            member = archive.extractfile(names[path])
            assert member is not None
            return member.read().decode()

        wrapper, driver = text("src/wrapper/wrap_cudadrv.cpp"), text("pycuda/driver.py")
    functions: set[str] = set()
    classes: dict[str, set[str]] = {}
    errors: list[str] = []
    current: set[str] = set()
    # Macros that add members to several classes (Memcpy2D's setters) are left out: nothing here uses those classes.
    wrapper = re.sub(r"^ *#define (?:[^\n]*\\\n)*[^\n]*", "", wrapper, flags=re.MULTILINE)
    start = wrapper.index("BOOST_PYTHON_MODULE")
    for found in _DEFINITION.finditer(wrapper, start):
        given = {key: value for key, value in found.groupdict().items() if value}
        kind, name = next(iter(given.items()))
        if kind in ("cls", "enum"):
            current = classes.setdefault(name, set())
            base = re.search(r"py::bases<(\w+)>", found.group())
            current |= classes["".join(word.title() for word in base[1].split("_"))] if base else set()
        elif kind in ("function", "simple_function"):
            functions.add(name)
        elif kind == "error":
            errors.append(name)
        else:
            current.add(name)
    functions |= {node.name for node in ast.parse(driver).body if isinstance(node, ast.FunctionDef)}
    return {
        "version": re.sub(r"^pycuda-|\.tar\.gz$", "", sdist.name),
        "functions": sorted(name for name in functions if not name.startswith("_")),
        "classes": {name: sorted(members) for name, members in sorted(classes.items())},
        "errors": sorted(errors),
    }


def read_cuda_bindings() -> dict[str, object]:
    """Functions with their parameters and enums with their members, of `cuda.bindings.runtime`.

    Of `cuda.bindings.driver` what concerns devices, contexts and errors.
    """
    import importlib.metadata

    from cuda.bindings import driver, runtime

    functions, enums = {}, {}
    for name, value in vars(runtime).items():
        if not name.startswith("cuda"):
            continue
        if isinstance(value, type):
            if hasattr(value, "__members__"):
                enums[name] = {member: int(number) for member, number in value.__members__.items()}
        elif callable(value):
            functions[name] = _listed(name, value)
    constants = {n: v for n, v in vars(runtime).items() if n.startswith("cuda") and isinstance(v, int)}
    constants = {name: value for name, value in constants.items() if name not in functions and name not in enums}
    version = importlib.metadata.version("cuda-bindings")
    contexts = {
        name: _listed(name, value)
        for name, value in vars(driver).items()
        if name.startswith(("cuInit", "cuCtx", "cuDevice", "cuGetError")) and not isinstance(value, type)
    }
    results = {member: int(number) for member, number in driver.CUresult.__members__.items()}
    return {
        "version": version,
        "functions": functions,
        "enums": enums,
        "constants": constants,
        "driver": {"functions": contexts, "enums": {"CUresult": results}},
    }


def _listed(name: str, function: object) -> list[str] | None:
    """The parameters, from the first line of the docstring."""
    line = (function.__doc__ or "").strip().split("\n")[0]
    inside = re.fullmatch(rf"{name}\((.*)\).*", line)
    return [_parameter(part) for part in inside[1].split(",") if part] if inside else None


def _parameter(text: str) -> str:
    """'name', 'name:Enum' or 'name=' for one with a default; C types are left out."""
    name, _, kind = text.partition(":")
    name, default, _ = name.partition("=")
    enum = kind.split("=")[0].strip()
    return (
        name.split()[-1].lstrip("*")
        + (f":{enum}" if enum.startswith(("cuda", "CUresult")) else "")
        + ("=" if default else "")
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("pycuda_sdist", type=Path)
    given = parser.parse_args()
    for name, listed in (("pycuda", read_pycuda(given.pycuda_sdist)), ("cuda-bindings", read_cuda_bindings())):
        text = json.dumps(listed, sort_keys=True, separators=(",", ":"))
        (HERE / f"{name}.json").write_text(re.sub(r'([\]}]),"', r'\1,\n"', text) + "\n")


if __name__ == "__main__":
    main()
