"""`TritonRuntime`: what a `Watch` needs of a runtime, answered by a Triton.

A watcher reads cameras and finds faces; the crops go to a server that other watchers use too. Its streams are
`StreamClient`s, so a server that is started again is survived, and answers are those of a local runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from ..bundle import Bundle
from ..clips import Frame
from ..engine.core import Result
from ..errors import RefusedError, UsageError, command, printable
from .client import StreamClient
from .settings import TritonConfig


class TritonRuntime:
    """A Triton that serves a bundle, in the place of a runtime that `logoformer.load` gives.

    Its calls come from one thread.

    Args:
        bundle: opened here, for labels, alignment and sampling; its graphs are not run.
        url: host and port of gRPC, such as 'localhost:8001'.
        name: as `logoformer triton --name` was told.
        warmup: that streams will ask for; the server decides it, so it must be the same.
        timeout_s: how long one call may take, a restart of the server included.

    Attributes:
        bundle: as given.
        backend: 'Triton at' that address.
        precision: as `logoformer triton` was told.
        frame_batches, temporal_batches: none; the server forms its own.

    Raises:
        MachineError: nobody answers, there is no such model, or tritonclient is not installed.
        RefusedError: the server has another bundle.
        UsageError: a wrong address, or another warm-up.
    """

    frame_batches: tuple[int, ...] = ()
    temporal_batches: tuple[int, ...] = ()

    def __init__(
        self, bundle: Bundle, url: str, *, name: str = "", warmup: str = "wait", timeout_s: float = 60.0
    ) -> None:
        self.bundle, self._url, self._timeout_s = bundle, url, timeout_s
        self._model = TritonConfig(name=name).model_name("stream")
        with StreamClient(url, color="rgb", model=self._model, timeout_s=timeout_s) as client:
            self._served = client.served
        if self._served.digest != bundle.manifest["digest"]:
            raise RefusedError(
                f"{printable(self._model)} at {url} serves another bundle than {bundle.path}.",
                cause="one of the two was exported anew",
                next=command("logoformer", "triton", bundle.path, "-o", "MODELS"),
            )
        self._check_warmup(warmup)
        self.backend, self.precision = f"Triton at {url}", self._served.config.precision
        self._streams: set[StreamClient] = set()
        self._pool = ThreadPoolExecutor(bundle.stream.faces, thread_name_prefix="logoformer-triton")

    def __repr__(self) -> str:
        count = sum(not stream.closed for stream in self._streams)
        return f"<TritonRuntime of {self._model} at {self._url}: {count} streams>"

    @property
    def labels(self) -> tuple[str, ...]:
        """C class names, in the order of `Result.probabilities`."""
        return self.bundle.labels

    @property
    def reopened(self) -> int:
        """Times that a sequence of an open stream was opened anew and its frames were sent again."""
        return sum(stream.reopened for stream in self._streams)

    def session(self, graph: str, batch: int = 1) -> None:
        """Opens nothing: the server has opened its sessions when it was loaded."""

    def stream(self, hop: int = 4, *, color: str | None = None, warmup: str = "wait") -> StreamClient:
        """Opens the stream of one face; see `Runtime.stream`.

        Raises:
            UsageError: another warm-up than the server's.
        """
        self._check_warmup(warmup)
        self._streams = {stream for stream in self._streams if not stream.closed}
        client = StreamClient(
            self._url, color=color, model=self._model, timeout_s=self._timeout_s, hop=hop, served=self._served
        )
        self._streams.add(client)
        return client

    def step(self, frames: Mapping[Any, tuple[Frame, float]]) -> dict[Any, Result | None]:
        """Pushes one frame to each of several streams at once, so that the server can batch them.

        Args:
            frames: (frame, time_s) by stream.

        Returns:
            What `StreamClient.push` gave, by stream.

        Raises:
            BadInputError, VerificationError, MachineError: as `StreamClient.push`; the other faces' frames are kept,
                their answers of this step are not given.
        """
        if len(frames) == 1:  # without a detour through another thread
            return {stream: stream.push(*given) for stream, given in frames.items()}
        futures: dict[Any, Future[Result | None]] = {
            stream: self._pool.submit(stream.push, frame, time_s) for stream, (frame, time_s) in frames.items()
        }
        wait(futures.values())
        return {stream: future.result() for stream, future in futures.items()}

    def close(self) -> None:
        """Ends every sequence. A second call does nothing."""
        for stream in self._streams:
            stream.close()
        self._streams.clear()
        self._pool.shutdown(cancel_futures=True)  # what still waits for the server fails: its channel is closed

    def __enter__(self) -> TritonRuntime:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _check_warmup(self, warmup: str) -> None:
        served = self._served.config.warmup
        if warmup != served:
            raise UsageError(
                f"The server answers with --warmup {served}; {warmup} was asked for.",
                cause="the server decides that for all of its streams",
                next=f"--warmup {served} here, or logoformer triton --warmup {warmup}",
            )
