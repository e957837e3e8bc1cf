"""Verdicts on parts of a machine, and the pip commands that mend them.

Commands name the interpreter that was examined, or the environment that is advised in its place, and wheels that the
machine's driver can run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...errors import command
from .facts import Facts, Module

OK, FIX, NOTE = "ok", "fix", "--"

PYTHON_OLDEST, PYTHON_TESTED = (3, 10), (3, 13)


@dataclass(frozen=True)
class Check:
    """The verdict on one part of a machine.

    Attributes:
        status: `OK`; `FIX`, something is wrong; `NOTE`, it is missing and may well be.
        text: what was found.
        fixes: commands, in order.
        name: of the part, such as 'tensorrt'; given by `all_checks`.
    """

    status: str
    text: str
    fixes: tuple[str, ...] = ()
    name: str = ""


def make_fix(text: str, *fixes: str) -> Check:
    """Something is wrong."""
    return Check(FIX, text, fixes)


def make_note(text: str, *fixes: str) -> Check:
    """Something is missing, and may well be."""
    return Check(NOTE, text, fixes)


def pip_command(f: Facts, *words: str) -> str:
    """A pip command for the examined interpreter, or for the environment advised instead."""
    python = ".venv/bin/python" if check_python(f).fixes else f.interpreter.executable
    return command(python, "-m", "pip", *words)


def install_extra(f: Facts, extra: str) -> str:
    """The command that installs an extra of this package."""
    return pip_command(f, "install", f"logoformer[{extra}]")


def flavoured(f: Facts, extra: str) -> str:
    """The extra of those wheels that this driver can run: `...12` for a driver of CUDA 12."""
    return f"{extra}12" if f.cuda[0] == 12 else extra


def wheel_too_new(f: Facts, module: Module, extra: str) -> Check | None:
    """Wheels of CUDA 13 on a driver of CUDA 12: they import, and every call gives error 35."""
    named = [name for name in wheel_names(module) if "-cu13" in name]
    if not named or f.cuda[0] != 12:
        return None
    text = f"{module.version} is a wheel of CUDA 13; this driver speaks CUDA {dotted(f.cuda)} and runs none of it"
    return make_fix(text, *uninstall_wheels(f, wheel_names(module)), install_extra(f, f"{extra}12"))


def has_wheels(f: Facts) -> bool:
    """Whether NVIDIA's wheels exist for this machine: aarch64 ones are for DGX Spark and GH200."""
    aarch64 = f.interpreter.architecture == "aarch64" and not f.jetson and f.cuda[0] != 12
    return f.interpreter.architecture == "x86_64" or aarch64


def uninstall_wheels(f: Facts, names: tuple[str, ...]) -> tuple[str, ...]:
    """The command that removes these distributions; none when there is nothing to remove."""
    return (pip_command(f, "uninstall", "-y", *names),) if names else ()


def wheel_names(module: Module, folder: str = "") -> tuple[str, ...]:
    """Distributions that claim a module, each once, sorted: a folder lists them in no order."""
    return tuple(sorted({d.name for d in module.owners if not folder or d.folder == folder}))


def dotted(numbers: tuple[int, ...]) -> str:
    """A version as people write it."""
    return ".".join(map(str, numbers))


def cuda_layer_extra(f: Facts) -> str:
    """The extra with the CUDA layer of this driver."""
    return "cuda13" if f.cuda[0] >= 13 else "cuda12"


def check_python(f: Facts) -> Check:
    """The interpreter, and whether it sees JetPack's packages."""
    kind = "the system's own"
    if f.interpreter.in_venv:
        kind = "virtual environment, " + ("with" if f.system_packages else "without") + " the system's packages"
    text = f"{f.interpreter.version}, {kind}"
    if f.python[:2] < PYTHON_OLDEST:
        return make_fix(f"{text}; {dotted(PYTHON_OLDEST)} or newer is needed")
    if f.jetson and f.hidden:
        folder = next(iter(f.hidden.values()))
        named = re.search(r"/(python3\.\d+)/", folder)
        python = named[1] if named else "python3"
        why = "it does not see JetPack's packages"
        if named and python != f"python{f.python[0]}.{f.python[1]}":
            why = f"it is not the {python} of JetPack's packages"
        return make_fix(f"{text}; {why} in {folder}", *_venv(f, f"/usr/bin/{python}"))
    if f.managed and not f.interpreter.in_venv:
        return make_fix(f"{text}; pip installs nothing into it (PEP 668)", *_venv(f, "/usr/bin/python3"))
    newer = f.python[:2] > PYTHON_TESTED
    return Check(OK, text + (f"; newer than what was tested ({dotted(PYTHON_TESTED)})" if newer else ""))


def _venv(f: Facts, python: str) -> tuple[str, ...]:
    from ... import __version__

    extras = ["cpu", *(["jetson", cuda_layer_extra(f)] if f.jetson else [])]
    wheel = f"logoformer-{__version__}-py3-none-any.whl[{','.join(extras)}]"
    return (
        command(python, "-m", "venv", "--system-site-packages", ".venv"),
        command(".venv/bin/python", "-m", "pip", "install", wheel),
    )
