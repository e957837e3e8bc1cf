"""Ctrl-C where foreign code swallows it or calls it something else: the verb ends as interrupted all the same."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from logoformer.cli import device, main
from logoformer.cli.options import handling
from logoformer.errors import MachineError

BUNDLE = Path(__file__).parents[1] / "data" / "bundle-v0.1"


def swallowed(*_: object) -> int:
    """As pybind11 does with an exception out of a callback of C++."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
    except KeyboardInterrupt:
        pass
    return 0


def renamed(*given: object) -> int:
    """As an extension module does with one out of an import that it makes."""
    swallowed(*given)
    raise MachineError("The package is installed but does not import.", cause="its libraries are missing")


@pytest.mark.parametrize("handler", [swallowed, renamed])
def test_an_interrupt_that_foreign_code_caught(handler, monkeypatch, capsys):
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(device, "_doctor", handler)
    assert main.main(["doctor"]) == 130
    out, err = capsys.readouterr()
    assert out == "" and "interrupted" in err and "does not import" not in err
    assert signal.getsignal(signal.SIGINT) is before


def test_the_same_error_without_an_interrupt_is_told(monkeypatch, capsys):
    def broken(a: argparse.Namespace, bar: object) -> int:
        raise MachineError("The package is installed but does not import.", cause="its libraries are missing")

    monkeypatch.setattr(device, "_doctor", broken)
    assert main.main(["doctor"]) == 6
    assert "does not import" in capsys.readouterr().err


# --------------------------------------------------------------------------------------------- from begin to end
PROGRAM = """
import atexit, signal, sys, threading
from logoformer.cli import device, main, parser

def interrupt(*_):
    signal.raise_signal(signal.SIGINT)

def twice(*_):
    try:
        interrupt()
    finally:
        interrupt()

def in_a_text(*_):
    exec("interrupt()", {"interrupt": interrupt})

def while_a_thread_lives(*_):
    def send():
        while True:
            threading.main_thread().join(0.05)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    threading.Thread(target=send).start()
    interrupt()

def late(*_):
    atexit.register(interrupt)
    interrupt()

signal.signal(signal.SIGINT, signal.default_int_handler)
place, how = sys.argv[1:]
sys.argv[1:] = ["doctor"]
if place == "parser":
    parser.CommandParser.parse_args = globals()[how]
elif place == "verb":
    device._doctor = globals()[how]
sys.exit(main.main())
"""


@pytest.mark.parametrize("how", ["interrupt", "twice", "in_a_text", "late"])
@pytest.mark.parametrize("place", ["parser", "verb"])
def test_one_line_and_130_whenever_it_comes_and_however_often(place, how, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [sys.executable, "-m", "program", place, how]  # `-m`: as people call it without an installation
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    verb = "" if place == "parser" else " doctor"
    assert done.returncode == 130, done.stderr
    assert done.stderr.startswith(f"logoformer{verb}: interrupted") and done.stderr.count("\n") == 1


def test_a_thread_that_does_not_end_is_not_waited_for_after_another_one(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [sys.executable, "-m", "program", "verb", "while_a_thread_lives"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 130 and done.stderr.count("\n") == 1, done.stderr


# ------------------------------------------------------------------------------------ handlers of a host program
HANDLED = {  # a call, and the function in which it works
    f"build {BUNDLE} --target rtx": "logoformer.engine.builder.bundle.build_bundle",
    "export ckpt -o never.bundle": "logoformer.workflows.export.export_checkpoint",
    "synth -o never": "logoformer.model.synthetic.layout.synth",
    f"run {BUNDLE} clip.mp4": "logoformer.engine.load",
    f"watch {BUNDLE} clip.mp4 --no-page": "logoformer.cli.watch._runtime",
}


@pytest.fixture
def host_handlers():
    """Handlers of a program that calls `main`; gives them by signal."""

    def theirs(number: int, frame: object) -> None:
        raise AssertionError("nobody sent a signal")

    before = {number: signal.signal(number, theirs) for number in (signal.SIGTERM, signal.SIGINT)}
    yield dict.fromkeys(before, theirs)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("line", HANDLED, ids=lambda line: line.split()[0])
@pytest.mark.parametrize("raised", [MachineError("no card"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_a_program_that_calls_main_gets_its_signal_handlers_back(line, raised, monkeypatch, host_handlers):
    seen = []

    def work(*given: object, **more: object) -> None:
        seen.append(signal.getsignal(signal.SIGTERM))
        raise raised

    monkeypatch.setattr(HANDLED[line], work)
    assert main.main(line.split()) == (6 if isinstance(raised, MachineError) else 130)
    assert len(seen) == 1 and seen[0] is not host_handlers[signal.SIGTERM]  # while it works, SIGTERM ends it
    assert {number: signal.getsignal(number) for number in host_handlers} == host_handlers


@pytest.mark.parametrize("line", HANDLED, ids=lambda line: line.split()[0])
def test_a_verb_in_another_thread_leaves_signals_alone(line, monkeypatch, host_handlers):
    def work(*given: object, **more: object) -> None:
        assert {number: signal.getsignal(number) for number in host_handlers} == host_handlers
        raise MachineError("no card")

    monkeypatch.setattr(HANDLED[line], work)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(main.main, line.split()).result() == 6


def test_a_handler_that_is_not_pythons_is_left_in_place(monkeypatch, host_handlers):
    """Python tells None of it, and could not put it back."""
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda number: None)
        with handling(signal.SIGTERM, signal.default_int_handler):
            patch.undo()
            assert signal.getsignal(signal.SIGTERM) is host_handlers[signal.SIGTERM]


def test_an_interrupt_while_tensorrt_is_imported(tmp_path):
    """A process of its own, whose `tensorrt_rtx` is interrupted in the middle of its import."""
    (tmp_path / "tensorrt_rtx").mkdir()
    (tmp_path / "tensorrt_rtx" / "__init__.py").write_text(
        "import os, signal\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    for _ in range(1000): pass\n"
        "except KeyboardInterrupt:\n"
        "    raise ImportError('initialization failed') from None\n"
        "__version__ = '1.7.1.116'\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    words = [sys.executable, "-m", "logoformer", "build", str(BUNDLE), "--target", "rtx", "--engines-dir", "engines"]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "interrupted" in done.stderr and "Traceback" not in done.stderr and "does not import" not in done.stderr
