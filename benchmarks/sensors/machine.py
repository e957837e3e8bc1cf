"""The machine that ran a benchmark: hardware, state and versions.

Everything is read from files that any user may read; what cannot be read is None, never a guess. Nothing is imported
to learn its version.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .cpu import finite, text_of

PACKAGES = (
    "numpy", "Pillow", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "torch", "cuda-bindings", "pycuda",
    "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13",
)  # fmt: skip
NAME = r'PRETTY_NAME="?([^"\n]*)'  # of the distribution, in os-release


@dataclass(frozen=True)
class Machine:
    """One machine at one moment.

    Attributes:
        cpu: the model's name.
        architecture: 'x86_64', 'aarch64', ...
        logical_cpus: of the machine.
        usable_cpus: that this process may run on (affinity).
        cpu_quota: CPUs that the control group grants, None without a limit or when it is not readable.
        memory_gib: of the machine.
        system: the distribution's name and the kernel's version.
        board: what the device tree calls the board (Jetson), None elsewhere.
        governor: frequency governor of CPU 0, None when it is not readable (most virtual machines).
        max_mhz: highest frequency of CPU 0, None when it is not readable.
        load_1min: load average over one minute when this was read.
        python: its version.
        packages: versions of the packages that matter, those installed only.
        revision: git revision of this program, '+' behind it when files were changed; None when installed.
    """

    cpu: str | None
    architecture: str
    logical_cpus: int | None
    usable_cpus: int
    cpu_quota: float | None
    memory_gib: float | None
    system: str
    board: str | None
    governor: str | None
    max_mhz: float | None
    load_1min: float | None
    python: str
    packages: dict[str, str]
    revision: str | None

    def line(self) -> str:
        """One line for the head of a table."""
        name = self.board or self.cpu or self.architecture
        load = "" if self.load_1min is None else f", load {self.load_1min:.2f} at the start"
        return f"{name}, {self.usable_cpus} CPUs usable, {self.system}{load}"


def read_machine(root: Path = Path("/"), source: Path | None = None) -> Machine:
    """Reads this machine.

    Args:
        root: where `proc`, `sys` and `etc` stand.
        source: the folder of this program's source, for its git revision; by default the folder of the package.
    """
    cpu0 = root / "sys/devices/system/cpu/cpu0/cpufreq"
    max_khz = finite(text_of(cpu0 / "cpuinfo_max_freq"))
    memory_kib = finite(_found(root / "proc/meminfo", r"MemTotal:[ \t]*(\S+)"))
    keys = ("model name", "Hardware", "Model")
    return Machine(
        cpu=next(filter(None, (_found(root / "proc/cpuinfo", rf"{key}[ \t]*:[ \t]*(\S.*)") for key in keys)), None),
        architecture=platform.machine(),
        logical_cpus=os.cpu_count(),
        usable_cpus=usable_cpus(),
        cpu_quota=_quota(text_of(root / "sys/fs/cgroup/cpu.max")),
        memory_gib=None if memory_kib is None else round(memory_kib / (1 << 20), 1),
        system=f"{_found(root / 'etc/os-release', NAME) or platform.system()}, kernel {platform.release()}",
        board=text_of(root / "proc/device-tree/model"),
        governor=text_of(cpu0 / "scaling_governor"),
        max_mhz=None if max_khz is None else max_khz / 1e3,
        load_1min=finite((text_of(root / "proc/loadavg") or "").split(" ")[0]),
        python=platform.python_version(),
        packages=installed_versions(PACKAGES),
        revision=_revision(source or Path(__file__).resolve().parents[2]),
    )


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _found(path: Path, pattern: str) -> str | None:
    """The group of a pattern that begins a line of a file."""
    found = re.search(f"^{pattern}", text_of(path) or "", re.MULTILINE)
    return found[1].strip() if found else None


def _quota(text: str | None) -> float | None:
    """The control group's `cpu.max`: '<quota> <period>' in microseconds, or 'max <period>'."""
    words = (text or "").split()
    quota, period = map(finite, words) if len(words) == 2 else (None, None)
    return quota / period if quota and period else None


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions by name, of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _revision(source: Path) -> str | None:
    # A package installed below somebody else's repository must not report that repository's revision.
    if not (source / ".git").exists():
        return None
    revision = _git(source, "rev-parse", "--short=12", "HEAD")
    if not revision:
        return None
    return revision + ("+" if _git(source, "status", "--porcelain", "--untracked-files=no") else "")


def _git(source: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(source), *words], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
