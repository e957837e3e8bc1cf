"""What is left for a build, read from files made for it, and how a shortage is recognised and told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from logoformer.engine.machine.memory import (
    MIB,
    Memory,
    looks_short,
    needed_bytes,
    read_memory,
    resident_bytes,
    shortage,
)

# The fields of /proc/meminfo that count, as the kernel documents them; an 8 GB board with zram. Numbers made up.
MEMINFO = """MemTotal:        7802716 kB
MemFree:          204800 kB
MemAvailable:    3145728 kB
Buffers:           20480 kB
SwapTotal:       3901356 kB
SwapFree:        2097152 kB
HugePages_Total:       0
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    return tmp_path


def limit(root: Path, most: str, used: int, inactive: int | None = 0) -> None:
    folder = root / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    if inactive is not None:
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\nactive_file 3\n")


def test_available_counts_what_the_kernel_would_give_up(root):
    memory = read_memory(root)
    assert memory == Memory(7802716 * 1024, 3072 * MIB, 2048 * MIB, "MemAvailable")
    assert str(memory) == "3072 MiB and 2048 MiB of swap free of 7619 MiB (MemAvailable)"


def test_this_machine_has_memory():
    memory = read_memory()
    assert 0 < memory.available_bytes <= memory.total_bytes
    assert not memory.short


def test_a_container_may_allow_less(root):
    limit(root, str(2048 * MIB), 1500 * MIB, 500 * MIB)
    assert read_memory(root) == Memory(2048 * MIB, 1048 * MIB, 0, "the memory limit of this container")


@pytest.mark.parametrize(("most", "used", "inactive"), [("max", 1, 0), ("8589934592000", 1, None), ("", 1, 0)])
def test_a_container_without_a_limit_is_the_machine(root, most, used, inactive):
    limit(root, most, used, inactive)
    assert read_memory(root).source == "MemAvailable"


def test_a_container_over_its_limit_has_nothing_left(root):
    limit(root, str(100 * MIB), 200 * MIB, None)
    memory = read_memory(root)
    assert (memory.available_bytes, memory.short) == (0, True)


@pytest.mark.parametrize(
    ("available", "swap", "short"), [(200, 0, False), (100, 0, True), (100, 100, False), (0, 0, True)]
)
def test_when_memory_is_short(available, swap, short):
    memory = Memory(7619 * MIB, available * MIB, swap * MIB, "MemAvailable")
    assert memory.floor_bytes == 7619 * MIB // 50
    assert memory.short is short


def test_on_a_large_machine_the_floor_stays_low():
    assert Memory(512 << 30, 0, 0, "MemAvailable").floor_bytes == 512 * MIB


def test_what_a_process_holds():
    assert resident_bytes(os.getpid()) > MIB
    assert resident_bytes(2**22 + 1) == 0


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ("Skipping tactic 0x0 due to insufficient memory on requested size of 8388608 detected for tactic", 8388608),
        ("Error Code 2: OutOfMemory (Requested size was 123 bytes.)", 123),
        ("Tactic Device request: 1024MB Available: 500MB. Device memory is insufficient to use tactic.", 1024 * MIB),
        ("Could not find any implementation for node {ForeignNode[a...b]}.", None),
        ("terminate called after throwing an instance of 'std::bad_alloc'", None),
    ],
)
def test_words_of_a_shortage(line, needed):
    assert looks_short(["warning: something else", f"error: {line}"])
    assert needed_bytes([line]) == needed


def test_other_words_are_none():
    assert not looks_short(["error: Could not infer output types for operation: dequantize"])


def test_the_largest_request_is_told_with_what_was_free():
    lines = ["OutOfMemory (Requested size was 1048576 bytes.)", "OutOfMemory (Requested size was 4194304 bytes.)"]
    before, after = Memory(8 * MIB, 5 * MIB, 0, "MemAvailable"), Memory(8 * MIB, MIB, 0, "MemAvailable")
    said = shortage(lines, before, after)
    assert "it asked for 4 MiB at once" in said
    assert said.endswith(
        "began: 5 MiB free of 8 MiB (MemAvailable); when it failed: 1 MiB free of 8 MiB (MemAvailable)"
    )
