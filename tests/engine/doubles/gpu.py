"""A card that keeps a book: every allocation, copy, stream, event and graph, and whatever was done wrong with them.

Device pointers lie in a range of addresses that no process has, so a host that reads one crashes as it would. What is
put into a stream waits until somebody waits for it, so a missing wait gives a wrong answer every time: host memory that
a pending copy will fill holds 0xFF until then (NaN as a float), and memory that a pending copy will read may not
change.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

DEVICE_SPACE = 0x5A0000000000
PENDING, FREED, FRESH = 0xFF, 0xDD, 0xCD

OUT_OF_MEMORY, INVALID_VALUE, INVALID_CONTEXT, INVALID_HANDLE, NOT_READY = 2, 1, 201, 400, 600
ILLEGAL_ADDRESS, CAPTURE_UNSUPPORTED, CAPTURE_INVALIDATED = 700, 900, 901
ALONE = ("free", "free_host", "stream_destroy", "event_destroy")  # pycuda's own objects make their context current
WITHOUT_CONTEXT = (*ALONE, "set_device", "retain", "kernel")
STICKY = (214, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 911, 999)


class Failure(Exception):
    """A CUDA call that fails; the faces give it their own form."""

    def __init__(self, code: int) -> None:
        super().__init__(f"CUDA error {code}")
        self.code = code


@dataclass
class Block:
    """Memory: `data` is the real bytes, `base` their address, which for the host's memory is the same on both sides."""

    base: int
    data: np.ndarray
    kind: str  # 'device', 'pinned', 'mapped' or 'managed'
    what: str = ""
    device: int = 0


@dataclass
class Operation:
    """Something in a stream. `reads` and `writes` are pieces of host memory that it will touch."""

    run: Callable[[], None]
    reads: tuple[np.ndarray, ...] = ()
    writes: tuple[np.ndarray, ...] = ()
    before: tuple[bytes, ...] = ()
    renews: bool = False  # writes mapped memory on the device's own account: what pends after it starts from there
    done: bool = False
    what: str = ""  # 'upload', 'frame', 'temporal', ...; its length in ticks is `Gpu.ticks[what]`, or 1
    issued: int = 0
    begun: int = 0
    ended: int = 0


@dataclass
class Stream:
    queue: list[Operation] = field(default_factory=list)
    capture: list[Operation] | None = None
    captor: int = 0  # the thread that captures
    broken: bool = False  # the capture
    device: int = 0
    free_at: int = 0
    priority: int = 0


@dataclass
class Event:
    stream: int = 0
    mark: Operation | None = None
    timing: bool = False


class Gpu:
    """One card, shared by a CUDA face and a TensorRT double."""

    def __init__(
        self,
        sm: str = "sm86",
        integrated: bool = False,
        memory: int = 1 << 30,
        count: int = 1,
        concurrent: bool = False,
    ) -> None:
        self.sm, self.integrated, self.total, self.count = sm, integrated, memory, count
        self.concurrent = concurrent  # the host may touch managed memory while the card works
        self.violations: list[str] = []
        self.calls: Counter[str] = Counter()
        self.lost = 0
        self.blocks: list[Block] = []
        self.freed: list[Block] = []
        self.streams: dict[int, Stream] = {}
        self.events: dict[int, Event] = {}
        self.graphs: dict[int, list[Operation]] = {}
        self.executables: dict[int, list[Operation]] = {}
        self.objects: Counter[str] = Counter()  # TensorRT's engines and contexts
        self.needs_context = False  # pycuda: nothing goes without a context that was pushed in this thread
        self.contexts = threading.local()
        self.retained_in = 0  # pycuda: the thread in which an object may make its context current by itself
        self.now = 0  # a clock of its own, in ticks: the host's time passes in waits and in `pass_time` alone
        self.ticks: dict[str, int] = {}
        self.history: list[Operation] | None = None  # what ran, in that order, where somebody wants to know
        self.simple = False  # engines answer by `trt.simple`, which takes no time, and not by ONNX Runtime
        self.waits = 0  # the host's, for something that was not past
        self.carried: Counter[str] = Counter()  # bytes by 'upload' and 'download'
        self.made: set[int] = set()  # cards with a primary context: hundreds of megabytes each
        self.lock = threading.RLock()  # calls of several threads, each with a runtime of its own, go one by one
        self.built_on: list[int] = []  # cards on which TensorRT measured an engine's kernels
        self._faults: dict[str, list[tuple[int, object]]] = {}
        self._handles = itertools.count(0xBEE000, 16)
        self._top = DEVICE_SPACE

    # ------------------------------------------------------------------------------------------------------- the book
    def blame(self, what: str) -> None:
        self.violations.append(what)

    # ------------------------------------------------------------------------------------------------------- contexts
    @property
    def stack(self) -> list[int]:
        """Cards whose contexts were pushed in this thread."""
        if not hasattr(self.contexts, "stack"):
            self.contexts.stack = []
        found: list[int] = self.contexts.stack
        return found

    def here(self) -> int:
        """The card that is current in this thread."""
        return self.stack[-1] if self.stack else getattr(self.contexts, "chosen", 0)

    def choose(self, device: int) -> None:
        """`cudaSetDevice`: since CUDA 12 it makes the card's primary context at once."""
        self.enter("set_device")
        self.made.add(device)
        if self.stack:
            self.stack[-1] = device
        else:
            self.contexts.chosen = device

    def retain(self, device: int) -> None:
        self.enter("retain")
        self.retained_in = threading.get_ident()
        self.made.add(device)

    def push(self, device: int) -> None:
        if self.lost:
            raise Failure(self.lost)
        if device not in self.made:
            self.blame("a context was pushed that nobody retained")
        self.calls["push"] += 1
        self.stack.append(device)

    def pop(self) -> None:
        self.calls["pop"] += 1
        if not self.stack:
            raise Failure(INVALID_CONTEXT)
        self.stack.pop()

    # ----------------------------------------------------------------------------------------------------------- calls
    def leaks(self) -> dict[str, int]:
        """What is still there, by kind; empty when everything was given back."""
        found = Counter(block.kind for block in self.blocks if block.what != "foreign")
        found += Counter(streams=len(self.streams), events=len(self.events))
        found += Counter(graphs=len(self.graphs), executables=len(self.executables)) + self.objects
        return dict(found)

    def forget(self) -> None:
        """What a lost card held goes with the process."""
        for book in (self.blocks, self.streams, self.events, self.graphs, self.executables, self.objects):
            book.clear()

    def inject(self, call: str, fault: object, skip: int = 0) -> None:
        """The call after `skip` further ones fails: with a CUDA error (int), or in a way that the call knows."""
        self._faults.setdefault(call, []).append((self.calls[call] + skip, fault))

    def enter(self, call: str) -> object:
        """Counts a call; raises what was injected as a CUDA error, gives back what was injected otherwise."""
        number = self.calls[call]
        self.calls[call] += 1
        if call in ALONE and self.needs_context and not self.stack and threading.get_ident() != self.retained_in:
            self.blame(f"{call} in another thread than its context's, which is not current: pycuda refuses")
            raise Failure(INVALID_CONTEXT)
        if self.needs_context and call not in WITHOUT_CONTEXT and not self.stack:
            self.blame(f"{call} without a current context")
            raise Failure(INVALID_CONTEXT)
        if call not in WITHOUT_CONTEXT and not self.needs_context:
            self.made.add(self.here())  # the runtime API makes the context that a call needs
        if self.lost:
            raise Failure(self.lost)
        for at, fault in self._faults.get(call, []):
            if at == number:
                if isinstance(fault, int) and not isinstance(fault, bool):
                    self.fail(fault)
                return fault
        return None

    def fail(self, code: int) -> None:
        if code in STICKY:
            self.lost = code
        raise Failure(code)

    def _forbidden_while_capturing(self, whole: bool = False) -> None:
        """Unsafe calls of the thread that captures break a thread-local capture; those of the whole device any."""
        here = threading.get_ident()
        capturing = [s for s in self.streams.values() if s.capture is not None and (whole or s.captor == here)]
        for stream in capturing:
            stream.broken = True
        if capturing:
            raise Failure(CAPTURE_UNSUPPORTED)

    # --------------------------------------------------------------------------------------------------------- memory
    def malloc(self, size: int, what: str = "") -> int:
        self.enter("malloc")
        self._forbidden_while_capturing()
        if size <= 0 or size > self.free_bytes():
            raise Failure(OUT_OF_MEMORY)
        base = self._top
        self._top += -(-size // 4096) * 4096 + 4096  # a gap, so that an overrun meets nothing
        self.blocks.append(Block(base, np.full(size, FRESH, np.uint8), "device", what, self.here()))
        return base

    def free_bytes(self) -> int:
        return self.total - sum(block.data.nbytes for block in self.blocks if block.device == self.here())

    def host_alloc(self, size: int, mapped: bool, managed: bool = False) -> Block:
        self.enter("host_alloc")
        if managed and not self.concurrent:
            self.blame("managed memory, which the host would touch while the card works")
        self._forbidden_while_capturing()
        if size <= 0 or size > self.free_bytes():
            raise Failure(OUT_OF_MEMORY)
        data = np.full(size, FRESH, np.uint8)
        block = Block(
            data.ctypes.data, data, "managed" if managed else "mapped" if mapped else "pinned", device=self.here()
        )
        self.blocks.append(block)
        return block

    def release(self, call: str, base: int, kinds: tuple[str, ...]) -> None:
        """Frees; waits for everything first, as cudaFree does."""
        self.enter(call)
        self._forbidden_while_capturing()
        found = [b for b in self.blocks if base == b.base and b.kind in kinds]
        if not found:
            self.blame(f"{call} of {base:#x}, which is not allocated (freed twice, or foreign)")
            raise Failure(INVALID_VALUE)
        self.drain_all()
        self.blocks.remove(found[0])
        found[0].data[:] = FREED
        self.freed.append(found[0])

    def view(self, pointer: int, size: int) -> tuple[np.ndarray, Block]:
        """The bytes that a kernel or a copy means."""
        for block in self.blocks:
            if block.base <= pointer < block.base + block.data.nbytes:
                if pointer + size > block.base + block.data.nbytes:
                    self.blame(f"{size} bytes at {pointer:#x} run over a {block.kind} block of {block.data.nbytes}")
                    self.fail(ILLEGAL_ADDRESS)
                at = pointer - block.base
                return block.data[at : at + size], block
        for block in self.freed:
            if block.base <= pointer < block.base + block.data.nbytes:
                self.blame(f"{pointer:#x} is used after it was freed")
                self.fail(ILLEGAL_ADDRESS)
        self.blame(f"{pointer:#x} is a foreign pointer")
        self.fail(ILLEGAL_ADDRESS)
        raise AssertionError

    def on_host(self, address: int, size: int) -> np.ndarray:
        """Page-locked memory at a host address; pageable memory makes an asynchronous copy wait."""
        for block in self.blocks:
            start = block.data.ctypes.data
            if block.kind != "device" and start <= address and address + size <= start + block.data.nbytes:
                return block.data[address - start : address - start + size]
        self.blame(f"{size} bytes at host address {address:#x} are not page-locked, freed, or run over")
        raise Failure(INVALID_VALUE)

    # -------------------------------------------------------------------------------------------------------- streams
    def stream_create(self) -> int:
        self.enter("stream_create")
        handle = next(self._handles)
        self.streams[handle] = Stream(device=self.here())
        return handle

    def stream_of(self, handle: int) -> Stream:
        if handle not in self.streams:
            self.blame(f"{handle:#x} is no stream of ours")
            raise Failure(INVALID_HANDLE)
        if self.streams[handle].device != self.here():
            self.blame(f"a stream of card {self.streams[handle].device} is used while card {self.here()} is current")
            raise Failure(INVALID_HANDLE)
        return self.streams[handle]

    def stream_destroy(self, handle: int) -> None:
        self.enter("stream_destroy")
        self.drain(handle)
        del self.streams[handle]

    def put(self, handle: int, operation: Operation) -> None:
        """Into a stream, or into its capture."""
        stream = self.stream_of(handle)
        if stream.capture is not None:
            stream.capture.append(operation)
            return
        for piece in operation.writes:
            piece[:] = PENDING
        before = tuple(piece.tobytes() for piece in operation.reads)
        stream.queue.append(replace(operation, before=before, issued=self.now))

    def synchronize(self, handle: int) -> None:
        self.enter("synchronize")
        if self.stream_of(handle).capture is not None:
            self._forbidden_while_capturing(whole=True)
        self.waits += bool(self.stream_of(handle).queue)
        self.drain(handle)
        self.now = max(self.now, self.streams[handle].free_at)

    def device_synchronize(self) -> None:
        self.enter("device_synchronize")
        self._forbidden_while_capturing(whole=True)
        self.waits += any(stream.queue for stream in self.streams.values())
        self.drain_all()
        self.now = max([self.now, *(stream.free_at for stream in self.streams.values())])

    def pass_time(self, ticks: int) -> None:
        """The host does something else; meanwhile the device does what it can."""
        self.now += ticks
        for handle, stream in list(self.streams.items()):
            while stream.queue:
                first = stream.queue[0]
                if max(stream.free_at, first.issued) + self.ticks.get(first.what, 1) > self.now:
                    break
                self.drain(handle, first)

    def drain_all(self) -> None:
        for handle in list(self.streams):
            self.drain(handle)

    def drain(self, handle: int, until: Operation | None = None) -> None:
        """Runs the operations of a stream, in order, up to one operation or all of it."""
        queue = self.streams[handle].queue
        while queue and not (until is not None and until.done):
            operation = queue.pop(0)
            for piece, before in zip(operation.reads, operation.before, strict=True):
                if piece.tobytes() != before:
                    self.blame("host memory was changed before the copy that reads it ran")
            for piece in operation.writes:
                if not (piece == PENDING).all():
                    self.blame("host memory was changed while a copy into it was pending")
            operation.run()
            operation.done = True
            self.carried[operation.what] += sum(piece.nbytes for piece in (*operation.reads, *operation.writes))
            stream = self.streams[handle]
            operation.begun = max(stream.free_at, operation.issued)
            operation.ended = stream.free_at = operation.begun + self.ticks.get(operation.what, 1)
            if self.history is not None:
                self.history.append(replace(operation, run=lambda: None, reads=(), writes=(), before=()))
            for later in queue if operation.renews else ():
                later.before = tuple(piece.tobytes() for piece in later.reads)
                for piece in later.writes:
                    piece[:] = PENDING

    # --------------------------------------------------------------------------------------------------------- events
    def event_create(self, *, timing: bool = False) -> int:
        self.enter("event_create")
        handle = next(self._handles)
        self.events[handle] = Event(timing=timing)
        return handle

    def event_of(self, handle: int) -> Event:
        if handle not in self.events:
            self.blame(f"{handle:#x} is no event of ours")
            raise Failure(INVALID_HANDLE)
        return self.events[handle]

    def event_destroy(self, handle: int) -> None:
        self.enter("event_destroy")
        self.event_of(handle)
        del self.events[handle]

    def record(self, event: int, stream: int) -> None:
        self.enter("record")
        self.put(stream, Operation(lambda: None, what="record"))
        queue = self.stream_of(stream).queue
        self.event_of(event).stream, self.event_of(event).mark = stream, queue[-1] if queue else None

    def wait(self, stream: int, event: int) -> None:
        self.enter("wait")
        mark, other = self.event_of(event).mark, self.event_of(event).stream
        if mark is not None:
            self.put(stream, Operation(lambda: self._pass(other, mark)))

    def _pass(self, stream: int, mark: Operation) -> None:
        if not mark.done and stream in self.streams:
            self.drain(stream, mark)

    def event_query(self, event: int) -> bool:
        """Whether it is past; a host that asks in a loop lets time pass."""
        self.enter("query")
        mark = self.event_of(event).mark
        past = mark is None or mark.done
        if not past:
            self.pass_time(1)
        return past

    def elapsed(self, start: int, end: int) -> int:
        """Ticks between two events; real ones would be milliseconds, these are nothing's."""
        self.enter("elapsed")
        marks = [self.event_of(event).mark for event in (start, end)]
        if not all(self.event_of(event).timing for event in (start, end)) or None in marks:
            raise Failure(INVALID_HANDLE)
        if not all(mark.done for mark in marks if mark is not None):
            raise Failure(NOT_READY)
        return marks[1].ended - marks[0].ended  # type: ignore[union-attr]

    def event_synchronize(self, event: int) -> None:
        self.enter("synchronize")
        self._forbidden_while_capturing()
        found = self.event_of(event)
        if found.mark is not None and not found.mark.done:
            self.waits += 1
            self._pass(found.stream, found.mark)
            self.now = max(self.now, found.mark.ended)

    # --------------------------------------------------------------------------------------------------------- copies
    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        """Between any two places: which of them is the host's, the addresses say."""
        pinned = [self.side(pointer, size) == "pinned" for pointer in (to, source)]
        if pinned[1] and not pinned[0]:
            self.to_device(to, source, size, stream)
        elif pinned[0] and not pinned[1]:
            self.to_host(to, source, size, stream)
        elif not any(pinned):
            self.on_device(to, source, size, stream)
        else:
            self.blame("a copy from host memory to host memory")

    def side(self, pointer: int, size: int) -> str:
        """The kind of memory at an address; what is nobody's is taken for the host's, which must be page-locked."""
        inside = [b.kind for b in self.blocks if b.base <= pointer < b.base + b.data.nbytes]
        return inside[0] if inside else ("device" if pointer >= DEVICE_SPACE and pointer < self._top else "pinned")

    def to_device(self, pointer: int, address: int, size: int, stream: int) -> None:
        self.enter("copy")
        source, (target, _) = self.on_host(address, size), self.view(pointer, size)
        self.put(stream, Operation(lambda: self._copy(target, source, pointer), reads=(source,), what="upload"))

    def to_host(self, address: int, pointer: int, size: int, stream: int) -> None:
        self.enter("copy")
        target, (source, _) = self.on_host(address, size), self.view(pointer, size)
        self.put(stream, Operation(lambda: self._copy(target, source, pointer), writes=(target,), what="download"))

    def on_device(self, to: int, source: int, size: int, stream: int) -> None:
        self.enter("copy")
        self.view(source, size)
        renews = self.view(to, size)[1].kind in ("mapped", "managed")
        self.put(stream, Operation(lambda: self._move(to, source, size), renews=renews, what="move"))

    def _move(self, to: int, source: int, size: int) -> None:
        self.view(to, size)[0][:] = self.view(source, size)[0]

    def _copy(self, target: np.ndarray, source: np.ndarray, pointer: int) -> None:
        self.view(pointer, target.nbytes)  # still there?
        target[:] = source

    def fill(self, pointer: int, value: int, size: int, stream: int) -> None:
        self.enter("fill")
        renews = self.view(pointer, size)[1].kind in ("mapped", "managed")

        def run() -> None:
            self.view(pointer, size)[0][:] = value

        self.put(stream, Operation(run, renews=renews, what="fill"))

    # --------------------------------------------------------------------------------------------------------- graphs
    def begin_capture(self, handle: int, thread_local: bool) -> None:
        self.enter("begin_capture")
        stream = self.stream_of(handle)
        if not thread_local:
            self.blame("a capture that is not thread-local: it makes other threads' calls fail")
        if stream.queue:
            self.drain(handle)
        stream.capture, stream.captor, stream.broken = [], threading.get_ident(), False

    def end_capture(self, handle: int) -> int:
        stream = self.stream_of(handle)
        captured, stream.capture = stream.capture, None
        self.enter("end_capture")
        if captured is None or stream.broken:
            raise Failure(CAPTURE_INVALIDATED)
        graph = next(self._handles)
        self.graphs[graph] = captured
        return graph

    def instantiate(self, graph: int) -> int:
        self.enter("instantiate")
        executable = next(self._handles)
        self.executables[executable] = self.graphs[graph]
        return executable

    def launch(self, executable: int, stream: int) -> None:
        self.enter("launch")
        if executable not in self.executables:
            self.blame(f"launch of graph {executable:#x}, which is not there any more")
            raise Failure(INVALID_HANDLE)
        for operation in self.executables[executable]:
            self.put(stream, operation)


def _one_by_one(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def locked(self: Gpu, *given: Any, **named: Any) -> Any:
        with self.lock:
            return call(self, *given, **named)

    return locked


for _name, _call in list(vars(Gpu).items()):
    if not _name.startswith("_") and callable(_call):
        setattr(Gpu, _name, _one_by_one(_call))
