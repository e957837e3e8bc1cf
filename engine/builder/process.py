"""A process for one build: started, watched, listened to, and ended with whatever ended the wait for it.

Messages, in both directions, are one line of JSON whose `sizes` says how many bytes follow for each part.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ... import errors
from ...errors import LogoformerError, MachineError
from ..machine.memory import Memory, mib, read_memory, resident_bytes

_log = logging.getLogger(__name__)

MORE_MEMORY = (
    "end other programs that use memory or the GPU (on a Jetson the desktop too: sudo systemctl isolate "
    "multi-user.target), lower --workspace-mib, add swap, build again"
)
_LOOK_EVERY_S = 0.2
_CHUNK = 1 << 20
_WORDS_KEPT = 4000  # bytes of what a crashing process says last
# The child finds the modules that this process finds, and none that lie in the folder where it happens to run (-I).
_BOOT = """
import importlib, json, sys
sys.path[:] = json.loads(sys.stdin.buffer.readline())
importlib.import_module(sys.argv[1]).main(int(sys.argv[2]), int(sys.argv[3]))
"""


@dataclass
class Child:
    """A running build.

    Attributes:
        process: the child.
        answers: descriptor of the pipe that it answers on.
        words: what it and TensorRT's libraries print; shown when it crashes.
        shown: the graph, for messages.
        before: memory when it was started.
        peak_bytes: the most that it was seen to hold.
        lowest: the least memory that was seen to be free.
        next_look: on the monotonic clock, when to look at memory again.
    """

    process: subprocess.Popen[bytes]
    answers: int
    words: IO[bytes]
    shown: str
    before: Memory
    lowest: Memory
    peak_bytes: int = 0
    next_look: float = 0.0


@contextmanager
def start(module: str, shown: str) -> Iterator[Child]:
    """Starts `module.main` in a process of its own, for the block.

    Args:
        module: full name; its `main` takes a descriptor to answer on and the id of this process.
        shown: the graph, for messages.
    """
    memory = read_memory()
    reading, writing = os.pipe()
    with tempfile.TemporaryFile() as words:
        words_of_python = ["-B"] if sys.dont_write_bytecode else []
        command = [sys.executable, "-I", *words_of_python, "-c", _BOOT, module, str(writing), str(os.getpid())]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=words, stderr=words, pass_fds=(writing,), start_new_session=True
            )
        except OSError as error:
            os.close(reading)
            raise MachineError(
                f"The process of a build does not start: {error}.", next="free memory, try again"
            ) from error
        finally:
            os.close(writing)  # the child alone holds it: its end is the end of the answers
        try:
            yield Child(process, reading, words, shown, memory, memory)
        finally:
            process.kill()
            with suppress(BrokenPipeError):
                process.communicate()
            os.close(reading)


def ask(child: Child, request: Mapping[str, Any], parts: Sequence[bytes]) -> None:
    """Sends a request. A child that is dead already is found to be so by `answers_of`."""
    paths = json.dumps([path or str(Path.cwd()) for path in sys.path if isinstance(path, str)]).encode("ascii")
    pipe = child.process.stdin
    with suppress(BrokenPipeError):
        for piece in (paths, b"\n", *message({**request, "log_level": _log.getEffectiveLevel()}, parts)):
            pipe.write(piece)  # type: ignore[union-attr]
        pipe.flush()  # type: ignore[union-attr]


def message(head: Mapping[str, Any], parts: Sequence[bytes] = ()) -> list[bytes]:
    """A message, in pieces to be written one after the other."""
    line = json.dumps({**head, "sizes": [len(part) for part in parts]}).encode("ascii") + b"\n"
    return [line, *parts]


def answers_of(child: Child) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    """What the child says, until it ends; memory is looked at meanwhile, and its log lines are logged here.

    Raises:
        MachineError: memory runs short.
    """
    waiting = bytearray()
    head: dict[str, Any] | None = None
    while chunk := _next_chunk(child):
        waiting += chunk
        while True:
            if head is None:
                line, found, _ = waiting.partition(b"\n")
                if not found:
                    break
                head = json.loads(line)
                del waiting[: len(line) + 1]
            if len(waiting) < sum(head["sizes"]):
                break
            parts = []
            for size in head["sizes"]:
                parts.append(bytes(waiting[:size]))
                del waiting[:size]
            if "log" in head:
                name, level, text = head["log"]
                logging.getLogger(name).log(level, "%s", text)
            else:
                yield head, parts
            head = None


def raised(error: Mapping[str, Any]) -> LogoformerError:
    """An error of the child's, as if it had been raised here."""
    kind = getattr(errors, error["error"])
    again: LogoformerError = kind(error["what"], cause=error["cause"], next=error["next"], log=error["log"])
    return again


def died(child: Child) -> MachineError:
    """The error for a child that ended without an answer."""
    code = child.process.wait()
    child.words.seek(0, os.SEEK_END)
    child.words.seek(max(child.words.tell() - _WORDS_KEPT, 0))
    said = child.words.read().decode("utf-8", "replace").splitlines()
    held = f"it held {mib(child.peak_bytes)} at most; before: {child.before}; least seen: {child.lowest}"
    what = f"The process that built an engine from {child.shown}"
    if code == -signal.SIGKILL:
        return MachineError(
            f"{what} was killed (signal 9).",
            cause=f"memory ran out, and the kernel ended the largest process; {held}",
            next=MORE_MEMORY,
            log=said,
        )
    if any("bad_alloc" in line or "MemoryError" in line for line in said):
        return MachineError(
            f"{what} could not get the memory that it asked for.", cause=held, next=MORE_MEMORY, log=said
        )
    how = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with status {code}"
    return MachineError(
        f"{what} {how} without an answer.",
        cause="a fault of this TensorRT or its driver, or a broken installation; its last words are below",
        next="build one graph at a time with --graph to find which one does it",
        log=said,
    )


def _next_chunk(child: Child) -> bytes:
    """The next bytes, or none when the child has ended."""
    while True:
        _look(child)
        if select.select([child.answers], [], [], _LOOK_EVERY_S)[0]:
            return os.read(child.answers, _CHUNK)


def _look(child: Child) -> None:
    """Looks at memory, five times a second at most."""
    now = time.monotonic()
    if now < child.next_look:
        return
    child.next_look = now + _LOOK_EVERY_S
    memory = read_memory()
    child.peak_bytes = max(child.peak_bytes, resident_bytes(child.process.pid))
    child.lowest = min(child.lowest, memory, key=lambda m: m.available_bytes)
    if memory.short:
        raise MachineError(
            f"The build of an engine from {child.shown} was ended: this machine runs out of memory.",
            cause=f"the build holds {mib(child.peak_bytes)}; before: {child.before}; now: {memory}; below "
            f"{mib(memory.floor_bytes)} the kernel would end some process, and not surely this one",
            next=MORE_MEMORY,
        )
