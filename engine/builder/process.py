"""Builds in a child process with a memory watch: the parent's side and the child's main.

A compiler may take all memory, crash, or take an hour. In a process of its own it can be watched and ended at any
moment, and nothing of it is left. The child is given bytes and answers with bytes: the parent alone writes files.

Messages, in both directions, are JSON whose `parts` says how many messages of plain bytes follow. Nothing is unpickled.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import IO, Any

from ... import errors
from ...errors import LogoformerError, MachineError
from ..machine.log import Progress
from ..machine.memory import MORE_MEMORY, Memory, mib, read_memory, resident_bytes
from ..machine.parent import end_with
from .compile import BuildOptions, BuiltEngine, build_here
from .proof import Inspection, inspect_here

_log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2
_WORDS_KEPT = 4000  # bytes of what a crashing process says last
# The child finds the modules that this process finds, and none that lie in the folder where it happens to run (-I).
_BOOT = """
import importlib, json, sys
sys.path[:] = json.loads(sys.argv[1])
importlib.import_module(sys.argv[2]).serve(int(sys.argv[3]), int(sys.argv[4]))
"""


@dataclass
class _Child:
    """A running build of the graph `shown`."""

    process: subprocess.Popen[bytes]
    pipe: Connection  # for requests and answers
    words: IO[bytes]  # what it and TensorRT's libraries print; shown when it crashes
    shown: str
    before: Memory  # when it was started
    lowest: Memory  # the least that was seen to be free
    peak_bytes: int = 0  # the most that it was seen to hold
    next_look: float = 0.0  # on the monotonic clock, when to look at memory again


@contextmanager
def _start(shown: str) -> Iterator[_Child]:
    """Run `serve` in a child process for the duration of the block; `shown`: the graph."""
    memory = read_memory()
    here, there = Pipe()
    paths = json.dumps([path or str(Path.cwd()) for path in sys.path if isinstance(path, str)])
    with here, tempfile.TemporaryFile() as words:
        flags = ["-I", "-B"] if sys.dont_write_bytecode else ["-I"]
        command = [sys.executable, *flags, "-c", _BOOT, paths, __name__, str(there.fileno()), str(os.getpid())]
        with there:  # the child alone holds it from here on: its end is the end of the answers
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=words,
                    stderr=words,
                    pass_fds=(there.fileno(),),
                    start_new_session=True,
                )
            except OSError as error:
                raise MachineError(
                    f"The process of a build does not start: {error}.", next="free memory, try again"
                ) from error
        try:
            yield _Child(process, here, words, shown, memory, memory)
        finally:
            process.kill()
            process.wait()


def build_engine(
    onnx: bytes,
    options: BuildOptions,
    progress: Progress | None = None,
    *,
    shown: str = "the graph",
    timing_cache: bytes = b"",
) -> BuiltEngine:
    """Compile one graph in a child process.

    TensorRT-RTX needs no GPU for it; TensorRT builds for the GPU of this machine.

    The child is ended, and nothing of it is left, when this call ends for any reason: an exception of `progress`,
    Ctrl-C, the end of this process, or memory that runs short.

    An engine hides nothing of its graph: TensorRT-RTX 1.7.1 stores the node names at any verbosity (doc strings and
    metadata at none), and an engine of a device keeps its layers' details, see `compile.KEPT`.

    Args:
        onnx: the checked bytes of a static graph whose precision is in its types.
        options: target, GPUs and limits.
        progress: called with (phase, steps done, steps) from TensorRT's phases; an exception in it ends the build.
        shown: how to name the graph in a message.
        timing_cache: what an earlier build measured on this GPU with this TensorRT, from the trust store.

    Raises:
        RefusedError: the graph names data in other files, or is malformed.
        BadInputError: TensorRT's parser does not take it; the node, its operator and the reason are named.
        MachineError: TensorRT is missing, finds no GPU, runs out of memory, crashes or fails for this GPU.
    """
    head, parts = _in_child("build", onnx, options, shown, timing_cache, progress)
    record = head["built"]
    record["compute_capabilities"] = tuple(record["compute_capabilities"])
    return BuiltEngine(plan=parts[0], timing_cache=parts[1] or None, **record)


def inspect_engine(onnx: bytes, engine: bytes, options: BuildOptions, *, shown: str = "the graph") -> Inspection:
    """Query the engine inspector in a child process.

    What ends that process leaves the engine as it was built.

    Args:
        onnx: the graph that the engine was built from.
        engine: what `build_engine` gave for it.
        options: of that build.
        shown: how to name the graph in a message.

    Raises:
        MachineError: the child ran out of memory, crashed, or TensorRT does not tell.
    """
    found = _in_child("inspect", onnx, options, shown, engine)[0]["inspected"]
    parsed = {name: (int(macs), str(precision)) for name, (macs, precision) in found["parsed"].items()}
    return Inspection(found["compiler"], found["text"], parsed)


def _in_child(
    job: str,
    onnx: bytes,
    options: BuildOptions,
    shown: str,
    more: bytes,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], list[bytes]]:
    """The answer of a child to one request, with the bytes that belong to it.

    `more` is what the request has beside the graph: a timing cache or an engine.
    """
    with _start(shown) as child:
        level = _log.getEffectiveLevel()
        request = {"options": asdict(options), "shown": shown, "job": job, "log_level": level}
        with suppress(OSError):  # a child that has already died is noticed below
            _send(child.pipe, request, (onnx, more))
        for head, parts in _answers_of(child):
            if "progress" in head:
                if progress is not None:
                    progress(*head["progress"])
            elif "error" in head:
                said = head["error"]
                raise getattr(errors, said["error"])(
                    said["what"], cause=said["cause"], next=said["next"], log=said["log"]
                )
            else:
                return head, parts
        raise _died(child)


def _send(pipe: Connection, head: Mapping[str, Any], parts: Sequence[bytes] = ()) -> None:
    pipe.send_bytes(json.dumps({**head, "parts": len(parts)}).encode("ascii"))
    for part in parts:
        pipe.send_bytes(part)


def _receive(pipe: Connection) -> tuple[dict[str, Any], list[bytes]]:
    head = json.loads(pipe.recv_bytes())
    return head, [pipe.recv_bytes() for _ in range(head["parts"])]


def _answers_of(child: _Child) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    """Messages of the child until it ends; checks memory, and passes on log records.

    Raises:
        MachineError: memory runs short.
    """
    while True:
        _look(child)
        try:
            if not child.pipe.poll(_LOOK_EVERY_S):
                continue
            head, parts = _receive(child.pipe)
        except (EOFError, OSError):  # it has ended, perhaps inside a message
            return
        if "log" in head:
            name, level, text = head["log"]
            logging.getLogger(name).log(level, "%s", text)
        else:
            yield head, parts


def _died(child: _Child) -> MachineError:
    """The error for a child that ended without an answer."""
    code = child.process.wait()
    child.words.seek(0, os.SEEK_END)
    child.words.seek(max(child.words.tell() - _WORDS_KEPT, 0))
    said = child.words.read().decode("utf-8", "replace").splitlines()
    held = f"it held {mib(child.peak_bytes)} at most; before: {child.before}; least seen: {child.lowest}"
    advice = MORE_MEMORY
    if code == -signal.SIGKILL:
        how = "was killed (signal 9)"
        cause = f"memory ran out, and the kernel ended the largest process; {held}"
    elif any("bad_alloc" in line or "MemoryError" in line for line in said):
        how, cause = "could not get the memory that it asked for", held
    else:
        ended = f"crashed ({signal.Signals(-code).name})" if code < 0 else f"ended with status {code}"
        how = f"{ended} without an answer"
        cause = "a fault of this TensorRT or its driver, or a broken installation; its last words are below"
        advice = "build one graph at a time with --graph to find which one does it"
    what = f"The process that built an engine from {child.shown} {how}."
    return MachineError(what, cause=cause, next=advice, log=said)


def _look(child: _Child) -> None:
    """Check memory, five times a second at most."""
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


# ---------------------------------------------------------------------------------------------------- the child's side
Send = Callable[..., None]  # a message's head, and its parts


def serve(descriptor: int, parent: int) -> None:
    """Answer one request.

    Args:
        descriptor: the child's end of the pipe.
        parent: its process id; the child ends with it.
    """
    if not end_with(parent):
        return
    writing = threading.Lock()  # TensorRT logs from threads of its own
    with Connection(descriptor) as pipe:

        def send(head: Mapping[str, Any], parts: Sequence[bytes] = ()) -> None:
            with writing:
                _send(pipe, head, parts)

        send(*_answer(pipe, send))


class _Forward(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, send: Send) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send({"log": (record.name, record.levelno, record.getMessage())})


def _answer(pipe: Connection, send: Send) -> tuple[dict[str, Any], list[bytes]]:
    def progress(*step: object) -> None:
        send({"progress": step})

    try:
        request, (onnx, more) = _receive(pipe)
        logger = logging.getLogger(__name__.partition(".")[0])
        logger.setLevel(request["log_level"])
        logger.addHandler(_Forward(send))
        options, shown = BuildOptions(**request["options"]), request["shown"]
        if request["job"] == "inspect":
            found = inspect_here(onnx, more, options, shown=shown)
            return {"inspected": asdict(found)}, []
        built = build_here(onnx, options, progress, shown=shown, timing_cache=more)
    except LogoformerError as error:
        return {"error": error.to_json()}, []
    except MemoryError:
        return {"error": MachineError("The build ran out of memory.", next=MORE_MEMORY).to_json()}, []
    record = {name: value for name, value in asdict(built).items() if name not in ("plan", "timing_cache")}
    record["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"built": record}, [built.plan, built.timing_cache or b""]
