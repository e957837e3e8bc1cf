"""The machine's description, from trees of files made here; what is missing is None, never a guess."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import asdict

import pytest
from logoformer.benchmarks.report import fields
from logoformer.benchmarks.sensors.machine import Machine, read_machine, usable_cpus
from logoformer.bundle.files import dump_json, parse_json


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_machine_without_readable_files(tmp_path):
    machine = read_machine(tmp_path / "nowhere", source=tmp_path)
    assert (machine.cpu, machine.memory_gib, machine.governor, machine.max_mhz) == (None, None, None, None)
    assert (machine.board, machine.cpu_quota, machine.load_1min, machine.revision) == (None, None, None, None)
    assert machine.usable_cpus == usable_cpus() >= 1
    assert machine.packages["numpy"]
    assert machine.line().startswith(machine.architecture)
    assert "load" not in machine.line()


def test_a_desktop(tmp_path):
    root = tree(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: Example CPU @ 3 GHz\n\nmodel name\t: other\n",
            "proc/meminfo": "MemTotal:       16777216 kB\nMemFree: 1 kB\n",
            "proc/loadavg": "0.25 0.10 0.05 1/100 4242\n",
            "etc/os-release": 'NAME="X"\nPRETTY_NAME="Example Linux 12"\n',
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3900000\n",
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
        },
    )
    machine = read_machine(root, source=tmp_path)
    assert machine.cpu == "Example CPU @ 3 GHz"
    assert machine.memory_gib == 16.0
    assert machine.load_1min == 0.25
    assert machine.system.startswith("Example Linux 12, kernel ")
    assert (machine.governor, machine.max_mhz, machine.cpu_quota) == ("performance", 3900.0, 1.5)
    assert "load 0.25 at the start" in machine.line()


def test_a_board_names_itself(tmp_path):
    # Unverified shape: a device tree's model ends with a NUL.
    machine = read_machine(tree(tmp_path, {"proc/device-tree/model": "Example Board\0"}), source=tmp_path)
    assert machine.board == "Example Board"
    assert machine.line().startswith("Example Board, ")


@pytest.mark.parametrize(
    ("name", "text", "field"),
    [
        ("proc/meminfo", "MemTotal: many kB\n", "memory_gib"),
        ("proc/meminfo", "MemTotal:\n", "memory_gib"),
        ("proc/loadavg", "\n", "load_1min"),
        ("proc/loadavg", "nan 0 0\n", "load_1min"),
        ("sys/fs/cgroup/cpu.max", "max 100000\n", "cpu_quota"),
        ("sys/fs/cgroup/cpu.max", "100 0\n", "cpu_quota"),
        ("sys/fs/cgroup/cpu.max", "100\n", "cpu_quota"),
        ("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "<unknown>\n", "max_mhz"),
        ("proc/cpuinfo", "model name\nflags: fpu\n", "cpu"),
    ],
)
def test_what_cannot_be_understood_is_none(tmp_path, name, text, field):
    assert getattr(read_machine(tree(tmp_path, {name: text}), source=tmp_path), field) is None


def test_it_survives_json(tmp_path):
    machine = read_machine()
    again = parse_json(dump_json(asdict(machine)), "machine")
    assert fields.read(Machine, again) == machine


@pytest.mark.parametrize(
    "change", [{"usable_cpus": "2"}, {"load_1min": "high"}, {"system": 3}, {"cpu": 3}, {"packages": {"numpy": 2}}]
)
def test_other_types_are_refused(change):
    with pytest.raises(TypeError):
        fields.read(Machine, {**json.loads(dump_json(asdict(read_machine()))), **change})


def test_unknown_and_missing_fields_are_refused():
    data = asdict(read_machine())
    with pytest.raises(TypeError):
        fields.read(Machine, {**data, "gpu": "imagined"})
    with pytest.raises(TypeError):
        fields.read(Machine, {name: value for name, value in data.items() if name != "cpu"})


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_revision_and_its_dirt(tmp_path):
    def git(*words):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True, capture_output=True)

    git("init")
    assert read_machine(source=tmp_path).revision is None  # no commit yet
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    clean = read_machine(source=tmp_path).revision
    assert len(clean) == 12
    (tmp_path / "file").write_text("two")
    assert read_machine(source=tmp_path).revision == clean + "+"
    # Installed below somebody's repository: that revision is not ours.
    (tmp_path / "site-packages").mkdir()
    assert read_machine(source=tmp_path / "site-packages").revision is None
