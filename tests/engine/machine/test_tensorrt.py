"""Finding TensorRT under its several names, and saying what is wrong when it is not there."""

from __future__ import annotations

import importlib
import types

import pytest
from logoformer.engine.machine import tensorrt as tensorrt_module
from logoformer.engine.machine.environment import Gpu
from logoformer.engine.machine.targets import version_numbers
from logoformer.engine.machine.tensorrt import find_module
from logoformer.errors import MachineError, UsageError

NAMES = ("tensorrt", "tensorrt_bindings", "tensorrt_rtx", "tensorrt_rtx_bindings")


Installed = dict[str, str | Exception]  # import name -> version, or what importing it raises


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Installed:
    """Alone answers for TensorRT's import names; the real modules are not touched."""
    there: Installed = {}
    real = importlib.import_module

    def answer(name: str, package: str | None = None) -> types.ModuleType:
        if name not in NAMES:
            return real(name, package)
        found = there.get(name, ModuleNotFoundError(f"No module named {name!r}", name=name))
        if isinstance(found, Exception):
            raise found
        module = types.ModuleType(name)
        module.__version__ = found  # type: ignore[attr-defined]
        return module

    monkeypatch.setattr(importlib, "import_module", answer)
    return there


@pytest.mark.parametrize(
    ("target", "there", "found"),
    [
        ("tensorrt", ("tensorrt", "tensorrt_bindings"), "tensorrt"),
        ("tensorrt", ("tensorrt_bindings",), "tensorrt_bindings"),
        ("rtx", ("tensorrt_rtx_bindings", "tensorrt"), "tensorrt_rtx_bindings"),
        ("rtx", ("tensorrt_rtx", "tensorrt_rtx_bindings"), "tensorrt_rtx"),
    ],
)
def test_the_first_name_that_is_there_is_taken(
    installed: Installed, target: str, there: tuple[str, ...], found: str
) -> None:
    installed.update(dict.fromkeys(there, "10.3.0"))
    module = find_module(target)
    assert (module.target, module.name, module.version) == (target, found, "10.3.0")
    assert module.module.__name__ == found


def test_a_meta_package_whose_bindings_are_gone_counts_as_missing(installed: Installed) -> None:
    installed["tensorrt_rtx"] = ModuleNotFoundError("no", name="tensorrt_rtx_bindings")
    with pytest.raises(MachineError, match="not installed") as caught:
        find_module("rtx")
    assert "logoformer[rtx]" in caught.value.next


def test_on_a_jetson_the_advice_is_jetpacks_own(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_module, "is_jetson", lambda: True)
    with pytest.raises(MachineError) as caught:
        find_module("tensorrt")
    assert "--system-site-packages" in caught.value.next
    with pytest.raises(MachineError, match="does not exist for a Jetson") as caught:
        find_module("rtx")
    assert caught.value.next == "logoformer build BUNDLE --target tensorrt"


@pytest.mark.parametrize(("cuda", "extra"), [("12.8", "rtx12"), ("13.0", "rtx"), (None, "rtx")])
def test_the_extra_that_is_advised_runs_on_this_driver(installed: Installed, monkeypatch, cuda, extra) -> None:
    gpu = None if cuda is None else Gpu("NVIDIA RTX 5880", "sm89", False, cuda)
    monkeypatch.setattr(tensorrt_module, "find_gpu", lambda: gpu)
    with pytest.raises(MachineError) as caught:
        find_module("rtx")
    assert caught.value.next == f"pip install 'logoformer[{extra}]'"


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libnvinfer.so.10: cannot open shared object file"),
        OSError("libnvinfer.so.10: cannot open shared object file"),
        ModuleNotFoundError("libnvinfer.so.10 wants numpy", name="numpy"),
    ],
)
def test_a_broken_installation_is_not_called_missing(installed: Installed, error: Exception) -> None:
    installed["tensorrt"] = error
    with pytest.raises(MachineError, match="does not import") as caught:
        find_module("tensorrt")
    assert "libnvinfer.so.10" in caught.value.what


@pytest.mark.parametrize("version", ["10.3.0", "10.16.2.10", "11.4.0.106"])
def test_supported_versions(installed: Installed, version: str) -> None:
    installed["tensorrt"] = version
    assert find_module("tensorrt").version == version


@pytest.mark.parametrize("version", ["8.6.2.3", "10.2.9", "unknown"])
def test_old_versions_are_refused(installed: Installed, version: str) -> None:
    installed["tensorrt"] = version
    with pytest.raises(MachineError, match="too old"):
        find_module("tensorrt")


def test_an_unknown_target_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="'rtx', 'tensorrt'"):
        find_module("cuda")


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("10.3.0", (10, 3, 0)), ("1.7.1.116", (1, 7, 1, 116)), ("10.4rc1", (10, 4)), ("?", (0,))],
)
def test_version_numbers(version: str, numbers: tuple[int, ...]) -> None:
    assert version_numbers(version) == numbers
