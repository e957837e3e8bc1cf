"""Facts of a machine: board, driver, libraries and packages, without a verdict."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ..machine.targets import version_numbers
from .probe import CUDA, IMPORT, Distribution, Interpreter, Probe

# The import names that matter, and which distributions put them there. Two of those in a folder overwrite each other.
OWNERS = {
    "onnxruntime": r"onnxruntime(-gpu|-openvino|-directml|-qnn|-training.*)?",
    "openvino": r"openvino",
    "tensorrt": r"tensorrt(-cu1\d)?(-bindings|-libs)?",
    "tensorrt_bindings": r"tensorrt(-cu1\d)?(-bindings|-libs)?",
    "tensorrt_rtx": r"tensorrt-rtx(-cu1\d)?(-bindings|-libs)?",
    "tensorrt_rtx_bindings": r"tensorrt-rtx(-cu1\d)?(-bindings|-libs)?",
    "cuda.bindings.runtime": r"cuda-(bindings|python)",
    "pycuda.driver": r"pycuda",
    "cv2": r"opencv(-contrib)?-python(-headless)?",
}
DEBS = (
    "nvidia-jetpack", "nvidia-l4t-core", "tensorrt", "python3-libnvinfer", "libnvinfer10", "libnvinfer8",
    "libnvinfer-bin", "libopencv-python", "python3-opencv",
)  # fmt: skip
LIBRARIES = (
    "/usr/lib/*/libnvinfer.so.*.*.*",
    "/usr/lib/*/libcuda.so.1",
    "/usr/lib/*/nvidia/libcuda.so.1",
    "/usr/local/cuda-*/version.json",
)
# What a Jetson's system Python has and a plain virtual environment does not see.
SYSTEM_ONLY = ("tensorrt", "cv2")


@dataclass(frozen=True)
class CudaGpu:
    """One GPU that CUDA can use."""

    name: str
    sm: str
    memory_mib: int
    bus: str = ""  # PCI address; empty where it has none


@dataclass(frozen=True)
class Module:
    """One import name.

    Attributes:
        name: such as 'tensorrt'.
        files: its files, in search order; the first is imported.
        owners: distributions that claim it, in search order.
        version: what it said when a child imported it; empty when it does not import.
        error: why it does not import.
        said: more of what it said; see `probe.IMPORT`.
    """

    name: str
    files: tuple[str, ...]
    owners: tuple[Distribution, ...]
    version: str
    error: str
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def works(self) -> bool:
        """Whether it imports."""
        return bool(self.files) and not self.error

    @property
    def folder(self) -> str:
        """The search-path folder of the copy that is imported."""
        if not self.files:
            return ""
        place = PurePosixPath(self.files[0])
        depth = self.name.count(".") + (2 if place.name == "__init__.py" else 1)
        return str(place.parents[depth - 1])

    @property
    def providers(self) -> tuple[str, ...]:
        """ONNX Runtime's execution providers that a bundle can use, such as 'CPU'."""
        return tuple(p for p in ("CPU", "CUDA") if f"{p}ExecutionProvider" in self.said.get("providers", ()))

    def numbers(self) -> tuple[int, ...]:
        """The version's leading numbers, for comparisons."""
        return version_numbers(self.version)


@dataclass(frozen=True)
class Facts:
    """One machine, as `doctor` found it. Texts are empty where nothing was found.

    Attributes:
        system: the distribution's name.
        interpreter: whose packages these are.
        system_packages: whether the interpreter sees the system's packages (always outside a virtual environment).
        managed: whether pip refuses to install outside a virtual environment (PEP 668).
        board: what the device tree calls it; Jetsons have one.
        l4t: such as '36.4.3'.
        driver: the kernel module's version.
        gpus: what CUDA can use.
        cuda: the newest CUDA of the driver, such as (12, 6); (0, 0) when it did not answer.
        cuda_init: what cuInit returned; -1 when the driver's library did not load.
        cuda_error: why it did not load.
        smi: what nvidia-smi lists, one line a card, where CUDA does not start.
        smi_buses: PCI addresses in nvidia-smi's order, where CUDA has several cards.
        debs: installed Debian packages that matter, with versions.
        libraries: TensorRT's and CUDA's shared libraries that the system holds.
        hidden: where the system's Python keeps modules that this interpreter does not see, by import name.
        modules: by import name.
        numpy: its version.
        trtexec: where it stands.
        trtexec_on_path: whether the shell finds it.
    """

    system: str
    interpreter: Interpreter
    system_packages: bool
    managed: bool
    board: str
    l4t: str
    driver: str
    gpus: tuple[CudaGpu, ...]
    cuda: tuple[int, int]
    cuda_init: int
    cuda_error: str
    smi: tuple[str, ...]
    smi_buses: tuple[str, ...]
    debs: Mapping[str, str]
    libraries: tuple[str, ...]
    hidden: Mapping[str, str]
    modules: Mapping[str, Module]
    numpy: str
    trtexec: str
    trtexec_on_path: bool

    @property
    def jetson(self) -> bool:
        """Whether this is a Jetson."""
        return bool(self.l4t) or "Jetson" in self.board

    @property
    def python(self) -> tuple[int, ...]:
        """The interpreter's version."""
        return version_numbers(self.interpreter.version)

    @property
    def tensorrt(self) -> Module:
        """TensorRT, by the import name that is installed."""
        return self._first("tensorrt", "tensorrt_bindings")

    @property
    def tensorrt_rtx(self) -> Module:
        """TensorRT-RTX, by the import name that is installed."""
        return self._first("tensorrt_rtx", "tensorrt_rtx_bindings")

    @property
    def cuda_layers(self) -> dict[str, Module]:
        """The packages that can drive TensorRT's engines."""
        return {"cuda-python": self.modules["cuda.bindings.runtime"], "pycuda": self.modules["pycuda.driver"]}

    def _first(self, *names: str) -> Module:
        return next((self.modules[name] for name in names if self.modules[name].files), self.modules[names[0]])


def read_facts(probe: Probe) -> Facts:
    """Reads a machine. Imports nothing of what it looks for."""
    installed: dict[str, list[Distribution]] = defaultdict(list)
    for found in probe.distributions():
        installed[found.name].append(found)
    with ThreadPoolExecutor(4) as pool:  # the children wait for the disk more than for the processor
        modules = dict(zip(OWNERS, pool.map(lambda name: _module(probe, name, installed), OWNERS), strict=True))
        cuda = pool.submit(probe.ask, "cuda", [probe.interpreter.executable, "-c", CUDA])
        said = cuda.result().json()
    release = probe.text("/etc/nv_tegra_release")
    l4t = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release)
    init = int(said.get("init", -1))
    gpus = tuple(
        CudaGpu(str(g["name"]), str(g["sm"]), int(g["memory_mib"]), str(g.get("bus", "")))
        for g in said.get("devices", ())
    )
    minor = ".".join(probe.interpreter.version.split(".")[:2])
    which = probe.ask("which trtexec", ["/bin/sh", "-c", "command -v trtexec"])
    on_path = which.out.strip() if which.code == 0 else ""
    elsewhere = probe.names("/usr/src/tensorrt/bin/trtexec")
    return Facts(
        system=_first(r'^PRETTY_NAME="?([^"\n]*)"?$', probe.text("/etc/os-release")),
        interpreter=probe.interpreter,
        system_packages=_system_packages(probe),
        managed=bool(probe.names(f"/usr/lib/python{minor}/EXTERNALLY-MANAGED")),
        board=probe.text("/proc/device-tree/model"),
        l4t=f"{l4t[1]}.{l4t[2]}" if l4t else "",
        driver=_first(r"NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)(?:\s|$)", probe.text("/proc/driver/nvidia/version")),
        gpus=gpus,
        cuda=(int(said.get("version", 0)) // 1000, int(said.get("version", 0)) % 1000 // 10),
        cuda_init=init,
        cuda_error=str(said.get("error", "")),
        smi=() if init == 0 else _smi(probe, "name,driver_version,memory.total"),
        smi_buses=_smi(probe, "pci.bus_id") if len(gpus) > 1 else (),
        debs=probe.debs(DEBS),
        libraries=tuple(path for pattern in LIBRARIES for path in probe.names(pattern)),
        hidden=_hidden(probe, modules),
        modules=modules,
        numpy=installed["numpy"][0].version if installed["numpy"] else "",
        trtexec=on_path or (elsewhere[0] if elsewhere else ""),
        trtexec_on_path=bool(on_path),
    )


def _module(probe: Probe, name: str, installed: Mapping[str, list[Distribution]]) -> Module:
    files = probe.module_files(name)
    owners = tuple(d for key, found in installed.items() if re.fullmatch(OWNERS[name], key) for d in found)
    if not files:
        return Module(name, (), owners, "", "")
    answer = probe.ask(f"import {name}", [probe.interpreter.executable, "-c", IMPORT, name])
    said = answer.json()
    return Module(name, files, owners, str(said.get("version", "")), "" if said else answer.why(), said)


def _system_packages(probe: Probe) -> bool:
    if not probe.interpreter.in_venv:
        return True
    settings = probe.text(f"{probe.interpreter.prefix}/pyvenv.cfg").lower()
    return bool(re.search(r"^include-system-site-packages\s*=\s*true\s*$", settings, re.MULTILINE))


def _hidden(probe: Probe, modules: Mapping[str, Module]) -> dict[str, str]:
    """System modules outside the search path."""
    hidden = {}
    for name in SYSTEM_ONLY:
        everywhere = probe.names(f"/usr/lib/python3*/dist-packages/{name}*")
        places = [path for path in everywhere if PurePosixPath(path).name.partition(".")[0] == name]
        files = [PurePosixPath(file) for file in modules[name].files]
        seen = {*files, *(file.parent for file in files)}
        places = [path for path in places if "-info" not in path and PurePosixPath(path) not in seen]
        if places:
            hidden[name] = str(PurePosixPath(places[0]).parent)
    return hidden


def _first(pattern: str, text: str) -> str:
    """The first group of what is found; empty when nothing is."""
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else ""


def _smi(probe: Probe, fields: str) -> tuple[str, ...]:
    answer = probe.ask("nvidia-smi", ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"])
    return tuple(line.strip() for line in answer.out.splitlines() if line.strip()) if answer.code == 0 else ()
