"""Standard streams that are closed, and output that a full disk does not take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BUNDLE = Path(__file__).parents[1] / "data" / "bundle-v0.1"
CALLS = {  # words, and the exit code
    "inspect": (["inspect", str(BUNDLE)], 0),
    "run": (["run", str(BUNDLE), "gone.mp4"], 3),
    "watch": (["watch", str(BUNDLE), "gone.mp4", "--no-page"], 3),
    "version": (["--version"], 0),
    "wrong": (["inspekt"], 2),
}


def call(words: list[str], closed: tuple[int, ...], folder: Path) -> tuple[int, str, str]:
    """Exit code, output and errors of a call some of whose descriptors are closed."""

    def close() -> None:
        for descriptor in closed:
            os.close(descriptor)

    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        done = subprocess.run(
            [sys.executable, "-m", "logoformer", *words],
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=folder, preexec_fn=close, timeout=120, check=False,
        )  # fmt: skip
    return done.returncode, (folder / "out").read_text(), (folder / "err").read_text()


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=lambda closed: "".join(map(str, closed)))
@pytest.mark.parametrize("name", CALLS)
def test_a_closed_stream_changes_nothing_else(name, closed, tmp_path):
    words, code = CALLS[name]
    returned, out, err = call(words, closed, tmp_path)
    assert returned == code and "Traceback" not in err
    assert bool(out) == (code == 0 and 1 not in closed)
    assert bool(err) == (code != 0 and 2 not in closed)


@pytest.mark.parametrize("verb", ["run", "watch"])
def test_frames_are_answered_without_an_output_or_errors(verb, tmp_path):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")
    from PIL import Image

    (tmp_path / "door").mkdir()
    for index in range(4):
        Image.new("RGB", (64, 64), (index, 0, 0)).save(tmp_path / "door" / f"{index}.png")
    words = [verb, str(BUNDLE), "door", "--warmup", "repeat", "--face", "whole", "--threads", "1"]
    words += ["--no-page"] if verb == "watch" else []
    assert call(words, (0, 1, 2), tmp_path)[0] == 0
    returned, out, err = call(words, (2,), tmp_path)
    assert (returned, err) == (0, "") and all(line.startswith("{") for line in out.splitlines())


def test_the_next_file_does_not_get_the_number_of_a_closed_stream(tmp_path):
    """What is printed would go into it."""
    code = (
        "import os; from logoformer.cli import main\n"
        "main.main(['--version'])\n"
        "file = open('file', 'w'); assert file.fileno() > 2\n"
        "print('lost', flush=True); os.write(2, b'lost')\n"
        "assert all(os.get_inheritable(descriptor) for descriptor in range(3))\n"
    )

    def close() -> None:
        for descriptor in range(3):
            os.close(descriptor)

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, preexec_fn=close, timeout=120, check=False)
    assert done.returncode == 0 and (tmp_path / "file").read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--version"], ["--help"], [], ["run", "--help"], ["inspect", str(BUNDLE)]])
def test_a_full_disk_is_told(words, unbuffered, tmp_path):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "logoformer", *words], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered}, timeout=120, check=False,
        )  # fmt: skip
    assert done.returncode == 6 and "No space left" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_of_the_help_that_went_away_is_no_error(unbuffered, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "logoformer", "--help"], stdout=pipe, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered}, cwd=tmp_path, timeout=120, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_an_error_that_a_full_disk_does_not_take_keeps_its_exit_code(tmp_path):
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-m", "logoformer", "run", str(BUNDLE), "gone.mp4"]
        done = subprocess.run(words, stderr=full, stdout=subprocess.PIPE, cwd=tmp_path, timeout=120, check=False)
    assert done.returncode == 3


def test_a_program_that_calls_a_verb_has_its_streams_as_before(tmp_path):
    text = (
        "import sys; from logoformer.cli.main import main\n"
        "before = [(s.errors, s.encoding) for s in (sys.stdout, sys.stderr)]\n"
        "codes = main(['--version']), main(['inspekt']), main(['inspect', 'gone.bundle'])\n"
        "assert codes == (0, 2, 3), codes\n"
        "assert [(s.errors, s.encoding) for s in (sys.stdout, sys.stderr)] == before\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, env=environment, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
