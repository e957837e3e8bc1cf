"""Ctrl-C where foreign code swallows it or calls it something else: the verb ends as interrupted all the same."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from logoformer.cli import device, main
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
