"""Admission of engine files: one drill for each way in which a file can be wrong.

The runtime of these drills remembers every byte that it was given. A drill passes when it was given none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from logoformer.bundle import GraphEntry
from logoformer.bundle.files import sha256
from logoformer.bundle.sealed import seal
from logoformer.engine.trust import admit as module
from logoformer.engine.trust.admit import Running, admit_engine, choose_engine, mismatches, require_same_model
from logoformer.engine.trust.index import VERIFIED, EngineEntry, add_to_index, read_index, write_engine
from logoformer.engine.trust.store import TrustStore
from logoformer.errors import EXIT_ENVIRONMENT, EXIT_REFUSED, LogoformerError, MachineError, RefusedError

ORIN = Running("tensorrt", "10.3.0", "sm87", "linux-aarch64")
DESKTOP = Running("rtx", "1.7.1.116", "sm86", "linux-x86_64")
PLAN = b"engine code " * 50


class Runtime:
    """Takes TensorRT's place: whatever arrives here would run."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def deserialize(self, plan: bytes) -> None:
        self.given.append(plan)


class Device:
    """An engine folder with one engine that was built here, its trust store, and a runtime."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "face.bundle" / "engines"
        self.trust = TrustStore(tmp_path / "state")
        self.runtime = Runtime()
        self.entry = self.file(PLAN)
        self.trust.record_engine(self.entry.sha256, self.entry.graph_sha256, self.entry.file)

    @property
    def path(self) -> Path:
        return self.folder / self.entry.file

    def file(self, plan: bytes, **changes: Any) -> EngineEntry:
        """Writes an engine and names it in the index, as its builder does; trusts nothing."""
        target = changes.get("target", "tensorrt10.3.0-sm87")
        file, digest = write_engine(self.folder, target, "frame.fp16.b1", plan)
        fields = {
            "graph": "frame", "precision": "fp16", "batch": 1, "target": target, "file": file, "sha256": digest,
            "size": len(plan), "graph_sha256": "0" * 64, "tensorrt_version": "10.3.0",
            "compute_capabilities": ("sm87",),
            "platform": "linux-aarch64", "flags": {"hardware_compatibility": "NONE"}, "cuda": "12.6",
        }  # fmt: skip
        entry = EngineEntry(**{**fields, **changes})
        add_to_index(self.folder, [entry])
        return entry

    def reseal(self, **changes: Any) -> None:
        """Changes the index's first entry as somebody would who knows how to seal one."""
        index = json.loads((self.folder / "index.json").read_bytes())
        index["engines"][0].update(changes)
        (self.folder / "index.json").write_bytes(seal(index))

    def start(self, running: Running = ORIN) -> None:
        """What a session does."""
        entry = read_index(self.folder)[0]
        self.runtime.deserialize(admit_engine(self.folder, entry, running, trust=self.trust))

    def refuses(self, *names: str, running: Running = ORIN) -> RefusedError:
        """The start is refused with exit code 4, names both sides and a next step, and the runtime got nothing."""
        with pytest.raises(LogoformerError) as caught:
            self.start(running)
        error = caught.value
        assert type(error) is RefusedError, error
        assert error.exit_code == EXIT_REFUSED == 4
        assert error.next
        for name in (str(self.folder), *names):
            assert name in str(error), error
        assert self.runtime.given == []
        return error


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_an_engine_that_was_built_here_runs(device):
    device.start()
    assert device.runtime.given == [PLAN]


# ------------------------------------------------------------------------------------------------------------- drills
REBUILD = "--target tensorrt --graph frame --precision fp16"


def test_drill_truncated(device):
    device.path.write_bytes(PLAN[:100])
    device.refuses("100 bytes of 600", "is not the file that the index names", REBUILD)


def test_drill_bit_flipped(device):
    device.path.write_bytes(bytes([PLAN[0] ^ 1]) + PLAN[1:])
    device.refuses("SHA-256 differs", REBUILD)


def test_drill_empty_file(device):
    device.path.write_bytes(b"")
    device.refuses("0 bytes of 600", REBUILD)


def test_drill_longer_than_the_index_says(device):
    device.path.write_bytes(PLAN + b"x")
    device.refuses("601 bytes; at most 600 are read", REBUILD)


def test_drill_missing(device):
    device.path.unlink()
    device.refuses("does not exist", REBUILD)


@pytest.mark.parametrize("kind", ["link", "folder", "fifo", "linked folder"])
def test_drill_no_regular_file(device, tmp_path, kind, impatient):
    aside = tmp_path / "aside"
    if kind == "linked folder":
        device.path.parent.rename(aside)
        device.path.parent.symlink_to(aside)
    else:
        device.path.rename(aside)
        if kind == "link":
            device.path.symlink_to(aside)
        elif kind == "folder":
            device.path.mkdir()
        else:
            os.mkfifo(device.path)
    device.refuses()


def test_drill_index_changed_by_hand(device):
    index = (device.folder / "index.json").read_bytes()
    (device.folder / "index.json").write_bytes(index.replace(b"sm87", b"sm88"))
    device.refuses("does not match its own digest")


def test_drill_untrusted(device):
    """A whole bundle from elsewhere: index and engine agree, and nobody here vouches for it."""
    foreign = b"foreign code " * 50
    device.entry = device.file(foreign)
    error = device.refuses("is not trusted", sha256(foreign), str(device.trust.path))
    assert f"logoformer trust {device.path}" in error.next


def test_drill_engine_and_its_hash_swapped_together(device):
    evil = b"evil code!! " * 50
    device.path.write_bytes(evil)
    device.reseal(sha256=sha256(evil), size=len(evil))
    device.refuses("is not trusted", sha256(evil))


def test_drill_foreign_platform(device):
    device.reseal(platform="linux-x86_64")
    device.refuses("built on linux-x86_64, running here linux-aarch64", REBUILD)


def test_drill_older_engine(device):
    error = device.refuses(
        "built with TensorRT 10.3.0 (an older one), running here 10.16.2.10",
        running=replace(ORIN, tensorrt_version="10.16.2.10"),
    )
    assert error.next == f"logoformer build {device.folder.parent} {REBUILD}"


def test_drill_newer_engine(device):
    device.reseal(tensorrt_version="11.4.1")
    device.refuses("built with TensorRT 11.4.1 (a newer one), running here 10.3.0", REBUILD)


def test_drill_wrong_sm(device):
    device.refuses("built for sm87, running here sm110", REBUILD, running=replace(ORIN, compute_capability="sm110"))


def test_drill_wrong_tensorrt(device):
    device.refuses("built with target tensorrt, running here rtx", "built for sm87, running here sm86", running=DESKTOP)


def test_drill_no_gpu_to_run_on(device):
    device.refuses("running here no GPU that could be found", running=replace(ORIN, compute_capability=None))


def test_drill_an_engine_that_says_no_gpu(device):
    device.reseal(compute_capabilities=[])
    device.refuses("a GPU that was not recorded")


def test_every_mismatch_is_named_at_once(device):
    wrong = mismatches(device.entry, Running("tensorrt", "11.4.1", "sm110", "linux-x86_64"))
    assert len(wrong) == 3


def test_drill_swapped_between_check_and_use(device, monkeypatch):
    """The file changes the moment after it was read: what was checked is what runs."""
    evil = b"evil code!! " * 50
    real = module.read_engine

    def read_then_swap(folder: Any, entry: EngineEntry) -> bytes:
        data = real(folder, entry)
        device.path.write_bytes(evil)
        return data

    monkeypatch.setattr(module, "read_engine", read_then_swap)
    device.start()
    assert device.runtime.given == [PLAN]


def test_drill_swapped_between_the_index_and_the_file(device):
    entry = read_index(device.folder)[0]
    evil = b"evil code!! " * 50
    device.path.write_bytes(evil)
    device.reseal(sha256=sha256(evil))
    with pytest.raises(RefusedError, match="SHA-256 differs"):
        admit_engine(device.folder, entry, ORIN, trust=device.trust)


def test_nothing_is_opened_twice(device, monkeypatch):
    opened: list[str] = []
    real = os.open

    def counting(path: Any, *args: Any, **more: Any) -> int:
        opened.append(os.fspath(path))
        return real(path, *args, **more)

    entry = read_index(device.folder)[0]
    monkeypatch.setattr(os, "open", counting)
    admit_engine(device.folder, entry, ORIN, trust=device.trust)
    assert [name for name in opened if name.endswith(".engine")] == [Path(entry.file).name]


def test_the_advice_for_engines_that_live_elsewhere_says_where(device, tmp_path):
    elsewhere = tmp_path / "my engines"
    device.folder.rename(elsewhere)
    device.folder = elsewhere
    (elsewhere / device.entry.file).write_bytes(b"")
    error = device.refuses()
    assert error.next == f"logoformer build BUNDLE {REBUILD} --engines-dir '{elsewhere}'"


# ---------------------------------------------------------------------------------------------- the user's own store
def test_the_store_is_this_users_own_unless_told(device, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    with pytest.raises(RefusedError, match=str(tmp_path / "xdg" / "logoformer" / "trust.json")):
        admit_engine(device.folder, device.entry, ORIN)
    TrustStore().record_engine(device.entry.sha256, device.entry.graph_sha256, device.entry.file)
    assert admit_engine(device.folder, device.entry, ORIN) == PLAN


# ------------------------------------------------------------------------------- one engine, one graph (rollback)
OTHER_GRAPH = "1" * 64


def test_drill_an_engine_of_an_older_model_under_a_newer_graph(device):
    """Both were built here. Who may write engines/ seals an index that names the old engine for the new graph."""
    device.reseal(graph_sha256=OTHER_GRAPH)
    error = device.refuses("not trusted as an engine of the graph", OTHER_GRAPH[:12], "0" * 12)
    assert error.next.endswith("logoformer build BUNDLE")


def test_drill_an_engine_that_an_older_version_recorded_without_its_graph(device):
    device.trust.record_engine(device.entry.sha256, "", device.entry.file)
    error = device.refuses("without the graph")
    assert "did not keep the graph" in error.cause


# ------------------------------------------------------------------------------------------- hardware compatibility
@pytest.mark.parametrize("sm", ["sm87", "sm101", "sm110"])
def test_no_engine_for_ampere_and_newer_runs_on_a_jetson(device, sm):
    entry = replace(device.entry, flags={"hardware_compatibility": "AMPERE_PLUS"}, compute_capabilities=("sm86",))
    assert mismatches(entry, replace(ORIN, compute_capability=sm)) == [f"built for sm86, running here {sm}"]


@pytest.mark.parametrize(("sm", "fits"), [("sm75", False), ("sm80", True), ("sm89", True), ("sm120", True)])
def test_an_engine_for_ampere_and_newer_runs_on_those(device, sm, fits):
    entry = replace(device.entry, flags={"hardware_compatibility": "AMPERE_PLUS"}, compute_capabilities=("sm86",))
    assert (mismatches(entry, replace(ORIN, compute_capability=sm)) == []) is fits


# ----------------------------------------------------------------------------------------------------------- choosing
def graph(**changes: Any) -> GraphEntry:
    fields: dict[str, Any] = {
        "graph": "frame", "precision": "fp16", "batch": 1, "file": "graphs/x", "sha256": "0" * 64, "size": 1,
        "opset": 20, "inputs": (), "outputs": (), "macs": {},
    }  # fmt: skip
    return GraphEntry(**{**fields, **changes})


def entry(**changes: Any) -> EngineEntry:
    fields: dict[str, Any] = {
        "graph": "frame", "precision": "fp16", "batch": 1, "target": "rtx1.7.1-sm86", "file": "rtx1.7.1-sm86/a.engine",
        "sha256": "1" * 64, "size": 1, "graph_sha256": "0" * 64, "tensorrt_version": "1.7.1.116",
        "compute_capabilities": ("sm86",), "platform": "linux-x86_64", "flags": {},
    }  # fmt: skip
    return EngineEntry(**{**fields, **changes})


def test_the_most_special_engine_is_chosen_and_a_verified_one_before_it():
    everyone = entry(file="all/a.engine", compute_capabilities=("sm75", "sm86", "sm89"))
    special = entry()
    others = [entry(graph="clip"), entry(precision="fp32"), entry(batch=2), entry(compute_capabilities=("sm89",))]
    assert choose_engine([everyone, *others, special], graph(), DESKTOP) == special
    verified = replace(everyone, verdict="verified")
    assert choose_engine([special, verified], graph(), DESKTOP) == verified


NANO = replace(ORIN, gpu="Orin, 8 multiprocessors", power_mode="MAXN_SUPER (2)")
AGX = replace(ORIN, gpu="Orin, 16 multiprocessors", power_mode="MAXN (0)")


def engine_of(here: Running, **changes: Any) -> EngineEntry:
    built = {"target": "tensorrt10.3.0-sm87", "tensorrt_version": "10.3.0", "compute_capabilities": ("sm87",)}
    built |= {"platform": "linux-aarch64", "gpu": here.gpu, "power_mode": here.power_mode}
    return entry(**built, **changes)


def test_the_engine_of_this_model_is_chosen_and_one_of_an_unknown_model_before_a_foreign_one():
    foreign, unknown, own = engine_of(AGX, file="a/a.engine"), engine_of(ORIN, file="a/b.engine"), engine_of(NANO)
    assert choose_engine([foreign, unknown, own], graph(), NANO) == own
    assert choose_engine([foreign, unknown], graph(), NANO) == unknown
    assert choose_engine([foreign], graph(), NANO) == foreign
    assert len({found.key for found in (foreign, unknown, own)}) == 3  # they stand side by side in the index


def test_an_engine_of_another_model_is_taken_aloud_and_refused_where_that_is_asked():
    with pytest.warns(RuntimeWarning) as caught:
        require_same_model([engine_of(AGX), engine_of(AGX, graph="clip")], NANO, "my face.bundle/engines", strict=False)
    (said,) = [str(item.message) for item in caught]
    assert "built on Orin, 16 multiprocessors, running here on Orin, 8 multiprocessors" in said
    assert "built on power mode MAXN (0), running here on power mode MAXN_SUPER (2)" in said
    assert "Next: logoformer build 'my face.bundle' --target tensorrt --precision fp16" in said
    with pytest.raises(RefusedError) as refused:
        require_same_model([engine_of(AGX)], NANO, "my face.bundle/engines", strict=True)
    assert refused.value.exit_code == EXIT_REFUSED and refused.value.next.startswith("logoformer build")


@pytest.mark.parametrize(
    ("built", "here"), [(NANO, NANO), (ORIN, NANO), (AGX, ORIN), (replace(NANO, power_mode=""), NANO)]
)
def test_what_is_not_known_is_no_difference(built, here, recwarn):
    require_same_model([engine_of(built)], here, "face.bundle/engines", strict=True)
    assert not recwarn.list


def test_an_engine_for_several_kinds_of_gpu_belongs_to_no_model(recwarn):
    found = engine_of(AGX, flags={"hardware_compatibility": "AMPERE_PLUS"})
    require_same_model([found], NANO, "face.bundle/engines", strict=True)
    assert not recwarn.list


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"tensorrt_version": "1.6.0"}, "1.6.0 (an older one), running here 1.7.1.116"),
    ({"tensorrt_version": "1.10.0"}, "1.10.0 (a newer one), running here 1.7.1.116"),
    ({"compute_capabilities": ("sm75", "sm89")}, "built for sm75+sm89, running here sm86"),
    ({"graph_sha256": "2" * 64}, "stale"),
    ({"platform": "linux-aarch64"}, "built on linux-aarch64, running here linux-x86_64"),
    ({"target": "tensorrt10.3.0-sm86"}, "built with target tensorrt, running here rtx"),
    ({"verdict": "failed"}, "failed logoformer verify"),
]


@pytest.mark.parametrize(("change", "why"), WRONG)
def test_why_none_fits(change, why):
    with pytest.raises(MachineError) as caught:
        choose_engine([entry(**change)], graph(), DESKTOP, folder="my face.bundle/engines")
    assert caught.value.exit_code == EXIT_ENVIRONMENT
    assert why in caught.value.cause
    assert "frame fp16 b1 for TensorRT-RTX 1.7.1.116 on sm86, linux-x86_64" in caught.value.what
    assert caught.value.next == "logoformer build 'my face.bundle' --target rtx --graph frame --precision fp16"


def test_what_was_never_built_and_what_stands_in_for_it_are_told_apart():
    with pytest.raises(MachineError) as caught:
        choose_engine([entry(graph="clip")], graph(), DESKTOP)
    assert caught.value.cause == "none was built"
    stands_in = entry(fallback={"precision": "int8", "reason": "no kernel for dequantize"})
    with pytest.raises(MachineError) as caught:
        choose_engine([stands_in], graph(precision="int8"), DESKTOP)
    assert "replaces int8, which was not built: no kernel for dequantize" in caught.value.cause


def test_the_index_keeps_what_the_builder_recorded(device):
    found = read_index(device.folder)[0]
    assert found == device.entry
    assert (found.cuda, found.platform, found.compute_capabilities) == ("12.6", "linux-aarch64", ("sm87",))


def test_drills_are_as_many_as_they_are_said_to_be():
    drills = [name for name, item in globals().items() if name.startswith("test_drill_") and isinstance(item, Callable)]
    assert len(drills) >= 17


def test_a_verified_engine_of_another_model_comes_before_an_unverified_one_of_this():
    foreign, own = engine_of(AGX, file="a/b.engine", verdict=VERIFIED), engine_of(NANO, file="a/a.engine")
    assert choose_engine([own, foreign], graph(), NANO) == foreign
