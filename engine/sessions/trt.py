"""The session on TensorRT and TensorRT-RTX: one engine, one stream, fixed addresses.

A call copies what the host wrote to the device, starts the engine, copies what the host reads back, and waits for its
own stream. The engine is started by a CUDA graph where one could be captured and answers as the plain start does; the
copies stand outside of it, because which tensors the host writes may change: a ring that `take` fills is never copied.
After a sticky CUDA error the session is FAILED for good.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter_ns
from typing import Any

import numpy as np

from ...bundle import GraphEntry, TensorSpec
from ...errors import BadInputError, UsageError
from ..cuda.device_arrays import check_device_array, is_on_device, opened
from ..cuda.layer import Cuda, CudaError, explain, lost
from ..machine.tensorrt import TrtModule
from ..trust.store import RuntimeCache
from .contract import Array, Session
from .trt_engine import DeviceBuffers, TrtEngine, capture_checked

_PROBE_RUNS = 9


class TrtSession:
    """One graph on a GPU, for the thread that opened it.

    `close` may come from another thread between two calls.

    Args:
        trt: the TensorRT to use.
        cuda: the device, shared by the sessions of one engine.
        data: engine bytes that `admit.admit_engine` let in, and nothing else.
        entry: what the index says of the graph.
        cache: RTX's runtime cache; None keeps none.

    Attributes:
        inputs, outputs: tensors by name.

    Raises:
        RefusedError: other tensors than promised.
        MachineError: TensorRT does not take the engine, or memory is short.
        DeviceLostError: a sticky CUDA error.
    """

    def __init__(
        self, trt: TrtModule, cuda: Cuda, data: bytes, entry: GraphEntry, cache: RuntimeCache | None = None
    ) -> None:
        self.shown = f"{entry.graph}.{entry.precision}.b{entry.batch}"
        self.cuda = cuda
        self._closed = False
        self._graph: int | None = None
        self._freeing = contextlib.ExitStack()  # in the end: what uses goes before what is used
        try:
            with self._working("opening"):
                self._open(trt, data, entry, cache)
        except BaseException:
            self.close()
            raise

    def _open(self, trt: TrtModule, data: bytes, entry: GraphEntry, cache: RuntimeCache | None) -> None:
        cuda = self.cuda
        self._stream = cuda.stream()
        self._freeing.callback(self._quietly, cuda.free_stream, self._stream)
        self._taken = cuda.event()
        self._freeing.callback(self._quietly, cuda.free_event, self._taken)
        self._buffers = DeviceBuffers(cuda, {}, False, self._stream, self.shown)
        self._freeing.callback(lambda: self._buffers.close())  # those of that moment
        self._engine = engine = TrtEngine(trt, cuda, data, entry, cache)
        self._freeing.callback(engine.close)
        self.inputs: Mapping[str, TensorSpec] = engine.inputs
        self.outputs: Mapping[str, TensorSpec] = engine.outputs
        self._from_host = list(self.inputs)  # copied before a run: what the host writes
        self._to_host = list(self.outputs)  # copied after a run: what the host reads
        self._choose_memory()
        self._once()  # plain: kernels are loaded, RTX compiles; a graph may be captured only after that
        engine.save_cache()
        self._graph, reason = capture_checked(cuda, engine, self._buffers, self._stream, self._once)
        if self._graph is not None:
            self._freeing.callback(self._quietly, cuda.free_graph, self._graph)
        if reason:
            slower = f"{self.shown} is started kernel by kernel, without a CUDA graph: {reason}"
            warnings.warn(slower, RuntimeWarning, stacklevel=2)
        self._to_host = []  # from now on what somebody has asked for

    # ----------------------------------------------------------------------------------------------------------- memory
    def _choose_memory(self) -> None:
        """Takes mapped memory where the card shares the CPU's and is measured faster with it."""
        self._use(mapped=False)
        if self.cuda.integrated:
            pinned = self._probe()
            self._use(mapped=True)
            if self._probe() >= pinned:
                self._use(mapped=False)

    def _use(self, *, mapped: bool) -> None:
        self._buffers.close()
        specs = {**self.inputs, **self.outputs}
        self._buffers = DeviceBuffers(self.cuda, specs, mapped, self._stream, self.shown)
        for name, pointer in self._buffers.pointers.items():
            self._engine.set_address(name, pointer)

    def _probe(self) -> int:
        """The median time of a run with all its copies, in ns, after one that warms up."""
        times = []
        for _ in range(1 + _PROBE_RUNS):
            started = perf_counter_ns()
            self._once()
            times.append(perf_counter_ns() - started)
        return sorted(times[1:])[_PROBE_RUNS // 2]

    # ----------------------------------------------------------------------------------------------------- what it does
    def input(self, name: str) -> Array:
        self._check("writing an input")
        return self._on_host(name, "input", self._from_host)

    def output(self, name: str) -> Array:
        self._check("reading an output")
        return self._on_host(name, "output", self._to_host)

    def run(self) -> None:
        """Computes the outputs from the inputs; returns when they can be read.

        Raises:
            MachineError: TensorRT or CUDA failed; the session can be used again.
            DeviceLostError: a sticky error; the session cannot be used again.
            UsageError: the session is closed, or belongs to another thread.
        """
        with self._working("running"):
            self._once(self._graph)

    def take(self, source: Session, output: str, name: str, row: int, index: int = 0) -> None:
        """See `Session.take`; a copy on the device. The host has waited for the source's run."""
        self._check("taking rows")
        if not isinstance(source, TrtSession) or source.cuda is not self.cuda:
            raise UsageError(
                f"{self.shown} takes rows of a session on the same card and layer only.",
                next="open both with one logoformer.load(...)",
            )
        source._check("giving rows")
        target, origin = self._buffers, source._buffers
        given, wanted = source.outputs[output], self.inputs[name]
        batch, rows, width = given.shape  # [B, n, d]
        fits = (given.dtype, width) == (wanted.dtype, wanted.shape[1]) and 0 <= row <= wanted.shape[0] - rows
        if not fits or not 0 <= index < batch:
            raise BadInputError(f"{given} [{index}] does not fit into {wanted} from row {row} on; nothing was copied.")
        size = origin.sizes[output] // batch
        with self._working("taking rows"):
            cuda = self.cuda
            to = target.pointers[name] + row * (size // rows)
            cuda.on_device(to, origin.pointers[output] + index * size, size, self._stream)
            cuda.record(self._taken, self._stream)
            cuda.wait(source._stream, self._taken)  # its next run may not write what is still being copied
        if name in self._from_host:
            self._from_host.remove(name)

    def feed(self, name: str, array: Any) -> None:
        """Fill an input from an array on the device directly, or from a numpy array.

        When it returns, the array may be changed again.

        Args:
            name: of the input.
            array: exactly of its dtype and shape, contiguous, on this card.

        Raises:
            BadInputError: anything else; nothing is cast, reshaped or moved silently.
        """
        self._check("feeding an input")
        buffers, spec = self._buffers, self.inputs[name]
        if not is_on_device(array):
            if not isinstance(array, np.ndarray) or (array.dtype.name, array.shape) != (spec.dtype, spec.shape):
                given = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
                raise BadInputError(f"{name} is given as {given}; {spec.dtype} {list(spec.shape)} is expected.")
            np.copyto(self.input(name), array, casting="no")
            return
        with self._working("feeding an input"), opened(array, self._stream) as found:
            check_device_array(found, spec, self.cuda)
            if found.stream is not None:
                self.cuda.follow(self._stream, found.stream)
            self.cuda.on_device(buffers.pointers[name], found.pointer, buffers.sizes[name], self._stream)
            self.cuda.synchronize(self._stream)
        if name in self._from_host:
            self._from_host.remove(name)

    def close(self) -> None:
        """Frees everything, what uses before what is used. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(CudaError):  # without the context, no call but a release makes sense
                stack.enter_context(self.cuda)  # type: ignore[arg-type]
                if hasattr(self, "_stream"):
                    self.cuda.synchronize(self._stream)
            self._freeing.close()
        self._graph = None

    @staticmethod
    def _quietly(call: Callable[[int], None], handle: int) -> None:
        with contextlib.suppress(CudaError):  # a device that is lost takes nothing back
            call(handle)

    # ----------------------------------------------------------------------------------------------------------- inside
    def _once(self, graph: int | None = None) -> None:
        """Copies in, starts by a graph or plainly, copies out, waits."""
        cuda, buffers, stream = self.cuda, self._buffers, self._stream
        if not buffers.mapped:
            for name in self._from_host:
                cuda.to_device(buffers.pointers[name], buffers.bytes[name], stream)
        if graph is not None:
            cuda.launch(graph, stream)
        elif not self._engine.enqueue(stream):
            cuda.synchronize(stream)  # a sticky error shows itself here
            raise self._engine.failed(f"{self._engine.trt} refused to start {self.shown}.")
        if not buffers.mapped:
            for name in self._to_host:
                cuda.to_host(buffers.bytes[name], buffers.pointers[name], stream)
        cuda.synchronize(stream)

    def _on_host(self, name: str, kind: str, known: list[str]) -> Array:
        """A tensor's host buffer, one of `known` from now on; the device's bytes are fetched."""
        buffers = self._buffers
        if name not in known:
            with self._working(f"reading an {kind}"):
                if not buffers.mapped:
                    self.cuda.to_host(buffers.bytes[name], buffers.pointers[name], self._stream)
                self.cuda.synchronize(self._stream)
            known.append(name)
        return buffers.host[name]

    @contextlib.contextmanager
    def _working(self, doing: str) -> Iterator[None]:
        """Holds the session and the device's context; turns faults into errors for people."""
        self._check(doing)
        try:
            with self.cuda:
                try:
                    yield
                except BaseException:
                    if hasattr(self, "_stream"):  # what was begun ends before the host may touch its buffers again
                        self._quietly(self.cuda.synchronize, self._stream)
                    raise
        except CudaError as fault:
            raise explain(fault, self.cuda, f"{doing} {self.shown}") from fault

    def _check(self, doing: str) -> None:
        if self._closed:
            raise UsageError(f"{self.shown} is closed; {doing} is refused.", next="logoformer.load(...) opens it anew")
        if self.cuda.lost:
            raise lost(self.cuda, f"{doing} {self.shown}")
