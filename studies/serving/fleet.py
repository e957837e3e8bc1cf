"""A fleet in simulated time: watchers, servers, failures, the product's scheduling.

Each watcher is a `Pipeline` (inboxes, overload policy, faces' places, ages), each server a `StreamTable` over real
`Stream`s, and what is sent after a restart is a real history. Simulated are the clock, the cameras, the time that a
computation takes, and the network: its answers are all alike. A server works off one request after the other; a watcher
waits for the answer to its round, as `watch --triton` does, and meanwhile its inbox overflows by the product's rules.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...bundle import Bundle
from ...camera.answers.contract import FaceCrop, FaceFrame
from ...camera.pipeline.faces import GivenFace
from ...camera.pipeline.feeder import CameraSetup
from ...camera.pipeline.pipeline import Pipeline
from ...camera.sources.contract import FrameSource, TimedFrame
from ...errors import UsageError
from .simulated import FleetConfig, SimulatedHost, SimulatedRuntime

JITTER = 0.2  # of the time from one frame to the next


@dataclass(frozen=True)
class FleetRun:
    """What became of it.

    Attributes:
        frames: that came from all cameras.
        worked: frames that were worked off.
        dropped: frames that watchers dropped and counted.
        answers_of: given, by camera.
        age_p50_ms, age_p99_ms, age_max_ms: from capture to answer.
        hop: the widest at the end.
        busy: share of the time that the busiest host worked.
        reopened: sequences that were opened anew with their history.
        lost_requests: that a host took and never answered; all were sent again.
    """

    frames: int
    worked: int
    dropped: int
    answers_of: tuple[int, ...]
    age_p50_ms: float
    age_p99_ms: float
    age_max_ms: float
    hop: int
    busy: float
    reopened: int
    lost_requests: int

    @property
    def answers(self) -> int:
        """Given to all."""
        return sum(self.answers_of)


class SilentCamera(FrameSource):
    """A live source whose frames are handed to the pipeline by the simulation."""

    live, color, count, path = True, "rgb", None, None

    def __init__(self, number: int, fps: float) -> None:
        self.name, self.fps = f"camera-{number}", fps

    def __iter__(self) -> Iterator[TimedFrame]:
        return iter(())

    def close(self) -> None:
        return


class SimulatedWatcher:
    """A camera with its pipeline.

    Args:
        number: of the camera.
        host: that answers it.
        bundle: that is served.
        config: of the fleet.
    """

    def __init__(self, number: int, host: SimulatedHost, bundle: Bundle, config: FleetConfig) -> None:
        self.runtime = SimulatedRuntime(host, bundle)
        setup = CameraSetup(SilentCamera(number, config.fps), GivenFace("whole"))
        self._pipeline = Pipeline(self.runtime, [setup], config.hop, clock=lambda: self.runtime.now_s)
        self._pixels = np.zeros((bundle.image_size, bundle.image_size, 3), np.uint8)
        self._faces = tuple(FaceCrop(face, (0.0, 0.0, 9.0, 9.0), 1.0, self._pixels) for face in range(config.faces))
        self.free = True
        self.frames = self.worked = self.answers = 0
        self.ages_ms: list[float] = []

    def arrive(self, at_s: float) -> None:
        """A frame of the camera."""
        self.runtime.now_s = at_s
        self._pipeline.take(0, FaceFrame(self._pixels, "rgb", at_s, self.frames, 0, at_s, at_s, faces=self._faces))
        self.frames += 1

    def turn(self, at_s: float) -> float | None:
        """Works off a frame that waits; when that is done, or None where none waits."""
        self.runtime.now_s = at_s
        turn = self._pipeline.turn(0.0)
        if not turn.frames:
            return None
        self.worked += len(turn.frames)
        given = [answer for answers in turn.answers.values() for answer in answers]
        self.answers += len(given)
        self.ages_ms += [answer.age_ms for answer in given]
        return self.runtime.now_s

    def end(self) -> tuple[int, int]:
        """(frames dropped, the hop at the end), as its page would show them."""
        self.turn(self.runtime.now_s + 1.0)  # works nothing off: it tells the state
        self._pipeline.close()
        (state,) = self._pipeline.board.state()[1]
        return state.dropped.get("overload", 0), state.hop


def simulate(bundle: Bundle, config: FleetConfig) -> FleetRun:
    """Lets a fleet run, then work off what waits.

    Args:
        bundle: with room for the faces of each host's cameras.
        config: what is simulated.

    Raises:
        UsageError: more faces on a host than the bundle has places.
    """
    most = -(-config.cameras // config.hosts) * config.faces
    if most > bundle.stream.faces:
        raise UsageError(f"{most} faces on one host, and the bundle has {bundle.stream.faces} places.")
    hosts = [
        SimulatedHost(bundle, config, [outage for outage in config.outages if outage.host == number])
        for number in range(config.hosts)
    ]
    watchers = [
        SimulatedWatcher(number, hosts[number % config.hosts], bundle, config) for number in range(config.cameras)
    ]
    arrivals = [arrival_times(number, config) for number in range(config.cameras)]
    ticks = itertools.count()  # of events at one time, the first that was made comes first
    events = [(next(times), next(ticks), "frame", number) for number, times in enumerate(arrivals)]
    heapq.heapify(events)
    while events:
        now_s, _, kind, number = heapq.heappop(events)
        watcher = watchers[number]
        if kind == "frame":
            watcher.arrive(now_s)
            following_s = next(arrivals[number])
            if following_s < config.seconds:
                heapq.heappush(events, (following_s, next(ticks), "frame", number))
        else:
            watcher.free = True
        if watcher.free:
            done_s = watcher.turn(now_s)
            if done_s is not None:
                watcher.free = False
                heapq.heappush(events, (done_s, next(ticks), "free", number))
    return _summed(config, hosts, watchers)


def arrival_times(number: int, config: FleetConfig) -> Iterator[float]:
    """When a camera's frames come, seconds: at a phase of its own, with jitter, for ever."""
    random = np.random.default_rng((config.seed, number))
    phase = random.uniform(0, 1 - JITTER)
    for index in itertools.count():
        yield (index + phase + random.uniform(0, JITTER)) / config.fps


def _summed(config: FleetConfig, hosts: Sequence[SimulatedHost], watchers: Sequence[SimulatedWatcher]) -> FleetRun:
    ended = [watcher.end() for watcher in watchers]
    ages_ms = np.array([age for watcher in watchers for age in watcher.ages_ms] or [0.0])
    p50, p99 = np.percentile(ages_ms, (50, 99))
    return FleetRun(
        frames=sum(watcher.frames for watcher in watchers),
        worked=sum(watcher.worked for watcher in watchers),
        dropped=sum(dropped for dropped, _ in ended),
        answers_of=tuple(watcher.answers for watcher in watchers),
        age_p50_ms=float(p50),
        age_p99_ms=float(p99),
        age_max_ms=float(ages_ms.max()),
        hop=max(hop for _, hop in ended),
        busy=max(host.busy_s for host in hosts) / config.seconds,
        reopened=sum(stream.reopened for watcher in watchers for stream in watcher.runtime.streams),
        lost_requests=sum(host.lost for host in hosts),
    )


def due_answers(bundle: Bundle, config: FleetConfig) -> tuple[int, ...]:
    """Answers that each camera would get from servers without delay and failure.

    The frames of a camera are those of its number, so the first of a larger fleet are a smaller one.
    """
    return simulate(bundle, replace(config, frame_ms=0.0, answer_ms=0.0, trip_ms=0.0, outages=())).answers_of


def export_fleet(folder: Path, faces: int) -> Bundle:
    """An untrained `tiny` bundle with so many places."""
    from ...export.exporter import ExportConfig
    from ...workflows.export import export_checkpoint
    from ...workflows.init import init_checkpoint

    checkpoint = init_checkpoint("tiny", folder / "checkpoint")
    config = ExportConfig(precisions=("fp32",), faces=faces)
    return Bundle(export_checkpoint(checkpoint, folder / "fleet.bundle", config, clips=8).path)
