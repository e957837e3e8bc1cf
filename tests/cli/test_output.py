"""What is printed: `run` on a terminal and in a pipe, and output in an encoding that lacks a character."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from logoformer.bundle import Bundle, BundleWriter
from logoformer.camera.answers.contract import FaceEvent
from logoformer.cli import main as cli
from logoformer.cli.terminal import answer_lines, loss_line
from PIL import Image

BUNDLE = Path(__file__).parents[1] / "data/bundle-v0.1"
LABEL = "glücklich 😀"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose labels and folder have characters outside ASCII."""
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")
    path = Path(shutil.copytree(BUNDLE, tmp_path_factory.mktemp("output") / "gesicht-ä😀.bundle"))
    manifest = Bundle(path).manifest
    labels = [LABEL, *(f"{name} ü" for name in manifest["labels"][1:])]
    BundleWriter(path).commit({**manifest, "labels": labels, "model": {**manifest["model"], "labels": labels}})
    return path


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames") / "bilder-ö"
    folder.mkdir()
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def words_of_run(bundle: Path, frames: Path) -> list[str]:
    return ["run", str(bundle), str(frames), "--warmup", "repeat", "--hop", "2", "--threads", "1"]


# ------------------------------------------------------------------------------------------------------------ terminal
def on_terminal(words: list[str]) -> list[str]:
    """The lines that a call prints when standard output is a terminal."""
    above, below = os.openpty()
    with os.fdopen(above, "rb", buffering=0) as reader, os.fdopen(below, "w", encoding="utf-8") as writer:
        with contextlib.redirect_stdout(writer):
            assert cli.main(words) == 0
            print("end", flush=True)  # the kernel hands a terminal's bytes over in pieces
        text = b""
        while not text.endswith(b"end\r\n"):
            text += reader.read(1 << 16)
        return text.decode().splitlines()[:-1]


def test_run_prints_a_line_an_answer_on_a_terminal(bundle, frames):
    lines = on_terminal(words_of_run(bundle, frames))
    assert len(lines) == 2
    for line in lines:
        time_s, unit, *label, share = line.split()
        assert float(time_s) >= 0 and unit == "s" and 0 < float(share) <= 1
        assert " ".join(label) in Bundle(bundle).labels


def test_run_prints_json_lines_on_a_terminal_when_asked(bundle, frames):
    lines = on_terminal([*words_of_run(bundle, frames), "--json"])
    assert [json.loads(line)["sequence"] for line in lines] == [0, 1]


def test_run_prints_json_lines_in_a_pipe(bundle, frames, capsys):
    for more in ([], ["--json"], ["-q"]):
        assert cli.main([*words_of_run(bundle, frames), *more]) == 0
        out, err = capsys.readouterr()
        assert [json.loads(line)["sequence"] for line in out.splitlines()] == [0, 1]
        assert err == "" if more == ["-q"] else "4 frames, 2 answers" in err


def test_the_line_of_an_answer(capsys: pytest.CaptureFixture[str]):
    write = answer_lines(["happy", "surprise", "\x1b[2J"])
    write({"time_s": 2.4, "label": "happy", "probabilities": {"happy": 0.8311}})
    write({"time_s": 120.0, "label": "\x1b[2J", "probabilities": {"\x1b[2J": 1.0}, "partial": True})
    assert capsys.readouterr().out.splitlines() == [
        "  2.40 s  happy     0.83",
        r"120.00 s  \x1b[2J   1.00  (fewer frames than a full span)",
    ]


def test_lines_of_a_source_that_is_lost_and_back(capsys: pytest.CaptureFixture[str]):
    for state, before in (("live", ""), ("lost", "live"), ("live", "lost"), ("ended", "live")):
        loss_line(FaceEvent("source", "door", None, 0.0, state, before))
    loss_line(FaceEvent("expression", "door", 1, 0.0, "lost", "calm"))  # a label of that name
    out, err = capsys.readouterr()
    assert out == "" and [line.split()[1:] for line in err.splitlines()] == [["door", "lost"], ["door", "live"]]


# ------------------------------------------------------------------------------------------------------------ encoding
def in_ascii(code: int, words: list[str]) -> str:
    """What a call prints when standard output and standard error take ASCII only."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert cli.main(words) == code
    return out.buffer.getvalue().decode("ascii")


@pytest.mark.parametrize("more", [[], ["--json"]])
@pytest.mark.parametrize("verb", ["inspect", "verify", "run", "data-check"])
def test_no_verb_dies_of_the_encoding(verb: str, more: list[str], bundle, frames, tmp_path):
    words = {
        "inspect": ["inspect", str(bundle)],
        "verify": ["verify", str(bundle), "--no-write", "--threads", "1"],
        "run": words_of_run(bundle, frames),
        "data-check": ["data-check", "--data", str(damaged_data(tmp_path))],
    }[verb]
    text = in_ascii(3 if verb == "data-check" else 0, [*words, *more])
    if more or verb == "run":  # escaped as JSON has it, and whole again when it is read
        for line in text.splitlines():
            json.loads(line)
    if verb in ("inspect", "data-check") or (verb == "run" and "gl" in text):
        assert "\\" in text
    if verb == "data-check" and not more:
        assert r"\U0001f600" in text


def damaged_data(folder: Path) -> Path:
    """Plain lists of one clip, whose name is not ASCII and whose frame is no picture."""
    data = folder / "daten-ß"
    (data / "clip-😀").mkdir(parents=True)
    (data / "clip-😀/0.png").write_bytes(b"no picture")
    (data / "train.txt").write_text("clip-😀 1 0\n", encoding="utf-8")
    (data / "test.txt").write_text("clip-😀 1 1\n", encoding="utf-8")
    return data


def test_a_process_with_ascii_output(bundle: Path):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    for words in (["inspect", str(bundle)], ["inspect", str(bundle / "😀")]):
        command = [sys.executable, "-m", "logoformer", *words]
        done = subprocess.run(command, env=environment, cwd=bundle.parent, capture_output=True)
        text = (done.stdout + done.stderr).decode("ascii")
        assert done.returncode == (0 if words[-1] == str(bundle) else 3) and r"\U0001f600" in text
        assert "Traceback" not in text


@pytest.mark.parametrize("verb", ["export", "quantize"])
def test_quiet_leaves_the_verdicts_alone(verb, untrained_bundle, capsys, monkeypatch, tmp_path):
    made = Bundle(untrained_bundle)
    monkeypatch.setattr("logoformer.workflows.export.export_checkpoint", lambda *_, **__: made)
    monkeypatch.setattr("logoformer.workflows.quantize.quantize", lambda *_, **__: made)
    words = [verb, str(tmp_path / "x"), *(["-o", str(tmp_path / "y")] if verb == "export" else ["--data", "faces"])]
    assert cli.main(words) == 0
    assert ".onnx" in (loud := capsys.readouterr().out) and "alignment" in loud
    assert cli.main([*words, "-q"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first == str(untrained_bundle) and [line.split(":")[0].strip() for line in others] == ["fp16", "fp32"]
