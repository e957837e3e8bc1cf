"""The window of a watch, on a display of its own that nobody sees."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from logoformer.camera.pipeline.board import Board
from logoformer.camera.window import WatchWindow, side_by_side
from logoformer.errors import MachineError
from PIL import Image, features

# In a process of its own: Tk does not end in one that goes on.
SHOW = """
import os, sys, threading, time
import numpy as np
from PIL import ImageGrab
from logoformer.camera.answers.contract import FaceFrame
from logoformer.camera.pipeline.board import Board
from logoformer.camera.window import WatchWindow

def seen(number, color):
    return FaceFrame(np.full((240, 320, 3), color, np.uint8), "rgb", number / 25, number, 0, 0.0, 0.0)

def share(color):
    screen = np.asarray(ImageGrab.grab(xdisplay=os.environ["DISPLAY"]).convert("RGB"), int)
    return float((np.abs(screen - color).max(axis=2) < 12).mean())

def until(color):
    deadline = time.monotonic() + 60
    while share(color) < 0.1:
        assert time.monotonic() < deadline, f"{color} never showed"
        time.sleep(0.05)

board, closed = Board(("a", "b"), {}), threading.Event()
window = WatchWindow(board, closed.set)
for number, color in enumerate([(250, 30, 30), (30, 250, 30)]):
    board.show(0, seen(number, color))
    until(color)
board.show(1, seen(0, (30, 30, 250)))
until((30, 30, 250))
assert share((30, 250, 30)) > 0.1  # the other one is beside it
window.close()
window.close()
assert not window._thread.is_alive() and not closed.is_set()
print("shown")
"""


@pytest.fixture
def display() -> Iterator[str]:
    program = shutil.which("Xvfb")
    if program is None:
        assert not os.environ.get("CI"), "Xvfb is missing in CI; tests/install-system.sh installs it"
        pytest.skip("Xvfb is not installed (tests/install-system.sh installs it)")
    read, write = os.pipe()
    server = subprocess.Popen(
        [program, "-displayfd", str(write), "-screen", "0", "1024x768x24", "-nolisten", "tcp"],
        pass_fds=[write], stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as stream:
        number = stream.readline().strip()
    yield f":{number}"
    server.terminate()
    server.wait(30)


def test_pictures_are_shown_as_they_come(display):
    pytest.importorskip("tkinter", reason="this Python was built without Tk")
    if not features.check("xcb"):
        pytest.skip("this Pillow cannot read a screen")
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env={**os.environ, "DISPLAY": display}, capture_output=True, text=True,
        check=False, timeout=180,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "shown\n"), done.stderr


@pytest.mark.parametrize("display", ["", ":987"], indirect=False)
def test_without_a_display_it_is_a_clear_error(monkeypatch, display):
    monkeypatch.setenv("DISPLAY", display) if display else monkeypatch.delenv("DISPLAY", raising=False)
    if display:
        pytest.importorskip("tkinter", reason="this Python was built without Tk")
    with pytest.raises(MachineError, match="No window") as caught:
        WatchWindow(Board(("a",), {}), lambda: None)
    assert "ssh -L" in caught.value.next


def test_without_tk_the_package_is_named(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(MachineError, match="Tk") as caught:
        WatchWindow(Board(("a",), {}), lambda: None)
    assert "python3-tk" in caught.value.next


def test_pictures_stand_side_by_side():
    row = side_by_side([Image.new("RGB", (4, 6), "red"), Image.new("RGB", (10, 2), "blue")])
    assert row.size == (14, 6)
    assert np.asarray(row)[5, 12].tolist() == [0, 0, 0] and np.asarray(row)[1, 12].tolist() == [0, 0, 255]
