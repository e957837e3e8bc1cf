"""`python -m logoformer.studies.serving.soak`: half an hour of four cameras on a Triton.

Four `StreamClient`s push frames whose times are those of cameras, as fast as they are answered. The server is killed
and started again on the way, in the middle of all four streams. Afterwards a local stream gives the same frames their
answers: each answer that is due must have come, bit by bit, or its loss must have been told. The memory of server,
models and client is read once in each simulated minute. Writes `benchmarks/results/soak.json` and a table of
docs/serving.md.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...cli.terminal import Bar
from ...engine import Result, load
from ...errors import MachineError, VerificationError
from ...serving import StreamClient
from ...serving.repository import write_models
from ...serving.settings import TritonConfig
from ..results import FOLDER, measured, read_results, show_results, write_results
from .__main__ import export_untrained
from .server import TritonServer, install_triton

RESULTS, PAGE = FOLDER / "soak.json", Path("docs/serving.md")
COMMAND = "python -m logoformer.studies.serving.soak"
STREAMS, HOP, WARM_MINUTES = 4, 4, 2
MOST_GROWTH = 0.05  # of the memory after the first minutes since a start


@dataclass(frozen=True)
class SoakConfig:
    """What is pushed.

    Attributes:
        minutes: simulated, of each stream.
        fps: of each stream.
        restarts: after which minutes the server is killed and started again.
        timeout_s: of a client's call.
    """

    minutes: int = 30
    fps: float = 10.0
    restarts: tuple[int, ...] = (10, 20)
    timeout_s: float = 60.0

    @property
    def per_minute(self) -> int:
        """Frames of a stream in a minute."""
        return round(60 * self.fps)


class SoakStream:
    """One stream, on a thread of its own; it waits for the others after each minute.

    Args:
        number: chooses its frames and the jitter of its times.
        url: of the server.
        config: what is pushed.
        frames: uint8 `[N, S, S, 3]`, taken over and over.
        minute: passed by all streams and the one that watches, before and after each minute.
    """

    def __init__(
        self, number: int, url: str, config: SoakConfig, frames: np.ndarray[Any, Any], minute: threading.Barrier
    ) -> None:
        self._number, self._url, self._config, self._frames, self._minute = number, url, config, frames, minute
        self.answers = self.errors = self.reopened = 0
        self.digest = hashlib.sha256()
        self.thread = threading.Thread(target=self._run, name=f"soak-{number}")

    def frame(self, place: int) -> tuple[np.ndarray[Any, Any], float]:
        """A frame and its time in seconds: one of 200 is too close, every ten minutes a pause."""
        pauses = place // (10 * self._config.per_minute)
        shift_s = 0.9 if place % 200 == 199 else 0.0
        time_s = (place + shift_s) / self._config.fps + 5.0 * pauses
        return self._frames[(place * 7 + self._number * 13) % len(self._frames)], time_s

    def take(self, result: Result | None) -> None:
        """Counts an answer."""
        if result is not None:
            self.answers += 1
            self.digest.update(result.probabilities.tobytes())

    def _run(self) -> None:
        with StreamClient(self._url, color="rgb", timeout_s=self._config.timeout_s) as client:
            for minute in range(self._config.minutes):
                self._minute.wait()
                first = minute * self._config.per_minute
                for place in range(first, first + self._config.per_minute):
                    try:
                        self.take(client.push(*self.frame(place)))
                    except MachineError:
                        self.errors += 1
                self.reopened = client.reopened
                self._minute.wait()


def memory_mb(process: int | str) -> float:
    """Resident memory of a process, 1e6 bytes."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak(bundle: Bundle, packages: Path, config: SoakConfig, folder: Path, bar: Bar) -> dict[str, Any]:
    """The run, and what a local stream says of it.

    Args:
        bundle: with room for `STREAMS` faces.
        packages: what `install_triton` gave.
        config: what is pushed.
        folder: for models and logs; empty.
        bar: told of each minute.

    Returns:
        Counts, memory by minute, and whether memory stayed flat and nothing was lost.
    """
    write_models(bundle, folder / "models", TritonConfig(hop=HOP, backend="onnxruntime", precision="fp32", threads=1))
    (folder / "server").mkdir()
    shape = (64, bundle.image_size, bundle.image_size, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    gate = threading.Barrier(STREAMS + 1)
    memory: list[dict[str, float]] = []
    with TritonServer(packages, folder / "server", [folder / "models"]) as server:
        streams = [SoakStream(number, server.url, config, frames, gate) for number in range(STREAMS)]
        began = time.perf_counter()
        for stream in streams:
            stream.thread.start()
        for minute in range(config.minutes):
            gate.wait()
            if minute in config.restarts:
                time.sleep(0.2)  # into the middle of all four
                server.stop(signal.SIGKILL)
                server.start()
            gate.wait()
            (model,) = server.model_processes("stream")
            found = {"server": memory_mb(server.pid), "model": memory_mb(model), "client": memory_mb("self")}
            memory.append({name: round(size, 1) for name, size in found.items()})
            bar("simulated minutes", minute + 1, config.minutes)
        for stream in streams:
            stream.thread.join()
        seconds = time.perf_counter() - began
    return {
        "minutes": config.minutes, "fps": config.fps, "streams": STREAMS, "restarts": list(config.restarts),
        "seconds": seconds, **_judge(bundle, config, streams, frames), "memory_mb": memory,
    }  # fmt: skip


def _judge(
    bundle: Bundle, config: SoakConfig, streams: Sequence[SoakStream], frames: np.ndarray[Any, Any]
) -> dict[str, Any]:
    """Answers that were due, by a local stream, beside those that came.

    Raises:
        VerificationError: an answer was another one, though none is missing.
    """
    due = 0
    lost = 0
    with load(bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        for number, stream in enumerate(streams):
            local = SoakStream(number, "", config, frames, threading.Barrier(1))
            with runtime.stream(HOP, color="rgb") as own:
                for place in range(config.minutes * config.per_minute):
                    local.take(own.push(*local.frame(place)))
            due += local.answers
            lost += local.answers - stream.answers
            if local.answers == stream.answers and local.digest.digest() != stream.digest.digest():
                raise VerificationError(f"Stream {number} was answered otherwise than by a local one.")
    errors = sum(stream.errors for stream in streams)
    return {
        "frames": STREAMS * config.minutes * config.per_minute,
        "due": due,
        "lost": lost,
        "errors": errors,
        "reopened": sum(stream.reopened for stream in streams),
        "counted": lost == 0 or errors > 0,
    }


def memory_growth(memory: Sequence[dict[str, float]], restarts: Sequence[int]) -> dict[str, float]:
    """Growth of each process between two restarts of the server, as a share; the most of all.

    From the first warm minute to the last one; the client lives through restarts, see `restart_growth_mb`.
    """
    growth: dict[str, float] = {}
    for name in memory[0]:
        shares = []
        for first, last in itertools.pairwise([0, *restarts, len(memory)]):
            life = [sample[name] for sample in memory[first:last]]
            if len(life) > WARM_MINUTES:
                shares.append(life[-1] / life[WARM_MINUTES] - 1)
        growth[name] = max(shares, default=0.0)
    return growth


def restart_growth_mb(memory: Sequence[dict[str, float]], restarts: Sequence[int]) -> list[float]:
    """Growth of the client at each restart, when it sends a span of frames at once."""
    return [memory[minute]["client"] - memory[minute - 1]["client"] for minute in restarts]


def memory_is_flat(memory: Sequence[dict[str, float]], restarts: Sequence[int]) -> bool:
    """Whether nothing grows between restarts, and the client at most at the first of them."""
    shares = [*memory_growth(memory, restarts).values()]
    shares += [size / memory[0]["client"] for size in restart_growth_mb(memory, restarts)[1:]]
    return all(share <= MOST_GROWTH for share in shares)


def soak_table(found: dict[str, Any]) -> dict[str, str]:
    """The text between the markers of the page."""
    memory, restarts = found["memory_mb"], found["restarts"]
    growth = ", ".join(f"{name} {share:+.1%}" for name, share in memory_growth(memory, restarts).items())
    steps = ", ".join(f"{size:+.0f} MB" for size in restart_growth_mb(memory, restarts))
    verdict = "flat" if memory_is_flat(memory, restarts) else "**not flat**"
    last = ", ".join(f"{name} {size:.0f} MB" for name, size in memory[-1].items())
    rows = [
        ("streams, simulated minutes, frames", f"{found['streams']}, {found['minutes']}, {found['frames']}"),
        ("it took", f"{found['seconds']:.0f} s"),
        ("server killed and started again", f"{len(found['restarts'])} times"),
        ("sequences opened anew", str(found["reopened"])),
        ("answers due, lost; errors told to callers", f"{found['due']}, {found['lost']}; {found['errors']}"),
        ("memory at the end", last),
        ("growth from one restart to the next, at most", f"{growth}: {verdict}"),
        ("growth of the client at each restart, when it sends a span of frames at once", steps),
    ]
    lines = ["| what | figure |", "|---|---|", *(f"| {what} | {figure} |" for what, figure in rows)]
    note = f"{found['machine']['cpu']}; every answer was compared bit by bit; `{found['command']}`"
    return {"soak": "\n".join([*lines, "", note]) + "\n"}


def main(words: Sequence[str] | None = None) -> int:
    """Runs it, writes the file and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=int, default=30, metavar="N", help="simulated; default 30")
    parser.add_argument("--fps", type=float, default=10.0, metavar="X", help="of each camera; default 10")
    parser.add_argument("--show", action="store_true", help="run nothing: print the page from the file")
    a = parser.parse_args(words)
    bar = Bar()
    if not a.show:
        found = measured(COMMAND)
        config = SoakConfig(a.minutes, a.fps, tuple(sorted({a.minutes // 3, 2 * a.minutes // 3})))
        packages = install_triton()
        sys.path.append(os.fspath(packages))  # tritonclient, where this Python has none
        with tempfile.TemporaryDirectory() as name:
            bundle = Bundle(export_untrained("tiny", Path(name), bar))
            (Path(name) / "soak").mkdir()
            found |= soak(bundle, packages, config, Path(name) / "soak", bar)
        write_results(RESULTS, found)
    show_results(PAGE, soak_table(read_results(RESULTS)))
    bar.clear()
    print(f"{RESULTS} and {PAGE}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
