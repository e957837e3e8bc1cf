"""Writing a bundle: a reader sees the old one or the new one, whole, whatever ends the writer and whenever."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from logoformer.bundle import SWEEP_AFTER_S, Bundle, BundleWriter, replace_manifest
from logoformer.bundle import writer as module
from logoformer.bundle.card import card_text
from logoformer.bundle.sealed import only_writer
from logoformer.errors import MachineError, RefusedError, UsageError


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)


def age_all(bundle: Path, seconds: float = 2 * SWEEP_AFTER_S) -> None:
    for path in bundle.rglob("*"):
        age(path, seconds)


# ----------------------------------------------------------------------------------------------------------- replacing
def test_a_new_bundle_takes_the_place_of_the_old_one(small, write_bundle, read_everything):
    new = write_bundle(small, "two", labels=["calm", "glad", "grim"])
    assert Bundle(small).manifest == new.manifest
    assert Bundle(small).labels == ("calm", "glad", "grim")
    assert read_everything(small)[0] == b"clip fp32 two " * 40


def test_who_opened_the_old_one_reads_it_to_the_end(small, write_bundle):
    old = Bundle(small)
    age_all(small)  # made long ago, opened just now
    write_bundle(small, "two")
    assert [old.read_graph(entry)[-4:] for entry in old.graphs] == [b"one "] * 6
    assert len(old.golden().clips) == 4


def test_what_no_index_has_named_for_an_hour_is_swept(small, write_bundle, contents):
    old = set(contents(small))
    age_all(small)
    write_bundle(small, "two")  # the old files' hour begins
    write_bundle(small, "three")
    assert old <= set(contents(small))
    for name in old - {"manifest.json"}:
        age(small / name, SWEEP_AFTER_S - 60)
    write_bundle(small, "four")
    assert old <= set(contents(small))
    for name in old - {"manifest.json"}:
        age(small / name, SWEEP_AFTER_S + 60)
    write_bundle(small, "five")
    assert set(contents(small)) & old == {"CARD.md", "manifest.json"}


def test_what_the_index_names_stays_however_old_and_whoever_wrote_it(small, read_everything):
    old = Bundle(small)
    writer = BundleWriter(small)
    entry = old.graphs[0]
    again = writer.add_graph(
        b"new", graph="clip", precision="fp32", batch=1, opset=20, inputs=entry.inputs, outputs=entry.outputs, macs={}
    )
    age_all(small, 1e8)
    writer.commit({**old.manifest, "graphs": [again, *old.manifest["graphs"][1:]]})
    assert [data[:5] for data in read_everything(small)[:3]] == [b"new", b"frame", b"tempo"]
    assert len(read_everything(small)) == 7


def test_a_calibration_record_lives_as_long_as_an_index_names_it(small, contents):
    old = Bundle(small)
    writer = BundleWriter(small)
    stored = writer.add_calibration({"count": 64})
    with_record = {**old.manifest["precisions"], "int8": {"verdict": "insufficient clips", "calibration": stored}}
    age_all(small, 1e8)
    bundle = writer.commit({**old.manifest, "precisions": with_record}, replacing=old)
    assert bundle.calibration() == {"count": 64}
    with pytest.raises(MachineError, match="changed by another process"):
        writer.commit(old.manifest, replacing=old)  # made from an index that no longer stands
    writer.commit(old.manifest, replacing=bundle)
    assert stored["file"] in contents(small)  # for those who opened the last one
    age_all(small)
    writer.commit(old.manifest)
    assert stored["file"] not in contents(small)


def test_leftovers_of_a_killed_writer_go_and_nothing_else_does(small, tmp_path, write_bundle, contents):
    for name in (".part-0011", "graphs/.part-2233.onnx", "graphs/clip.fp32.b1.01234567.onnx", "golden/.part-4.npz"):
        (small / name).write_bytes(b"x")
    (tmp_path / "victim").write_bytes(b"x")
    (small / "golden" / "link").symlink_to(tmp_path / "victim")
    (small / "graphs" / "folder").mkdir()
    (small / "engines").mkdir()
    (small / "engines" / "index.json").write_bytes(b"x")
    good = set(contents(Bundle(small).path))
    write_bundle(small, "one")
    assert set(contents(small)) == good  # too young
    age_all(small)
    age(tmp_path / "victim", 1e6)
    write_bundle(small, "one")
    left = set(contents(small))
    gone = {".part-0011", "graphs/.part-2233.onnx", "graphs/clip.fp32.b1.01234567.onnx", "golden/.part-4.npz"}
    assert good - left == gone  # a name that is not ours is somebody's file, however old
    assert (tmp_path / "victim").read_bytes() == b"x"
    assert (small / "graphs" / "folder").is_dir()


def test_what_cannot_be_swept_is_no_failure(small, write_bundle, monkeypatch, read_everything):
    age_all(small)
    write_bundle(small, "two")
    age_all(small)

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if not path.name.startswith(".part-"):
            raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "unlink", refuse)
    write_bundle(small, "three")
    assert read_everything(small)[0].endswith(b"three ")


# ------------------------------------------------------------------------------------------------------------- refusing
def test_a_folder_of_something_else_is_left_alone(tmp_path, contents):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"thesis\.tex") as caught:
        BundleWriter(home)
    assert caught.value.next
    assert contents(home) == {"thesis.tex": b"x"}


@pytest.mark.parametrize("name", ["graphs", "golden", "manifest.json", ".lock", ".part-1"])
def test_a_link_inside_is_refused_before_anything_is_written_or_swept_below_it(tmp_path, name, contents):
    home, target = tmp_path / "home", tmp_path / "face.bundle"
    home.mkdir()
    (home / "thesis.tex").write_bytes(b"x")
    age_all(home)
    target.mkdir()
    (target / name).symlink_to(home)
    with pytest.raises(UsageError, match=name):
        BundleWriter(target)
    assert contents(home) == {"thesis.tex": b"x"}


def test_a_place_that_cannot_be_a_folder_is_a_machine_error(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "file", tmp_path / "file" / "x.bundle", tmp_path / ("x" * 300)):
        with pytest.raises(MachineError) as caught:
            BundleWriter(path)
        assert caught.value.next


def test_a_disk_that_fills_up_leaves_no_folder_without_an_index(small, tmp_path, monkeypatch):
    entry = Bundle(small).graphs[0]
    fields = {
        "precision": "fp32",
        "batch": 1,
        "opset": 20,
        "inputs": entry.inputs,
        "outputs": entry.outputs,
        "macs": {},
    }

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def write() -> None:
        with BundleWriter(tmp_path / "new" / "b") as writer:
            writer.add_graph(b"one", graph="clip", **fields)
            monkeypatch.setattr(os, "fsync", full)
            writer.add_graph(b"two", graph="frame", **fields)

    with pytest.raises(MachineError, match="No space left"):
        write()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, RefusedError("x")])
@pytest.mark.parametrize("moment", ["nothing was added", "a file was added", "the index is written"])
def test_an_error_of_any_kind_leaves_no_folder_without_an_index(small, tmp_path, monkeypatch, error, moment):
    target = tmp_path / "b"

    def fail(*_: object) -> None:
        raise error

    def write() -> None:
        with BundleWriter(target) as writer:
            assert not target.exists()  # what is killed before the first file leaves nothing either
            if moment == "nothing was added":
                fail()
            writer.add_calibration({"x": 1})
            if moment == "a file was added":
                fail()
            monkeypatch.setattr(module, "_replace_index", fail)
            writer.commit(Bundle(small).manifest)

    with pytest.raises(error if isinstance(error, type) else type(error)):
        write()
    assert not target.exists()


def test_an_error_takes_nothing_from_a_folder_that_was_there(small, tmp_path, contents):
    before = contents(small)
    (tmp_path / "empty").mkdir()

    def write(target: Path) -> None:
        with BundleWriter(target) as writer:
            writer.add_calibration({"x": 1})
            raise KeyboardInterrupt

    for target in (small, tmp_path / "empty"):
        with pytest.raises(KeyboardInterrupt):
            write(target)
    assert contents(small).items() >= before.items()
    assert not list((tmp_path / "empty").iterdir())


def test_a_disk_that_is_too_small_is_said_before_work_is_done(small, tmp_path, contents):
    before = contents(small)
    for place in (small, tmp_path / "new"):
        with pytest.raises(MachineError, match="MiB left; the bundle may need") as caught:
            BundleWriter(place, 1 << 60)
        assert caught.value.cause == "the disk is full"
    assert contents(small) == before and not (tmp_path / "new").exists()


def test_an_index_that_would_not_open_is_not_written(small, write_bundle, contents):
    before = contents(small)
    with pytest.raises(RefusedError, match="lacks or garbles"):
        write_bundle(small, "one", labels=["calm"])
    with pytest.raises(RefusedError, match="at most 4194304"):
        write_bundle(small, "one", provenance={"log": "x" * (5 << 20)})
    assert contents(small) == before


def test_a_second_writer_is_told_to_wait_and_writes_no_index(small, write_bundle):
    before = (small / "manifest.json").read_bytes()
    with only_writer(small), pytest.raises(MachineError, match="another process"):
        write_bundle(small, "two")
    assert (small / "manifest.json").read_bytes() == before
    write_bundle(small, "two")


def test_the_index_alone_can_be_replaced_unless_somebody_else_did(small, contents):
    first, second = Bundle(small), Bundle(small)
    before = contents(small)
    noted = replace_manifest(first, {**first.manifest, "provenance": {"note": "well"}})
    assert noted.manifest["provenance"] == {"note": "well"}
    changed = {name for name, data in contents(small).items() if before.get(name) != data}
    assert changed == {"manifest.json"}
    with pytest.raises(MachineError, match="changed by another process") as caught:
        replace_manifest(second, {**second.manifest, "provenance": {"note": "ill"}})
    assert caught.value.next
    assert Bundle(small).manifest == noted.manifest


def test_the_time_of_day_of_the_check_is_that_of_the_lock(small, monkeypatch):
    # Whoever gets the lock second sees the first one's index, or both would win.
    bundle = Bundle(small)
    real = module.only_writer

    def late(path: Path):
        (small / "manifest.json").write_bytes(b"changed while it waited")
        return real(path)

    monkeypatch.setattr(module, "only_writer", late)
    with pytest.raises(RefusedError):
        replace_manifest(bundle, bundle.manifest)


# ---------------------------------------------------------------------------------------------------- at every moment
# Runs a whole export of a bundle in a child that something happens to at its k-th call of the operating system, for
# k = 1, 2, ... until nothing is left to happen; says after each what stands there.
EVERY_MOMENT = """
import errno, json, os, shutil, signal, sys
from pathlib import Path
from logoformer.bundle import Bundle, BundleWriter, GraphEntry
from logoformer.errors import LogoformerError

origin, what = Path(sys.argv[1]), sys.argv[2]
old = Bundle(origin)
golden = old.golden()
target = origin.with_name("target.bundle")
CALLS = {"open", "os.rename", "os.mkdir", "os.utime", "os.remove", "fcntl.flock"}


def export():
    writer = BundleWriter(target)
    graphs = [
        writer.add_graph(
            b"new " * 5000, graph=g.graph, precision=g.precision, batch=1, opset=20,
            inputs=g.inputs, outputs=g.outputs, macs=g.macs,
        )
        for g in old.graphs
    ]
    writer.commit({**old.manifest, "graphs": graphs, "golden": writer.add_golden(golden, "new")})


def child(k):
    left = k

    def hook(event, arguments):
        nonlocal left
        if event not in CALLS:
            return
        left -= 1
        if left == 0 and what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if left == 0 and event != "os.remove":
            raise OSError(errno.ENOSPC, "No space left on device")

    sys.addaudithook(hook)
    try:
        export()
    except LogoformerError as error:
        os._exit(error.exit_code)
    except BaseException as error:
        os.write(2, repr(error).encode())
        os._exit(99)
    os._exit(0 if left > 0 else 1)


def state():
    bundle = Bundle(target)
    new = {bundle.read_graph(entry).startswith(b"new ") for entry in bundle.graphs}
    assert len(new) == 1 and len(bundle.golden().clips) == 4
    return "new" if new == {True} else "old"


for k in range(1, 1000):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(origin, target)
    pid = os.fork()
    if pid == 0:
        child(k)
    status = os.waitpid(pid, 0)[1]
    code = os.waitstatus_to_exitcode(status)
    left = sum(p.name.startswith(".part-") for p in target.rglob("*"))
    after = following = state()
    if k % 8 == 0:
        export()
        following = state()
    print(json.dumps({"code": code, "state": after, "parts": left, "next": following}))
    if code == 0:
        break
"""


def at_every_moment(bundle: Path, what: str) -> list[dict[str, object]]:
    words = [sys.executable, "-W", "ignore", "-c", EVERY_MOMENT, str(bundle), what]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def aged(small: Path, write_bundle: Callable[..., Bundle]) -> Path:
    """A bundle that an export will also sweep in."""
    (small / "graphs" / "clip.fp32.b1.01234567.onnx").write_bytes(b"x")
    age_all(small)
    return small


def test_a_kill_at_any_moment_leaves_the_old_bundle_or_the_new_one(aged):
    seen = at_every_moment(aged, "kill")
    assert [one["code"] for one in seen] == [-9] * (len(seen) - 1) + [0]
    assert len(seen) > 40
    states = [one["state"] for one in seen]
    turn = states.index("new")
    assert states == ["old"] * turn + ["new"] * (len(states) - turn)
    assert 30 < turn < len(states) - 1  # killed before and after the index was replaced
    assert all(one["parts"] <= 1 for one in seen)
    assert any(one["parts"] for one in seen)
    assert {one["next"] for one in seen[7::8]} == {"new"}  # an export afterwards goes well


def test_a_disk_that_is_full_at_any_moment_leaves_the_old_bundle_or_the_new_one(aged):
    seen = at_every_moment(aged, "full")
    assert {one["code"] for one in seen} == {0, 1, 6}  # 1: what failed was not needed, and the export went well
    assert {one["state"] for one in seen if one["code"] != 6} == {"new"}
    failed = [one["state"] for one in seen if one["code"] == 6]
    assert len(failed) > 30
    # The last call that can fail comes after the rename: the index's name is there, but not yet for sure on the disk.
    assert failed == ["old"] * (len(failed) - 1) + ["new"]
    assert [one["parts"] for one in seen] == [0] * len(seen)
    assert {one["next"] for one in seen[7::8]} == {"new"}


def test_readers_see_whole_bundles_while_another_process_writes(small, tmp_path):
    script = (
        "import sys\nfrom logoformer.bundle import Bundle, BundleWriter\nold = Bundle(sys.argv[1])\n"
        "for turn in range(100_000):\n"
        "    writer = BundleWriter(sys.argv[1])\n"
        "    graphs = [writer.add_graph(b'%d ' % (turn % 7) * 3000, graph=g.graph, precision=g.precision, batch=1,\n"
        "              opset=20, inputs=g.inputs, outputs=g.outputs, macs=g.macs) for g in old.graphs]\n"
        "    writer.commit({**old.manifest, 'graphs': graphs})\n"
        "    print(turn, flush=True)\n"
    )
    copy = Path(shutil.copytree(small, tmp_path / "copy"))
    seen = set()
    with subprocess.Popen([sys.executable, "-c", script, str(copy)], stdout=subprocess.PIPE, text=True) as process:
        while len(seen) < 8:
            bundle = Bundle(copy)
            turns = {bundle.read_graph(entry).partition(b" ")[0] for entry in bundle.graphs}
            assert len(turns) == 1 or turns == {b"clip", b"frame", b"temporal"}
            seen |= turns
        process.kill()
    assert len({bundle.read_graph(entry) for entry in Bundle(copy).graphs}) == 1


# ----------------------------------------------------------------------------------------------------------------- card
def test_the_card_follows_the_index(write_bundle, tmp_path):
    bundle = write_bundle(tmp_path / "b", "salt")
    card = bundle.path / "CARD.md"
    assert card.read_text(encoding="utf-8") == card_text(bundle.manifest) and "said so" in card.read_text(
        encoding="utf-8"
    )
    precisions = {**bundle.manifest["precisions"], "fp16": {"verdict": "reject", "reason": "planted"}}
    again = replace_manifest(bundle, {**bundle.manifest, "precisions": precisions})
    assert card.read_text(encoding="utf-8") == card_text(again.manifest) and "planted" in card.read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("kind", ["edited", "link"])
def test_a_card_of_the_users_is_kept(write_bundle, tmp_path, kind):
    bundle = write_bundle(tmp_path / "b", "salt")
    card = bundle.path / "CARD.md"
    if kind == "edited":
        card.write_text(card.read_text(encoding="utf-8") + "\nLicence: ours.\n", encoding="utf-8")
    else:
        card.rename(tmp_path / "mine.md")
        card.symlink_to(tmp_path / "mine.md")
    before = card.read_bytes()
    replace_manifest(bundle, {**bundle.manifest, "provenance": {"salt": "another"}})
    assert card.read_bytes() == before and card.is_symlink() == (kind == "link")


def test_a_card_that_cannot_be_written_fails_nothing(write_bundle, tmp_path, monkeypatch):
    bundle = write_bundle(tmp_path / "b", "salt")
    real = module.write_atomic

    def full(target, data):
        if str(target).endswith("CARD.md"):
            raise MachineError("The disk is full.")
        real(target, data)

    monkeypatch.setattr(module, "write_atomic", full)
    again = replace_manifest(bundle, {**bundle.manifest, "provenance": {"salt": "another"}})
    assert Bundle(bundle.path).manifest["digest"] == again.manifest["digest"]


def test_an_export_over_a_bundle_with_a_card_goes_on(write_bundle, tmp_path):
    write_bundle(tmp_path / "b", "one")
    assert "two" in write_bundle(tmp_path / "b", "two").manifest["provenance"].values()
