"""Type stubs of `cuda.bindings.runtime` and of a part of `driver`, made from the installed package, for mypy.

    python tests/engine/apis/make_stubs.py FOLDER
    MYPYPATH=FOLDER python -m mypy ...

cuda-bindings is compiled and brings no stubs. These say what can be read off it: every function with the number of its
arguments, which of them are enums, and every enum's members; a wrong name, count or enum is then a type error.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from make_cuda_lists import read_cuda_bindings


def stub_text(listed: dict[str, Any]) -> str:
    """The stub file of one module."""
    lines = ["from enum import IntEnum", "from typing import Any", ""]
    for enum, members in listed["enums"].items():
        lines += [f"class {enum}(IntEnum):", *(f"    {name} = {value}" for name, value in members.items()), ""]
    lines += [f"{name}: int" for name in listed.get("constants", ())]
    for name, parameters in listed["functions"].items():
        lines.append(f"def {name}({_parameters(parameters, listed['enums'])}) -> tuple[Any, ...]: ...")
    return "\n".join(lines) + "\n"


def _parameters(listed: list[str] | None, enums: dict[str, object]) -> str:
    if listed is None:
        return "*arguments: Any"
    parts = []
    for number, item in enumerate(listed):
        kind = item.rstrip("=").partition(":")[2]
        parts.append(f"a{number}: {kind if kind in enums else 'Any'}" + (" = ..." if item.endswith("=") else ""))
    return ", ".join([*parts, "/"]) if parts else ""


def write_stubs(folder: Path) -> None:
    """Writes the package `cuda` below a folder."""
    package = folder / "cuda" / "bindings"
    package.mkdir(parents=True)
    (folder / "cuda" / "__init__.pyi").touch()
    (package / "__init__.pyi").touch()
    listed = read_cuda_bindings()
    (package / "runtime.pyi").write_text(stub_text(listed))
    (package / "driver.pyi").write_text(stub_text(listed["driver"]))


if __name__ == "__main__":
    write_stubs(Path(sys.argv[1]))
