"""A window with the pictures of a watch, on this machine's display."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from typing import Any

from PIL import Image

from ..errors import LogoformerError, MachineError
from .answers.drawing import draw_frame
from .pipeline.board import Board

REFRESH_MS = 40
SIDE = 960  # pixels of a picture, at most
START_S, END_S = 10.0, 1.0


class WatchWindow:
    """Shows the newest pictures side by side until it is closed.

    All calls of Tk come from one thread, which is not the caller's.

    Args:
        board: of the watch.
        closed: called when a person closes the window.

    Raises:
        MachineError: there is no display, or Python has no Tk.
    """

    def __init__(self, board: Board, closed: Callable[[], None]) -> None:
        self._board, self._closed = board, closed
        self._ready, self._ending = threading.Event(), threading.Event()
        self._error: LogoformerError | None = None
        self._root: Any = None
        self._label: Any = None
        self._photo: Any = None
        self._numbers: list[int] = []
        self._thread = threading.Thread(target=self._run, name="logoformer-window", daemon=True)
        self._thread.start()
        self._ready.wait(START_S)
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Closes the window. A second call does nothing."""
        self._ending.set()
        self._thread.join(END_S)

    def _run(self) -> None:
        try:
            self._show()
        except LogoformerError as error:
            self._error = error
        finally:
            # Tcl aborts the process if its interpreter is freed by another thread, as a later collection could do.
            self._root = self._label = self._photo = None
            gc.collect()
            self._ready.set()

    def _show(self) -> None:
        self._root, self._label = _open_window()
        self._root.protocol("WM_DELETE_WINDOW", self._leave)
        self._ready.set()
        self._refresh()
        self._root.mainloop()

    def _leave(self) -> None:
        self._closed()
        self._ending.set()

    def _refresh(self) -> None:
        if self._ending.is_set() or self._board.closed:
            self._root.destroy()
            return
        shown = [self._board.picture(camera, 0, 0.0) for camera in range(len(self._board.names))]
        numbers = [one.number for one in shown]
        if numbers != self._numbers:
            self._numbers = numbers
            pictures = [draw_frame(one.seen, one.held, SIDE) for one in shown if one.seen is not None]
            if pictures:
                from PIL import ImageTk

                # Kept: Tk itself holds no reference.
                self._photo = ImageTk.PhotoImage(side_by_side(pictures), master=self._root)
                self._label.configure(image=self._photo)
        self._root.after(REFRESH_MS, self._refresh)


def _open_window() -> tuple[Any, Any]:
    """An empty window, and the label in it that shows pictures."""
    if not os.environ.get("DISPLAY"):
        raise _no_window("there is no display here: DISPLAY is not set")
    try:
        import tkinter

        from PIL import ImageTk as _  # noqa: F401
    except ImportError as error:
        raise MachineError(
            f"A window needs Tk, which this Python lacks: {error}.",
            next="sudo apt-get install python3-tk python3-pil.imagetk, or open the page instead",
        ) from error
    try:
        root = tkinter.Tk()
    except tkinter.TclError as error:
        raise _no_window(str(error)) from error
    root.title("logoformer watch")
    root.configure(background="black")
    label = tkinter.Label(root, background="black", borderwidth=0)
    label.pack()
    return root, label


def side_by_side(pictures: list[Image.Image]) -> Image.Image:
    """Pictures in one row, on black."""
    if len(pictures) == 1:
        return pictures[0]
    whole = Image.new("RGB", (sum(one.width for one in pictures), max(one.height for one in pictures)))
    left = 0
    for one in pictures:
        whole.paste(one, (left, 0))
        left += one.width
    return whole


def _no_window(why: str) -> MachineError:
    return MachineError(
        f"No window can be opened: {why}.",
        cause="a machine without a screen, a service, or a login over the network",
        next="leave --window out and open the page: over the network with ssh -L 8080:localhost:8080",
    )
