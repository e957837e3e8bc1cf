"""Import and version check of a target's TensorRT module.

`tensorrt` is for JetPack and data centres, `tensorrt_rtx` for desktops and for builds without a GPU.
The meta package provides the plain import name; the wheels that hold the code are named `..._bindings`. Either will do.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from ...errors import MachineError, command, missing_package
from .environment import find_gpu, is_jetson
from .targets import check_target, version_numbers

_IMPORT_NAMES = {
    "rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
}
_OLDEST = {"rtx": (1, 0), "tensorrt": (10, 3)}  # strongly typed networks, and the API that is used here


@dataclass(frozen=True)
class TrtModule:
    """An imported TensorRT module.

    Attributes:
        target: 'rtx' or 'tensorrt'.
        name: the import name that was found.
        version: such as '10.3.0' or '1.7.1.116'.
        module: the module itself.
    """

    target: str
    name: str
    version: str
    module: Any

    def __str__(self) -> str:
        return f"{'TensorRT-RTX' if self.target == 'rtx' else 'TensorRT'} {self.version}"


def find_module(target: str) -> TrtModule:
    """Import the TensorRT of a target.

    Raises:
        UsageError: another target.
        MachineError: it is not installed, does not import, or is too old.
    """
    names = _IMPORT_NAMES[check_target(target)]
    for name in names:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in names:  # it is there, but something that it needs is not
                raise _broken(name, error) from error
        except (ImportError, OSError) as error:
            raise _broken(name, error) from error
        else:
            found, oldest = TrtModule(target, name, str(module.__version__), module), _OLDEST[target]
            if version_numbers(found.version) >= oldest:
                return found
            raise MachineError(
                f"{found} is too old; {'.'.join(map(str, oldest))} or newer is needed.",
                cause="JetPack 6.0 and older: their TensorRT has no strongly typed networks",
                next="update to JetPack 6.1 or newer; logoformer run works with ONNX Runtime meanwhile",
            )
    purpose = f"The target '{target}'"
    if is_jetson() and target == "tensorrt":
        raise MachineError(
            f"{purpose} needs the Python package tensorrt, which is not installed here.",
            cause="on a Jetson it comes with JetPack, and a plain virtual environment does not see it",
            next="python3 -m venv --system-site-packages .venv",
        )
    if is_jetson():
        raise MachineError(
            f"{purpose} needs TensorRT-RTX, which does not exist for a Jetson.",
            cause="it is made for RTX cards; a Jetson takes JetPack's TensorRT",
            next=command("logoformer", "build", "BUNDLE", "--target", "tensorrt"),
        )
    raise missing_package(names[0], cuda_extra(target), purpose)


def cuda_extra(target: str) -> str:
    """The extra whose wheels this machine's driver can run; of CUDA 13 where there is none."""
    gpu = find_gpu()
    return f"{target}12" if gpu is not None and version_numbers(gpu.cuda)[0] == 12 else target


def _broken(name: str, error: Exception) -> MachineError:
    return MachineError(
        f"The Python package {name} is installed but does not import: {error}",
        cause="its libraries are missing, or belong to another version or Python",
        next=f"python3 -c 'import {name}'",
    )
