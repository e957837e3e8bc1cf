"""The session on TensorRT and TensorRT-RTX: one engine, fixed addresses, a shared stream.

A run copies what the host wrote to the device, starts the engine, and copies what the host reads back; where a CUDA
graph could be captured and answers as the plain start does, it is all of that. Tokens and ring never leave the device.
`run_into`, the way of a stream's frames, waits for nothing: its input has two places on the host, so that the next
frame is written while this one is computed. After a sticky CUDA error the session is FAILED for good.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np

from ...bundle import GraphEntry, TensorSpec
from ...errors import BadInputError, UsageError
from ..cuda.device_arrays import check_device_array, is_on_device, opened
from ..cuda.layer import Cuda, CudaError, lost
from ..cuda.queue import Lease, Queue
from ..machine.tensorrt import TrtModule
from ..trust.store import RuntimeCache
from .contract import RING, Array, Session
from .trt_buffers import DEVICE, IN_PLACE, PINNED, DeviceBuffers, DeviceTensor
from .trt_engine import TrtEngine
from .trt_graph import capture_checked, overwritten
from .trt_memory import choose_memory
from .trt_working import Working

_ON_DEVICE = (RING, "tokens")  # what passes from session to session
_TWICE = "frame"  # the input with two places on the host
_FED = -1  # in place of the number of a place: the inputs are on the device already
_BARE = -2  # the outputs stay there too


class TrtSession:
    """One graph on a GPU; which thread may call is the runtime's business.

    Args:
        trt: the TensorRT to use.
        cuda: the device, shared by the sessions of one runtime.
        data: engine bytes that `admit.admit_engine` let in, and nothing else.
        entry: what the index says of the graph.
        cache: RTX's runtime cache; None keeps none.
        arena: a session whose ring this one reads, and which outlives it; None: it has its own.

    Attributes:
        inputs, outputs: tensors by name.

    Raises:
        RefusedError: other tensors than promised.
        MachineError: TensorRT does not take the engine, or memory is short.
        DeviceLostError: a sticky CUDA error.
    """

    overlaps = True

    def __init__(
        self, trt: TrtModule, cuda: Cuda, data: bytes, entry: GraphEntry, cache: RuntimeCache | None = None,
        arena: Session | None = None,
    ) -> None:  # fmt: skip
        self.shown = f"{entry.graph}.{entry.precision}.b{entry.batch}"
        self.cuda = cuda
        self._queue: Queue = cuda.queue
        self._arena = arena if isinstance(arena, TrtSession) else None
        self._closed = False
        self._graphs: dict[int, int | None] = {}  # by place of the input; None: started plainly
        self._place = 0  # of the input that is written next
        self._fed: set[str] = set()
        self._stale: frozenset[str] = frozenset()  # outputs whose copy on the host is of an earlier run
        self._moves_to: dict[tuple[Session, int, int], tuple[int, int, int]] = {}  # known ways of tokens into a ring
        # Inputs that live on the device, and that the host holds too: a ring for all who read it.
        self._written: set[str] = set() if self._arena is None else self._arena._written
        self._addressed = self._stream = 0
        self._freeing = contextlib.ExitStack()  # in the end: what uses goes before what is used
        self._running, self._opening = Working(self, "running"), Working(self, "opening")
        try:
            with self._opening:
                self._open(trt, data, entry, cache)
        except BaseException:
            self.close()
            raise

    def _open(self, trt: TrtModule, data: bytes, entry: GraphEntry, cache: RuntimeCache | None) -> None:
        cuda = self.cuda
        self._stream = self._queue.hold()
        self._freeing.callback(self._queue.release)
        self._mark = self._queue.mark()
        self._freeing.callback(self._quietly, cuda.free_event, self._mark.event)
        self._buffers = DeviceBuffers(cuda, {}, {}, {}, self._stream, self.shown)
        self._freeing.callback(lambda: self._buffers.close())  # those of that moment
        self._engine = engine = TrtEngine(trt, cuda, data, entry, cache)
        self._freeing.callback(engine.close)
        self.inputs: Mapping[str, TensorSpec] = engine.inputs
        self.outputs: Mapping[str, TensorSpec] = engine.outputs
        places = 2 if _TWICE in self.inputs else 1
        self._leases = [Lease() for _ in range(places)]
        self._place_marks = [self._queue.mark() for _ in range(places)]
        for mark in self._place_marks:
            self._freeing.callback(self._quietly, cuda.free_event, mark.event)
        self._choose_memory()
        self._plain(0)  # kernels are loaded, RTX compiles; a graph may be captured only after that
        engine.save_cache()
        for place in range(places):
            # A check writes noise into what the engine reads: a ring of others is kept as it is.
            (self._capture if self._arena is None else self._capture_late)(place)

    # ----------------------------------------------------------------------------------------------------------- memory
    def _choose_memory(self) -> None:
        kinds = {name: DEVICE if name in _ON_DEVICE else PINNED for name in (*self.inputs, *self.outputs)}
        specs = {**self.inputs, **self.outputs}
        shared = {} if self._arena is None else {RING: self._arena._buffers.tensors[RING]}
        cuda = self.cuda
        self._buffers = buffers = DeviceBuffers(cuda, specs, kinds, {_TWICE: 2}, self._stream, self.shown, shared)
        self._use()
        choose_memory(buffers, self._use, lambda: self._plain(0), shared=cuda.integrated, managed=cuda.managed)

    def _use(self) -> None:
        buffers = self._buffers
        for name, tensor in buffers.tensors.items():
            self._engine.set_address(name, tensor.pointers[0])
        self._addressed = 0
        # What crosses the bus, with its size; bound once.
        self._up = [t for n, t in buffers.tensors.items() if n in self.inputs and t.kind == PINNED]
        self._down = [t for n, t in buffers.tensors.items() if n in self.outputs and t.kind == PINNED]
        self._moves = [name for name in self.inputs if buffers.tensors[name].kind in IN_PLACE and name == _TWICE]
        self._computed = frozenset(name for name in self.outputs if buffers.tensors[name].kind == DEVICE)
        self._moves_to.clear()

    # ----------------------------------------------------------------------------------------------------- what it does
    def input(self, name: str) -> Array:
        tensor = self._tensor(name, "writing an input")
        if self._arena is not None and name == RING:
            return self._arena.input(name)
        if tensor.kind != DEVICE and not self._fed and self._queue.is_free(self._leases[self._place]):
            return tensor.host[self._place if len(tensor.host) > 1 else 0]
        if name in self._fed or (tensor.kind == DEVICE and name not in self._written):
            with Working(self, "reading an input"):
                found = self._buffers.read(name)
                np.copyto(self._buffers.mirror(name) if tensor.kind == DEVICE else tensor.host[self._place], found)
            self._fed.discard(name)
            self._written |= {name} & set(_ON_DEVICE)
        if name == _TWICE:
            lease = self._leases[self._place]
            if not self._queue.is_free(lease):
                with self._running:
                    self._queue.reclaim(lease, self._place_marks[self._place])
            return tensor.host[self._place]
        return tensor.host[0]

    def output(self, name: str) -> Array:
        tensor = self._tensor(name, "reading an output")
        if tensor.kind == DEVICE and (not tensor.host or name in self._stale):
            with Working(self, "reading an output"):
                np.copyto(self._buffers.mirror(name), self._buffers.read(name))
            self._stale = self._stale - {name}
        return tensor.host[0]

    def _tensor(self, name: str, doing: str) -> DeviceTensor:
        if self._closed or self.cuda.lost:
            self._check(doing)
        return self._buffers.tensors[name]

    def run(self) -> None:
        """Computes the outputs from the inputs; returns when they can be read.

        Raises:
            MachineError: TensorRT or CUDA failed; the session can be used again.
            DeviceLostError: a sticky error; the session cannot be used again.
            UsageError: the session is closed.
        """
        self.start()
        self.wait()

    def start(self) -> None:
        """Begins a run; `wait` waits for it, and both raise what `run` raises."""
        with self._running:
            self._issue(_FED if self._fed else self._place)
            self._queue.record(self._mark)

    def wait(self) -> None:
        """Returns when the outputs of the run that was started last can be read."""
        with self._running:
            self._queue.wait(self._mark)

    def run_into(self, target: Session, output: str, name: str, rows: Sequence[int], *, followed: bool = False) -> None:
        """See `Session.run_into`: on the device, and nothing is waited for."""
        moves = []
        for index, row in enumerate(rows):
            move = self._moves_to.get((target, row, index))
            if move is None:
                move = self._moves_to[target, row, index] = self._row(target, output, name, row, index)
            moves.append(move)
        into: TrtSession = target  # type: ignore[assignment]  # or there were no moves
        if into._closed:
            into._check("taking rows")
        cuda, stream, place = self.cuda, self._stream, self._place
        with self._running:
            self._issue(_FED if self._fed else place)
            for to, source, size in moves:
                cuda.on_device(to, source, size, stream)
            lease = self._leases[place]
            self._queue.lend(lease)
            if not followed:
                self._queue.record(self._place_marks[place])
        if not self._fed:
            self._place = (place + 1) % len(self._leases)
        into._written.discard(name)

    def time_stages(self) -> dict[str, float]:
        """Milliseconds of upload, engine and download of one run, by the device's own clock.

        A run of its own for a benchmark, with an event at each end of a stage; the engine is started as in a stream of
        arrays on the device: by its graph, without the copies.

        Raises:
            MachineError, DeviceLostError, UsageError: as `run`.
        """
        with Working(self, "timing"), contextlib.ExitStack() as stack:
            self._capture_late(_BARE)
            marks = [self.cuda.event(timing=True) for _ in range(4)]
            for mark in marks:
                stack.callback(self._quietly, self.cuda.free_event, mark)
            stages = (self._upload, lambda: self._issue(_BARE), self._download)
            self.cuda.record(marks[0], self._stream)
            for stage, mark in zip(stages, marks[1:], strict=True):
                stage()
                self.cuda.record(mark, self._stream)
            self._queue.synchronize()
            times = [self.cuda.elapsed_ms(*ends) for ends in pairwise(marks)]
        return dict(zip(("upload", "engine", "download"), times, strict=True))

    def take(self, source: Session, output: str, name: str, row: int, index: int = 0) -> None:
        """See `Session.take`; a copy on the device, behind all that was begun."""
        self._check("taking rows")
        if not isinstance(source, TrtSession):
            self._refuse_foreign()
        source._check("giving rows")
        to, origin, size = source._row(self, output, name, row, index)
        with Working(self, "taking rows"):
            self.cuda.on_device(to, origin, size, self._stream)
        self._written.discard(name)

    def _row(self, target: Session, output: str, name: str, row: int, index: int) -> tuple[int, int, int]:
        """(to, from, bytes) of one item of an output on its way into another session's input."""
        if not isinstance(target, TrtSession) or target.cuda is not self.cuda:
            self._refuse_foreign()
        given, wanted = self.outputs[output], target.inputs[name]
        batch, rows, width = given.shape  # [B, n, d]
        fits = (given.dtype, width) == (wanted.dtype, wanted.shape[1]) and 0 <= row <= wanted.shape[0] - rows
        if not fits or not 0 <= index < batch:
            raise BadInputError(f"{given} [{index}] does not fit into {wanted} from row {row} on; nothing was copied.")
        origin = self._buffers.tensors[output]
        size = origin.size // batch
        to = target._buffers.tensors[name].pointers[0] + row * (size // rows)
        return to, origin.pointers[0] + index * size, size

    def _refuse_foreign(self) -> NoReturn:
        raise UsageError(
            f"{self.shown} takes rows of a session on the same card and layer only.",
            next="open both with one logoformer.load(...)",
        )

    def feed(self, name: str, array: Any) -> None:
        """Fill an input from an array on the device directly, or from a numpy array.

        When it returns, the array may be changed again.

        Args:
            name: of the input.
            array: exactly of its dtype and shape, contiguous, on this card.

        Raises:
            BadInputError: anything else; nothing is cast, reshaped or moved silently.
        """
        tensor = self._tensor(name, "feeding an input")
        spec = tensor.spec
        if not is_on_device(array):
            if not isinstance(array, np.ndarray) or (array.dtype.name, array.shape) != (spec.dtype, spec.shape):
                given = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
                raise BadInputError(f"{name} is given as {given}; {spec.dtype} {list(spec.shape)} is expected.")
            self._fed.discard(name)
            np.copyto(self.input(name), array, casting="no")
            return
        with Working(self, "feeding an input"), opened(array, self._stream) as found:
            check_device_array(found, spec, self.cuda)
            self._capture_late(_FED)
            if found.stream is not None:
                self.cuda.follow(self._stream, found.stream)
            self.cuda.on_device(tensor.pointers[0], found.pointer, tensor.size, self._stream)
            self._queue.synchronize()  # or the caller's next picture would overtake the copy
        self._fed.add(name)

    def close(self) -> None:
        """Frees everything, what uses before what is used. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(CudaError):  # without the context, no call but a release makes sense
                stack.enter_context(self.cuda)  # type: ignore[arg-type]
                if self._stream:
                    self._queue.synchronize()
            self._freeing.close()
        self._graphs.clear()
        self._moves_to.clear()

    @staticmethod
    def _quietly(call: Callable[[int], None], handle: int) -> None:
        with contextlib.suppress(CudaError):  # a device that is lost takes nothing back
            call(handle)

    # ----------------------------------------------------------------------------------------------------------- inside
    def _capture(self, place: int) -> None:
        """A checked graph of a whole run from one place of the input; or a warning."""
        graph, reason = capture_checked(
            self.cuda,
            self._engine,
            self._buffers,
            self._stream,
            place,
            lambda: self._enqueue(place),
            lambda graph: self._plain(place, graph),
        )
        self._graphs[place] = graph
        if graph is not None:
            self._freeing.callback(self._quietly, self.cuda.free_graph, graph)
        if reason and place == 0:
            slower = f"{self.shown} is started kernel by kernel, without a CUDA graph: {reason}"
            warnings.warn(slower, RuntimeWarning, stacklevel=4)

    def _capture_late(self, place: int) -> None:
        """`_capture` in a session that is in use: what its inputs hold is kept."""
        if place in self._graphs:
            return
        self._queue.synchronize()
        buffers = self._buffers
        kept = {name: buffers.read_first(name, overwritten(buffers.tensors[name])) for name in self.inputs}
        seen = [tensor for name, tensor in buffers.tensors.items() if name in self.inputs and tensor.kind != DEVICE]
        hosts = [(one, one.copy()) for tensor in seen for one in tensor.host]
        self._capture(place)
        for name, values in kept.items():
            buffers.write(name, values)
        for one, held in hosts:
            one[...] = held

    def _issue(self, place: int) -> None:
        """Puts a run into the stream, by its graph or plainly."""
        if self._written:
            for name in self._written:  # by hand, as no stream of frames does
                self._buffers.write(name, self._buffers.mirror(name))
        graph = self._graphs.get(place)
        if graph is not None:
            self.cuda.launch(graph, self._stream)
        elif not self._enqueue(place):
            self._queue.synchronize()  # a sticky error shows itself here
            raise self._engine.failed(f"{self._engine.trt} refused to start {self.shown}.")
        self._stale = self._computed

    def _enqueue(self, place: int) -> bool:
        """Copies in, starts the engine, copies out; False when TensorRT refuses to start."""
        at = max(place, 0)
        if self._moves and self._addressed != at:
            for name in self._moves:
                self._engine.set_address(name, self._buffers.tensors[name].pointers[at])
            self._addressed = at
        if place >= 0:
            self._upload(at)
        if not self._engine.enqueue(self._stream):
            return False
        if place != _BARE:
            self._download()
        return True

    def _upload(self, place: int = 0) -> None:
        for tensor in self._up:
            where = place if len(tensor.blocks) > 1 else 0
            self.cuda.to_device(tensor.pointers[where], tensor.blocks[where], tensor.size, self._stream)

    def _download(self) -> None:
        for tensor in self._down:
            self.cuda.to_host(tensor.blocks[0], tensor.pointers[0], tensor.size, self._stream)

    def _plain(self, place: int, graph: int | None = None) -> None:
        """A whole run that is waited for."""
        if graph is not None:
            self.cuda.launch(graph, self._stream)
        elif not self._enqueue(place):
            self._queue.synchronize()
            raise self._engine.failed(f"{self._engine.trt} refused to start {self.shown}.")
        self._queue.synchronize()

    def _check(self, doing: str) -> None:
        if self._closed:
            raise UsageError(f"{self.shown} is closed; {doing} is refused.", next="logoformer.load(...) opens it anew")
        if self.cuda.lost:
            raise lost(self.cuda, f"{doing} {self.shown}")
