"""Free memory for a build, and signs of a build that ran out of it.

On a Jetson the GPU takes its memory from the processor's: what is free is `MemAvailable`, which counts what the kernel
would give up. `cudaMemGetInfo` knows only of pages that are free this moment. A container may allow less.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
_FLOOR_SHARE, _FLOOR_MOST = 50, 512 * MIB
# How running out of memory looks; a build that lacks memory often says only that no kernel could be found.
_SHORT = re.compile(
    r"could not find any implementation|insufficient memory|memory (is )?insufficient|out ?of ?memory|std::bad_alloc"
)
# 'Requested size was 8388608 bytes', 'insufficient memory on requested size of 8388608', 'request: 1024MB Available'
_BYTES = re.compile(r"requested size (?:was|of) (\d+)")
_MEGABYTES = re.compile(r"request: (\d+) ?mb")
MORE_MEMORY = (
    "end other programs that use memory or the GPU (on a Jetson the desktop too: sudo systemctl isolate "
    "multi-user.target), lower --workspace-mib, add swap, build again"
)


@dataclass(frozen=True)
class Memory:
    """Free memory of a machine, a container or a GPU.

    Attributes:
        total_bytes: that this process could have at most.
        available_bytes: that it can still get.
        swap_bytes: free swap and zram behind it.
        source: where the number comes from.
    """

    total_bytes: int
    available_bytes: int
    swap_bytes: int
    source: str

    @property
    def floor_bytes(self) -> int:
        """A fiftieth, 512 MiB at most; with less, the kernel soon ends some process."""
        return min(self.total_bytes // _FLOOR_SHARE, _FLOOR_MOST)

    @property
    def short(self) -> bool:
        """Whether memory and swap together have come down to the floor."""
        return self.available_bytes + self.swap_bytes < self.floor_bytes

    def __str__(self) -> str:
        swap = f" and {mib(self.swap_bytes)} of swap" if self.swap_bytes else ""
        return f"{mib(self.available_bytes)}{swap} free of {mib(self.total_bytes)} ({self.source})"


def mib(count: int) -> str:
    """Bytes for people: '512 MiB'."""
    return f"{count // MIB} MiB"


def read_memory(root: Path = Path("/")) -> Memory:
    """Free memory of this machine, or of this container where that has less."""
    lines = (root / "proc/meminfo").read_text().splitlines()
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest.split()}
    total, available = kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024
    machine = Memory(total, available, kib.get("SwapFree", 0) * 1024, "MemAvailable")
    limit, used = (_number(root / "sys/fs/cgroup" / name) for name in ("memory.max", "memory.current"))
    if limit is None or used is None:
        return machine
    # File cache that the kernel would give up counts as used.
    used -= _number(root / "sys/fs/cgroup/memory.stat", r"^inactive_file (\d+)$") or 0
    if limit - used >= available:
        return machine
    return Memory(limit, max(limit - used, 0), 0, "the memory limit of this container")


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes; 0 when it has ended."""
    return 1024 * (_number(Path(f"/proc/{pid}/status"), r"^VmRSS:\s+(\d+) kB") or 0)


def looks_short(lines: Iterable[str]) -> bool:
    """Whether TensorRT's messages are those of a build without enough memory."""
    return _SHORT.search("\n".join(lines).lower()) is not None


def needed_bytes(lines: Iterable[str]) -> int | None:
    """The largest request that TensorRT's messages name, or None."""
    said = "\n".join(lines).lower()
    requests = [int(n) for n in _BYTES.findall(said)] + [int(n) * MIB for n in _MEGABYTES.findall(said)]
    return max(requests, default=None)


def shortage(lines: Iterable[str], before: Memory | None, after: Memory | None) -> str:
    """The cause to name when a build ran out of memory: what was needed, what was free."""
    needed = needed_bytes(lines)
    parts = ["not enough memory: TensorRT then often says only that it found no implementation"]
    parts += [f"it asked for {mib(needed)} at once"] if needed is not None else []
    parts += [f"when it began: {before}"] if before is not None else []
    parts += [f"when it failed: {after}"] if after is not None else []
    return "; ".join(parts)


def _number(path: Path, pattern: str = r"^(\d+)$") -> int | None:
    """The number in a file of the kernel; None where it has none ('max'), or is not there."""
    try:
        found = re.search(pattern, path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None
