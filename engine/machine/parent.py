"""The end of a child process with its parent, on Linux."""

from __future__ import annotations

import ctypes
import os
import signal

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG in sys/prctl.h


def end_with(parent: int) -> bool:
    """Asks the kernel to end this process when its parent ends, whatever ends that.

    Args:
        parent: its process id.

    Returns:
        False where it ended before this was asked; nobody waits for this process any more.
    """
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent


def join_pool(parent: int) -> None:
    """Makes this process one of a pool's: it ends with its parent, and leaves Ctrl-C to it.

    Args:
        parent: its process id.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent ends the pool
    if not end_with(parent):
        os._exit(1)
