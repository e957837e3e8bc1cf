"""On Ray every recording is answered once and as plainly, through a killed actor, an interruption and a cluster.

A real Ray, in a venv of its own under build/venvs, made once. There the package is not installed: PYTHONPATH has it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cameras
import logoformer
import numpy as np
import pytest
from logoformer.errors import LogoformerError, MachineError
from logoformer.studies.serving.venvs import install_ray, link_package
from logoformer.workflows.label import LabelConfig, PlainLabeller, label_archive
from PIL import Image

CLIPS, FRAMES, SIDE = 320, 8, 160
WHOLE = LabelConfig(face="whole")
ARGUMENTS = {"backend": "onnxruntime", "precision": "fp32", "threads": 1}
OPTIONS = ("--face", "whole", "--backend", "onnxruntime", "--precision", "fp32", "--threads", "1")
WAIT_S = 120  # a guard; no time is asserted


def parents() -> dict[int, int]:
    """{process: its parent} of this machine."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    return found


def descendants(process: int) -> set[int]:
    found, parent_of = {process}, parents()
    while more := {child for child, parent in parent_of.items() if parent in found} - found:
        found |= more
    return found - {process}


def name_of(process: int) -> str:
    """What a process calls itself; one that has ended has no name, and is none of Ray's agents."""
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(process) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def actors_of(process: int) -> list[int]:
    """Processes below one in which an actor of Ray Data lives."""
    return [child for child in descendants(process) if name_of(child).startswith("ray::MapWorker")]


def lines_of(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") - 1 if journal.exists() else 0


def wait_for(happened: Callable[[], object], what: str) -> None:
    give_up = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < give_up, what
        time.sleep(0.02)


def alive(processes: set[int]) -> set[int]:
    """Those that run; a zombie has ended."""
    found = set()
    for process in processes:
        with contextlib.suppress(OSError):
            if (Path("/proc") / str(process) / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                found.add(process)
    return found


class Run:
    """`logoformer label` by the Python that has Ray, in a folder and with temporary files of its own."""

    def __init__(self, python: Path, folder: Path, words: tuple[object, ...]) -> None:
        elsewhere = folder / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        self.temporary = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # short: Ray puts sockets there
        environment = link_package(folder / "packages") | {"TMPDIR": str(self.temporary), "HOME": str(folder)}
        environment["PYTHONPATH"] = os.path.relpath(folder / "packages", elsewhere)  # and Ray's have another directory
        call = [str(python), "-m", "logoformer", "label", *map(str, words), "--json"]
        self.process = subprocess.Popen(
            call, env=environment, cwd=elsewhere, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.seen: set[int] = set()

    def note(self) -> set[int]:
        """Notes every process that it has started up to now."""
        self.seen |= descendants(self.process.pid)
        return self.seen

    def end(self) -> tuple[int, str, str]:
        """(exit code, output, errors) at its end; nothing that it started survives, and no file of Ray."""
        try:
            out, err = self.process.communicate(timeout=WAIT_S)
        finally:
            self.process.kill()
        wait_for(lambda: not alive(self.seen), f"still there: {alive(self.seen)}")
        self.temporary.rmdir()  # empty
        return self.process.returncode, out, err


@pytest.fixture(scope="session")
def ray_python() -> Path:
    try:
        return install_ray()
    except MachineError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """320 folders of frames, one of them damaged."""
    folder = tmp_path_factory.mktemp("archive") / "clips"
    rng = np.random.default_rng(0)
    for clip in range(CLIPS):
        place = folder / f"{clip:03d}"
        place.mkdir(parents=True)
        picture = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        for frame in range(FRAMES):
            Image.fromarray(np.roll(picture, 9 * frame, 0)).save(place / f"{frame}.png", compress_level=1)
    (folder / "100" / "0.png").write_bytes(b"\x89PNG, but no more")
    return folder


@pytest.fixture(scope="module")
def plain(archive: Path, untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file that this process writes without Ray."""
    out = tmp_path_factory.mktemp("plain") / "answers.jsonl"
    with logoformer.load(untrained_bundle, **ARGUMENTS) as runtime:
        report = label_archive(PlainLabeller(runtime, WHOLE), [archive], out)
    assert (report.recordings, report.answers, len(report.damaged)) == (CLIPS, CLIPS - 1, 1)
    return out.read_bytes()


@pytest.fixture
def start(ray_python: Path, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """`start(words)` of `logoformer label`; what is left at the end of a test is killed."""
    runs: list[Run] = []

    def begin(*words: object) -> Run:
        runs.append(Run(ray_python, tmp_path, words))
        return runs[-1]

    yield begin
    for run in runs:
        for process in alive(run.seen | {run.process.pid}):
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        run.process.wait()
        shutil.rmtree(run.temporary, ignore_errors=True)


slow = (pytest.mark.slow, pytest.mark.xdist_group("ray"))


def with_ray(test: Callable) -> Callable:
    for mark in slow:
        test = mark(test)
    return test


TOLD = "warning logoformer.workflows.label.on_ray: Ray: "  # of an actor's death


@with_ray
def test_a_killed_actor_costs_nothing_but_time(start, archive, plain, untrained_bundle, tmp_path):
    out, journal = tmp_path / "a.jsonl", tmp_path / ".a.jsonl.journal"
    run = start(untrained_bundle, archive, "-o", out, *OPTIONS, "--ray", "--actors", "2")
    wait_for(lambda: lines_of(journal) >= 40 or run.process.poll() is not None, "no answers")
    run.note()
    victims = actors_of(run.process.pid)
    os.kill(victims[0], signal.SIGKILL)
    at = lines_of(journal)
    code, text, errors = run.end()
    assert code == 0, errors
    assert len(victims) == 2 and 40 <= at < CLIPS, "killed in the middle"
    assert out.read_bytes() == plain
    report = json.loads(text)
    assert (report["recordings"], report["answers"], len(report["damaged"])) == (CLIPS, CLIPS - 1, 1)
    assert report["ray"]["actors"] == 2 and report["ray"]["processes"] in (2, 3)
    assert report["ray"]["init_s"] > 0 and report["ray"]["start_s"] > 0 and report["seconds"] > 0
    assert not journal.exists()
    assert all(line.startswith(TOLD) for line in errors.splitlines()), errors


@with_ray
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_run_goes_on(start, archive, plain, untrained_bundle, tmp_path, how):
    """On Ray after SIGINT, without it after SIGTERM."""
    out, journal = tmp_path / "a.jsonl", tmp_path / ".a.jsonl.journal"
    words = (untrained_bundle, archive, "-o", out, *OPTIONS)
    run = start(*words, "--ray", "--actors", "2")
    wait_for(lambda: lines_of(journal) >= 10 or run.process.poll() is not None, "no answers")
    run.note()
    # As a terminal does: to all of the group. SIGTERM, as a supervisor does: to the process alone.
    os.killpg(run.process.pid, how) if how == signal.SIGINT else run.process.send_signal(how)
    code, text, errors = run.end()
    assert code != 0 and text == "" and "Traceback" not in errors, errors
    if how == signal.SIGINT:
        *before, last = errors.splitlines()
        assert code == 130 and last.startswith("logoformer label: interrupted"), errors
        assert all(line.startswith(TOLD) for line in before), errors  # where an actor died first
    answered = lines_of(journal)
    assert not out.exists() and 10 <= answered < CLIPS
    if how == signal.SIGINT:
        again = start(*words, "--ray", "--actors", "2")
        code, _, errors = again.end()
        assert code == 0, errors
    else:
        with logoformer.load(untrained_bundle, **ARGUMENTS) as runtime:
            assert label_archive(PlainLabeller(runtime, WHOLE), [archive], out).resumed == answered
    assert out.read_bytes() == plain


@with_ray
def test_a_killed_run_leaves_no_process(start, archive, untrained_bundle, tmp_path):
    journal = tmp_path / ".a.jsonl.journal"
    run = start(untrained_bundle, archive, "-o", tmp_path / "a.jsonl", *OPTIONS, "--ray", "--actors", "2")
    wait_for(lambda: lines_of(journal) >= 40 or run.process.poll() is not None, "no answers")
    assert len(run.note()) >= 5
    run.process.kill()
    run.process.communicate()
    # Ray's own agents look after it once a minute; everything else ends at once.
    wait_for(lambda: all("Agent" in name_of(one) for one in alive(run.seen)), f"still there: {alive(run.seen)}")
    assert 40 <= lines_of(journal) < CLIPS


@pytest.fixture
def cluster(ray_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """HOST:PORT of a Ray of two cores, which takes the token that is in the environment."""
    for name, value in {"MODE": "token", "TOKEN": secrets.token_hex(32)}.items():
        monkeypatch.setenv(f"RAY_AUTH_{name}", value)
    place = tempfile.mkdtemp(prefix="r", dir="/tmp")
    port, log = cameras.free_port(), tmp_path / "cluster.log"
    call = [
        ray_python, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
        "--include-dashboard=false", f"--temp-dir={place}", f"--object-store-memory={128 << 20}",
        "--disable-usage-stats",
    ]  # fmt: skip
    with log.open("wb") as file:
        head = subprocess.Popen(
            list(map(str, call)), env=link_package(tmp_path / "packages"), stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
    seen: set[int] = set()
    try:
        wait_for(lambda: b"--block" in log.read_bytes() or head.poll() is not None, "no cluster")
        assert head.poll() is None, log.read_text()
        yield f"127.0.0.1:{port}"
        seen = descendants(head.pid)
        assert head.poll() is None, "it was left running"
    finally:
        for process in (head.pid, *descendants(head.pid)):  # asked to end, Ray takes half a minute
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        head.wait(WAIT_S)
        shutil.rmtree(place, ignore_errors=True)
    wait_for(lambda: not alive(seen), f"still there: {alive(seen)}")


@with_ray
def test_a_running_cluster_is_used_and_left_running(start, cluster, archive, plain, untrained_bundle, tmp_path):
    out = tmp_path / "a.jsonl"
    code, text, errors = start(untrained_bundle, archive, "-o", out, *OPTIONS, "--ray", cluster).end()
    assert code == 0, errors
    assert out.read_bytes() == plain and json.loads(text)["ray"]["actors"] == 2


@with_ray
def test_what_an_actor_meets_and_a_missing_cluster_end_with_their_own_codes(start, archive, untrained_bundle, tmp_path):
    out = tmp_path / "a.jsonl"
    words = (untrained_bundle, archive, "-o", out, "--face", "whole")
    code, _, errors = start(*words, "--ray", "127.0.0.1:1").end()
    assert code == 6 and "No Ray cluster is at 127.0.0.1:1" in errors and "Traceback" not in errors
    code, _, errors = start(*words, "--backend", "tensorrt", "--ray").end()  # as `load` says it in this process
    with pytest.raises(LogoformerError) as caught:
        logoformer.load(untrained_bundle, backend="tensorrt")
    assert code == caught.value.exit_code and json.loads(errors)["what"] == caught.value.what
    assert not out.exists()
