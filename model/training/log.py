"""Training logs: JSON lines beside the checkpoint, TensorBoard event files, progress notes.

Lines are of three kinds: the loss and the rate every few steps; at the end of an epoch `train_uar` and `train_war`, of
the answers that were given during that epoch, each at the weights of its step; and the scores of clips that were looked
at on purpose, `validation_*` or `test_*`. The last line of a log is the score on the held-out clips.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...bundle.files import writing
from ...errors import BadInputError, needing

Figures = dict[str, float]


@dataclass(frozen=True)
class LogOptions:
    """Destinations of figures, beside the JSON lines.

    Attributes:
        tensorboard: a folder for event files; None writes none.
        note: called with one line of figures, to be shown beside the progress.
    """

    tensorboard: str | os.PathLike[str] | None = None
    note: Callable[[str], None] | None = None


def log_path(folder: str | os.PathLike[str]) -> Path:
    """Path of the log of a training, beside its checkpoint."""
    path = Path(folder)
    return path.parent / f"{path.name}.log.jsonl"


def check_log(folder: str | os.PathLike[str]) -> None:
    """Refuses, before any work, a place of the log that holds a link or no file.

    Args:
        folder: of the checkpoint.

    Raises:
        BadInputError: what is written there would lie elsewhere, or cannot be written.
    """
    path = log_path(folder)
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise BadInputError(
            f"{path} is {'a link' if path.is_symlink() else 'no file'}; the training's log is written there, and it "
            "was left alone.",
            cause="something else in the place of the log, which lies beside the checkpoint",
            next="name another folder with -o",
        )


class TrainLog:
    """The log of one training; in every process but the first it does nothing.

    Args:
        path: of the JSON lines.
        options: where figures go beside them.
        first: whether this process writes.

    Raises:
        MachineError: event files are wanted and the package that writes them is missing.
    """

    def __init__(self, path: Path, options: LogOptions, *, first: bool) -> None:
        self.path, self._options, self._first = path, options, first
        self._events: Any = None
        self._loss, self._scores = "", ""
        if first and options.tensorboard is not None:
            _writer()  # now, not after the data were read

    def begin(self, step: int, text: str = "") -> None:
        """Starts, or goes on after `step` steps with the lines written until then."""
        if not self._first:
            return
        _write(self.path, "w", text)  # lines of a killed run, written after its state was saved, come again
        if self._options.tensorboard is not None:
            with writing(self._options.tensorboard):
                self._events = _writer()(os.fspath(self._options.tensorboard), purge_step=step + 1)

    def write(self, step: int, epoch: int, figures: Figures) -> None:
        """One line; the same figures as scalars."""
        if not self._first:
            return
        _write(self.path, "a", json.dumps({"step": step, "epoch": epoch, **figures}) + "\n")
        if self._events is not None:
            for name, value in figures.items():
                self._events.add_scalar(name, value, step)

    def note(self, figures: Figures) -> None:
        """Shows a loss, and the scores of the last epoch with the clips that they are of."""
        if self._options.note is None or not self._first:
            return
        if "loss" in figures:
            self._loss = f"loss {figures['loss']:.3f}"
        for clips in ("train", "validation", "test"):
            if f"{clips}_uar" in figures:
                self._scores = f"  {clips} UAR {figures[f'{clips}_uar']:.3f} WAR {figures[f'{clips}_war']:.3f}"
        self._options.note(self._loss + self._scores)

    def text(self) -> str:
        """Everything written so far, and event files are on the disk."""
        if self._events is not None:
            self._events.flush()
        return self.path.read_text("ascii")

    def close(self) -> None:
        """Ends the event file."""
        if self._events is not None:
            self._events.close()
            self._events = None


def _writer() -> Any:
    with needing("tensorboard", "tensorboard", "Writing TensorBoard's event files"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter


def _write(log: Path, mode: str, text: str) -> None:
    with writing(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, mode, encoding="ascii", opener=_no_link) as stream:  # pathlib takes no opener
            stream.write(text)


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
