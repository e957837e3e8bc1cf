"""Servers and streams in simulated time: the product's sequences over idle sessions.

A host works off one request after the other. Real are the `StreamTable`, its `Stream`s and the histories that are sent
after a restart; simulated are the clock and how long a computation takes.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...bundle import Bundle, GraphEntry
from ...clips import Frame
from ...engine import Result, Runtime
from ...engine.sessions.contract import Array, Backend, HostSession, Session, allocate
from ...errors import UsageError, whole_number
from ...serving.sequences import FrameCall, FrameReply, History, StreamTable

NAMES = itertools.count(1)  # sequences


@dataclass(frozen=True)
class Outage:
    """A server that is away.

    Attributes:
        host: its number.
        begin_s, end_s: from when to when; what it computes at the beginning is lost, and so are its streams.
    """

    host: int
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class FleetConfig:
    """What is simulated.

    Attributes:
        cameras: a watcher each; camera i asks host i modulo `hosts`.
        hosts: servers, each with the bundle's places.
        faces: in front of each camera.
        fps: of each camera.
        hop: frames from one answer to the next that watchers ask for.
        seconds: simulated.
        frame_ms: of a server for a frame.
        answer_ms: of a server for an answer, beside its frame.
        trip_ms: of the network, there and back.
        outages: of servers, those of one host in order.
        seed: of the cameras' phases and the jitter of their frames.
    """

    cameras: int
    hosts: int
    faces: int = 1
    fps: float = 25.0
    hop: int = 4
    seconds: float = 40.0
    frame_ms: float = 1.0
    answer_ms: float = 5.0
    trip_ms: float = 0.6
    outages: tuple[Outage, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("cameras", "hosts", "faces", "hop"):
            whole_number(getattr(self, name), name)
        if not (self.fps > 0 and self.seconds > 0 and min(self.frame_ms, self.answer_ms, self.trip_ms) >= 0):
            raise UsageError("Rates and seconds are more than 0, and no time is negative.")

    @property
    def load(self) -> float:
        """Share of its time that the fullest host needs for all frames and all answers."""
        cameras = -(-self.cameras // self.hosts)
        return cameras * self.faces * self.fps * (self.frame_ms + self.answer_ms / self.hop) / 1e3


class AlikeSession(HostSession):
    """Buffers of one graph; a run takes no time, and all classes are equally likely."""

    def __init__(self, entry: GraphEntry) -> None:
        self.inputs = {spec.name: spec for spec in entry.inputs}
        self.outputs = {spec.name: spec for spec in entry.outputs}
        self._arrays = allocate(self.inputs) | allocate(self.outputs)
        if "probabilities" in self._arrays:
            self._arrays["probabilities"][:] = 1 / self._arrays["probabilities"].shape[-1]

    def input(self, name: str) -> Array:
        return self._arrays[name]

    def output(self, name: str) -> Array:
        return self._arrays[name]

    def run(self) -> None:
        return

    def take(self, source: Session, output: str, name: str, row: int, index: int = 0) -> None:
        return

    def close(self) -> None:
        return


class SimulatedHost:
    """A server: a `StreamTable`, and when it is free again.

    Args:
        bundle: that is served.
        config: of the fleet.
        outages: of this host, in order.
    """

    def __init__(self, bundle: Bundle, config: FleetConfig, outages: Sequence[Outage]) -> None:
        self._bundle, self._config, self._outages = bundle, config, deque(outages)
        self._now_s = self.free_s = self.busy_s = 0.0
        self.generation = self.lost = 0
        self._start()

    def _start(self) -> None:
        self._runtime = Runtime(self._bundle, Backend("simulated", "fp32", AlikeSession))
        self._table = StreamTable(self._runtime, self._config.hop, "wait", 10.0, lambda: self._now_s)
        self.generation += 1

    def ask(self, streams: Sequence[SimulatedStream], frames: Sequence[tuple[Frame, float]], at_s: float) -> float:
        """Has the next frame of each stream answered, however long that takes.

        Returns:
            When the answers are back, seconds.

        Raises:
            LogoformerError: a request that a real server would refuse too.
        """
        half_s = self._config.trip_ms / 2e3
        while True:
            begin_s = max(at_s + half_s, self.free_s)
            while self._outages and self._outages[0].end_s <= begin_s:  # nobody asked meanwhile
                self._restart(self._outages.popleft())
            self._now_s = begin_s
            calls = [stream.call(*given) for stream, given in zip(streams, frames, strict=True)]
            replies = self._table.step(calls)
            took_s = self._cost_s(calls, replies)
            if self._outages and self._outages[0].begin_s < begin_s + took_s:
                outage = self._outages.popleft()
                self.lost += len(calls) if outage.begin_s > begin_s else 0
                at_s = max(at_s, outage.end_s)
                self._restart(outage)
                continue
            self.free_s = begin_s + took_s
            self.busy_s += took_s
            for stream, call, reply in zip(streams, calls, replies, strict=True):
                stream.took(call, reply)
            return self.free_s + half_s

    def end(self, sequence: int) -> None:
        """Forgets a sequence, as its last request would make it."""
        self._table.forget(sequence)

    def _restart(self, outage: Outage) -> None:
        self._runtime.close()
        self.free_s = max(self.free_s, outage.end_s)
        self._start()

    def _cost_s(self, calls: Sequence[FrameCall], replies: Sequence[FrameReply | Exception]) -> float:
        frames = sum(1 + (0 if call.history is None else len(call.history.times)) for call in calls)
        answers = sum(not isinstance(reply, Exception) and reply.result is not None for reply in replies)
        return (frames * self._config.frame_ms + answers * self._config.answer_ms) / 1e3


class SimulatedStream:
    """The stream of one face on a host; implements `FaceStream`.

    It keeps what `StreamClient` keeps, and opens its sequence anew where that one does.
    """

    def __init__(self, host: SimulatedHost, slots: int, hop: int, color: str) -> None:
        self.host, self.hop, self.color = host, hop, color
        self.skipped = self.resets = self.reopened = 0
        self.result: Result | None = None
        self._kept: deque[tuple[Frame, float]] = deque(maxlen=slots)
        self._since = self._opened = 0
        self._sequence = next(NAMES)

    def call(self, frame: Frame, time_s: float) -> FrameCall:
        """The next request."""
        start = self._opened != self.host.generation
        history = None
        if start and self._kept:
            frames, times = zip(*self._kept, strict=True)
            history = History(np.stack(frames), np.array(times), self._since)
        return FrameCall(self._sequence, start, False, frame, time_s, history, self.hop)

    def took(self, call: FrameCall, reply: FrameReply | Exception) -> None:
        """Takes what came back."""
        if isinstance(reply, Exception):
            raise reply
        self.reopened += bool(self._opened) and call.start
        self._opened, self._since, self.result = self.host.generation, reply.since, reply.result
        self.skipped += not reply.kept
        if reply.kept:
            self._kept.append((call.frame, call.time_s))

    def reset(self) -> None:
        """Forgets all frames."""
        self._kept.clear()
        self._since = self._opened = 0

    def flush(self) -> Result | None:
        """Nothing: cameras of a fleet do not end."""
        return None

    def close(self) -> None:
        """Gives its place back."""
        self.host.end(self._sequence)


class SimulatedRuntime:
    """What answers a watcher: its host; implements `FaceRuntime`.

    Args:
        host: of this watcher.
        bundle: that is served.

    Attributes:
        now_s: the watcher's clock, which a step moves on.
    """

    backend, precision = "simulated", "fp32"
    frame_batches: tuple[int, ...] = ()
    temporal_batches: tuple[int, ...] = ()

    def __init__(self, host: SimulatedHost, bundle: Bundle) -> None:
        self.bundle, self._host = bundle, host
        self.now_s = 0.0
        self.streams: list[SimulatedStream] = []

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names."""
        return self.bundle.labels

    def session(self, graph: str, batch: int = 1) -> None:
        """Opens nothing."""

    def stream(self, hop: int = 4, *, color: str | None = None, warmup: str = "wait") -> SimulatedStream:
        """Opens the stream of a face."""
        self.streams.append(SimulatedStream(self._host, self.bundle.stream.slots, hop, color or "rgb"))
        return self.streams[-1]

    def step(self, frames: Mapping[Any, tuple[Frame, float]]) -> dict[Any, Result | None]:
        """Sends a round and waits for its answers, in simulated time."""
        self.now_s = self._host.ask(list(frames), list(frames.values()), self.now_s)
        return {stream: stream.result for stream in frames}
