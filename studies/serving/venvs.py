"""Venvs for what is heavy or does not get on with our packages, made once in build/venvs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from ...errors import MachineError

ROOT = Path(__file__).resolve().parents[2]
VENVS = ROOT / "build" / "venvs"
RAY = "ray[data]>=2.60,<2.64"  # as pyproject's extra


def install_packages(folder: Path, groups: Sequence[Sequence[str]]) -> Path:
    """Makes a venv, unless it is there with the same packages; returns its Python.

    Args:
        folder: of the venv.
        groups: words of each `pip install`, one after the other.

    Raises:
        MachineError: something cannot be had.
    """
    python, done = folder / "bin" / "python", folder / "complete"
    wanted = "\n".join(" ".join(words) for words in groups)
    if not done.exists() or done.read_text(encoding="utf-8") != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, symlinks=True, with_pip=True)
        for words in groups:
            pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q", *words]
            installed = subprocess.run(pip, capture_output=True, text=True, check=False)
            if installed.returncode:
                raise MachineError(f"{words[-1]} could not be installed.", log=installed.stderr.splitlines()[-5:])
        done.write_text(wanted, encoding="utf-8")
    return python


def packages_of(folder: Path) -> Path:
    """A venv's folder of packages."""
    return folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def install_ray(folder: Path = VENVS / "ray") -> Path:
    """A Python with Ray, and with numpy, Pillow and ONNX Runtime as here.

    The same versions, because answers are compared bit by bit.

    Raises:
        MachineError: something cannot be had.
    """
    import numpy as np
    import onnxruntime  # of onnxruntime-gpu or of onnxruntime: the version is the same
    import PIL

    same = (f"numpy=={np.__version__}", f"pillow=={PIL.__version__}", f"onnxruntime=={onnxruntime.__version__}")
    return install_packages(folder, [(*same, RAY)])


def link_package(folder: Path) -> dict[str, str]:
    """An environment in which another Python imports this package from a link in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "logoformer"
    if not link.is_symlink():
        link.symlink_to(ROOT)
    return {**os.environ, "PYTHONPATH": os.fspath(folder), "PYTHONDONTWRITEBYTECODE": "1"}
