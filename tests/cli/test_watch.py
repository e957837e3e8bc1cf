"""The verb `watch`: lines, events, the page, refusals, and every way to end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from logoformer.cli import main as cli
from logoformer.engine import Runtime
from logoformer.errors import DeviceLostError
from PIL import Image

pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")

QUICK = ("--face", "whole", "--warmup", "repeat", "--threads", "1", "--backend", "onnxruntime")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Twelve pictures."""
    made = tmp_path / "door"
    made.mkdir()
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 256, (30, 40, 3), np.uint8)
        Image.fromarray(pixels).save(made / f"{index}.png")
    return made


def lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


# ---------------------------------------------------------------------------------------------------------------- lines
def test_a_line_for_each_answer(untrained_bundle, folder, capsys):
    assert cli.main(["watch", str(untrained_bundle), str(folder), "--no-page", "--hop", "5", *QUICK]) == 0
    out, err = capsys.readouterr()
    found = [json.loads(line) for line in out.splitlines()]
    assert [line["frame"] for line in found] == [4, 9]
    assert all(sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-4) for line in found)
    assert {line["source"] for line in found} == {"door"}
    assert "door: 12 frames, 2 answers" in err


def test_the_schema_nv_and_events(untrained_bundle, folder, capsys):
    words = ["watch", str(untrained_bundle), str(folder), "--no-page", "--hop", "5", *QUICK, "-q"]
    assert cli.main([*words, "--schema", "nv"]) == 0
    digest = json.loads((untrained_bundle / "manifest.json").read_text())["digest"]
    for line in lines(capsys):
        (face,) = line["objects"]
        assert line["sensorId"] == "door" and face["info"]["model.digest"] == digest
    assert cli.main([*words, "--events", "--gate", "0"]) == 0
    told = [(line["event"], line["state"]) for line in lines(capsys)]
    assert told[0] == ("source", "playing") and told[1] == ("appeared", "")
    assert {kind for kind, _ in told} == {"source", "appeared", "expression", "gone"}


def test_in_a_terminal_a_line_for_each_change(untrained_bundle, folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert cli.main(["watch", str(untrained_bundle), str(folder), "--no-page", "--gate", "0", *QUICK]) == 0
    out = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  door       playing", out[0])
    assert re.fullmatch(r"\d\d:\d\d:\d\d  door   #0  appeared", out[1])
    assert all(line.split()[2] == "#0" or line.split()[2] in ("playing", "ended") for line in out)


def test_a_recording_is_made_when_it_is_asked_for(untrained_bundle, folder, tmp_path, capsys):
    pytest.importorskip("av", reason="PyAV is not installed (the extra 'camera')")
    words = ["watch", str(untrained_bundle), str(folder), "--no-page", *QUICK, "-q"]
    before = sorted(tmp_path.rglob("*"))
    assert cli.main(words) == 0
    assert sorted(tmp_path.rglob("*")) == before  # nothing is recorded
    assert cli.main([*words, "-o", str(tmp_path / "o.mp4")]) == 0
    assert (tmp_path / "o.mp4").stat().st_size > 1000


# ------------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--host", "0.0.0.0"], "without a token"),
        (["--host", "0.0.0.0", "--token", "short"], "shorter than 16"),
        (["--no-page", "--token", "0123456789abcdef"], "serves nothing"),
        (["--no-page", "--schema", "nv", "--events"], "no message for a change"),
        (["--no-page", "-o", "o.avi"], "is an .mp4"),
        (["--no-page", "--smooth", "-1"], "time constant"),
        (["--no-page", "--gate", "1.5"], "gate"),
        (["--no-page", "--hop", "0"], "hop"),
        (["--no-page", "--mqtt", "http://x"], "mqtt://"),
        (["--port", "99999"], "no port"),
    ],
)
def test_wrong_usage_is_refused(more, message, untrained_bundle, folder, fails, capsys):
    text = fails(2, "watch", untrained_bundle, folder, *QUICK, *more)
    assert message in text
    assert capsys.readouterr().out == ""


def test_two_sources_make_no_overlay_and_a_source_is_not_replaced(untrained_bundle, folder, fails, tmp_path):
    assert "one source" in fails(2, "watch", untrained_bundle, folder, folder, "--no-page", "-o", tmp_path / "o.mp4")
    video = tmp_path / "a.mp4"
    video.write_bytes(b"x")
    assert "would replace" in fails(2, "watch", untrained_bundle, video, "--no-page", "-o", video)
    assert video.read_bytes() == b"x"


def test_what_is_not_there_is_bad_input(untrained_bundle, folder, fails, tmp_path):
    fails(3, "watch", untrained_bundle, tmp_path / "gone.mp4", "--no-page")
    fails(3, "watch", tmp_path / "gone.bundle", folder, "--no-page")


def test_a_window_without_a_display_is_a_clear_error(untrained_bundle, folder, fails, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    text = fails(6, "watch", untrained_bundle, folder, "--no-page", "--window", *QUICK)
    assert "DISPLAY" in text and "ssh -L" in text


def test_a_lost_device_ends_with_7(untrained_bundle, folder, fails, monkeypatch):
    def lost(*_: object) -> None:
        raise DeviceLostError("The device is gone.", next="sudo reboot")

    monkeypatch.setattr(Runtime, "step", lost)
    assert "device is gone" in fails(7, "watch", untrained_bundle, folder, "--no-page", *QUICK)


# ------------------------------------------------------------------------------------------------- a process of its own
class Running:
    """`logoformer watch` in a process; `address` is what it printed."""

    def __init__(self, *words: object, ignoring: bool = False, **environment: str) -> None:
        given = [sys.executable, "-m", "logoformer", "watch", *map(str, words), "--port", "0", *QUICK]
        self.process = subprocess.Popen(
            given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
            preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignoring else _as_a_shell_does,
        )  # fmt: skip
        self.address = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.match(r"http://\S+", line):
                self.address = found[0]
                break
        assert self.address, "it printed no address"

    def get(self, path: str) -> tuple[int, bytes]:
        base, _, query = self.address.partition("?")
        try:
            with urllib.request.urlopen(f"{base}{path}{'?' + query if query else ''}", timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()

    def end(self, number: int) -> int:
        assert self.process.stdout is not None and self.process.stdout.readline()  # an answer: it is at work
        self.process.send_signal(number)
        self.process.communicate(timeout=60)
        return self.process.returncode


def _as_a_shell_does() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def start() -> Iterator:
    running: list[Running] = []

    def go(*words: object, **options) -> Running:
        running.append(Running(*words, **options))
        return running[-1]

    yield go
    for one in running:
        one.process.kill()
        one.process.communicate(timeout=60)


def test_sigterm_ends_it_well_and_the_page_was_served_until_then(start, untrained_bundle, folder):
    watch = start(untrained_bundle, folder, "--loop")
    assert watch.address.startswith("http://localhost:")
    assert json.loads(watch.get("healthz")[1])["status"] == "ok"
    assert watch.get("snapshot.jpg")[1][:2] == b"\xff\xd8"
    assert watch.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("told", [True, False])
def test_a_camera_that_is_away_is_told_on_standard_error_while_it_is_away(untrained_bundle, told):
    """Standard output has lines of answers, of which there are none; with -q nothing is told."""
    words = [sys.executable, "-m", "logoformer", "watch", str(untrained_bundle), "http://127.0.0.1:9/x", "--no-page"]
    words += ["--patient", *QUICK, *([] if told else ["-q", "--events"])]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stderr is not None
        while told and "lost" not in (line := process.stderr.readline()):
            assert line, "it ended"
        while not told and '"lost"' not in (line := process.stdout.readline()):
            assert line, "it ended"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0 and (told or err == "") and (not told or out == "")
    finally:
        process.kill()
        process.communicate(timeout=60)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_sigterm_while_an_object_is_freed_ends_it_too(untrained_bundle, folder, monkeypatch):
    """Python drops what is raised there."""

    class Freed:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    def step(*given: object) -> object:
        calls.append(1)
        assert len(calls) < 500, "it goes on"
        Freed()
        return before(*given)

    calls, before = [], Runtime.step
    monkeypatch.setattr(Runtime, "step", step)
    assert cli.main(["watch", str(untrained_bundle), str(folder), "--loop", "--no-page", "-q", *QUICK]) == 0


def test_ctrl_c_is_an_interrupt(start, untrained_bundle, folder):
    assert start(untrained_bundle, folder, "--loop").end(signal.SIGINT) == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_recording_that_is_ended_from_outside_is_kept_and_named(
    start, number, code, untrained_bundle, folder, tmp_path
):
    av = pytest.importorskip("av", reason="PyAV is not installed (the extra 'camera')")
    target = tmp_path / "o.mp4"
    process = start(untrained_bundle, folder, "--loop", "-o", target).process
    assert process.stdout.readline()  # an answer: its frame is recorded next
    process.stdout.readline()
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == code and "unchanged" not in said
    with av.open(str(target)) as video:
        shown = sum(1 for _ in video.decode(video=0))
    assert f"{target}: {shown} frames recorded" in said.splitlines()
    assert [path.name for path in tmp_path.glob("*o.mp4*")] == ["o.mp4"]


def test_under_nohup_ctrl_c_is_ignored_and_sigterm_is_not(start, untrained_bundle, folder):
    watch = start(untrained_bundle, folder, "--loop", ignoring=True)
    assert watch.process.stdout is not None
    watch.process.send_signal(signal.SIGINT)
    for _ in range(5):
        assert watch.process.stdout.readline()
    assert watch.end(signal.SIGTERM) == 0


def test_a_reader_that_goes_away_ends_it(start, untrained_bundle, folder):
    watch = start(untrained_bundle, folder, "--loop")
    assert watch.process.stdout is not None and watch.process.stderr is not None
    watch.process.stdout.close()
    assert watch.process.wait(60) == 0
    assert "Traceback" not in watch.process.stderr.read()


def test_a_token_from_a_file_guards_the_page(start, untrained_bundle, folder, tmp_path):
    token = "0123456789abcdef-file"
    (tmp_path / "token").write_text(f"{token}\n")
    watch = start(untrained_bundle, folder, "--loop", "--host", "0.0.0.0", "--token", f"@{tmp_path / 'token'}")
    port = re.search(r":(\d+)/", watch.address)[1]
    assert watch.address.endswith(f"?token={token}")
    watch.address = f"http://127.0.0.1:{port}/"
    assert watch.get("state.json")[0] == 401
    watch.address += f"?token={token}"
    assert watch.get("state.json")[0] == 200
    assert watch.end(signal.SIGTERM) == 0


def test_a_new_token_is_made_and_printed(start, untrained_bundle, folder):
    watch = start(untrained_bundle, folder, "--loop", "--token", "new")
    assert re.search(r"\?token=[\w-]{32}", watch.address)
    assert watch.get("state.json")[0] == 200
    assert watch.end(signal.SIGTERM) == 0
