"""The process that a build runs in: bytes in, an engine or an error out. It is given no path and writes no file.

A compiler may take all memory, crash, or take an hour. In a process of its own it can be watched and ended at any
moment, and nothing of it is left: the parent alone writes.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, BinaryIO

from ...errors import LogoformerError, MachineError
from .engine import BuildOptions, build_here
from .process import MORE_MEMORY, message
from .xray import inspect_here

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
    with os.fdopen(descriptor, "wb") as answers:

        def send(head: Mapping[str, Any], parts: Sequence[bytes] = ()) -> None:
            for piece in message(head, parts):
                answers.write(piece)
            answers.flush()

        head, parts = _answer(sys.stdin.buffer, lambda *step: send({"progress": step}))
        send(head, parts)


def _answer(requests: BinaryIO, progress: Callable[[str, int, int], None]) -> tuple[dict[str, Any], list[bytes]]:
    try:
        request = json.loads(requests.readline())
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
