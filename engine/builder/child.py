"""The process that a build runs in: bytes in, an engine or an error out. It is given no path and writes no file.

A compiler may take all memory, crash, or take an hour. In a process of its own it can be watched and ended at any
moment, and nothing of it is left: the parent alone writes.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, BinaryIO

from ...errors import LogoformerError, MachineError
from .engine import BuildOptions, build_here
from .process import MORE_MEMORY, message
from .xray import inspect_here

Send = Callable[..., None]  # a message's head, and its parts

_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG in sys/prctl.h


def main(descriptor: int, parent: int) -> None:
    """Reads one request from standard input, answers on `descriptor`.

    Args:
        descriptor: an open pipe.
        parent: process id; without it nobody waits for this build.
    """
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        return
    writing = threading.Lock()  # TensorRT logs from threads of its own
    with os.fdopen(descriptor, "wb") as answers:

        def send(head: Mapping[str, Any], parts: Sequence[bytes] = ()) -> None:
            with writing:
                for piece in message(head, parts):
                    answers.write(piece)
                answers.flush()

        head, parts = _answer(sys.stdin.buffer, send)
        send(head, parts)


class _Forward(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send({"log": (record.name, record.levelno, record.getMessage())})


def _answer(requests: BinaryIO, send: Send) -> tuple[dict[str, Any], list[bytes]]:
    def progress(*step: object) -> None:
        send({"progress": step})

    try:
        request = json.loads(requests.readline())
        logger = logging.getLogger(__name__.partition(".")[0])
        logger.setLevel(request["log_level"])
        logger.addHandler(_Forward(send))
        onnx, timing_cache = (requests.read(size) for size in request["sizes"])
        given = {**request["options"], "compute_capabilities": tuple(request["options"]["compute_capabilities"])}
        if request["job"] == "inspect":
            found = inspect_here(onnx, BuildOptions(**given), shown=request["shown"], timing_cache=timing_cache)
            return {"inspected": asdict(found)}, []
        built = build_here(onnx, BuildOptions(**given), progress, shown=request["shown"], timing_cache=timing_cache)
    except LogoformerError as error:
        return {"error": error.to_json()}, []
    except MemoryError:
        return {"error": MachineError("The build ran out of memory.", next=MORE_MEMORY).to_json()}, []
    record = {name: value for name, value in asdict(built).items() if name not in ("plan", "timing_cache")}
    record["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"built": record}, [built.plan, built.timing_cache or b""]
