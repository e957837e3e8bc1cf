"""A runtime over watched sessions, and a scripted or real TensorRT-RTX builder."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from logoformer.bundle import GraphEntry, StreamSpec, TensorSpec
from logoformer.clips import Sampling
from logoformer.engine import Result, Runtime
from logoformer.engine.sessions.contract import Backend, HostSession, allocate


# ---------------------------------------------------------------------------------------- sessions that can be watched
class WatchedSession(HostSession):
    """A session in numpy whose answers name their frames, and that checks how it is called.

    The pixel `[0, 0]` of a frame is its token; the probabilities are the tokens at the last and the first place of the
    clip. `state` is shared by the sessions of one runtime:

        threads: identifiers of the threads that opened, ran and closed sessions;
        runs: graphs in the order in which they ran, such as 'frame b2';
        open: sessions that are open now;
        before: called with the session at the start of each run.
    """

    def __init__(self, entry: GraphEntry, state: SimpleNamespace, arena: Any = None) -> None:
        self.name = f"{entry.graph} b{entry.batch}" if entry.batch > 1 else entry.graph
        self.state = state
        self.inputs = {spec.name: spec for spec in entry.inputs}
        self.outputs = {spec.name: spec for spec in entry.outputs}
        self.buffers = {**allocate(self.inputs, arena), **allocate(self.outputs)}
        self.running = self.closed = False
        state.open.append(self)
        state.threads.add(threading.get_ident())

    def input(self, name: str) -> np.ndarray:
        assert not self.closed
        return self.buffers[name]

    output = input

    def run(self) -> None:
        assert not self.closed and not self.running, "two threads in one session"
        self.running = True
        self.state.threads.add(threading.get_ident())
        self.state.runs.append(self.name)
        try:
            self.state.before(self)
            self.compute()
        finally:
            self.running = False

    def compute(self) -> None:
        b = self.buffers
        if "frame" in b:
            b["tokens"][:, 0] = b["frame"][:, 0, 0]
        elif "clip" in b:
            b["probabilities"][0] = np.concatenate([b["clip"][0, -1, 0, 0], b["clip"][0, 0, 0, 0]])
        else:
            order = b["order"].reshape(len(b["probabilities"]), -1)  # [B, T]
            b["probabilities"][:] = b["ring"][order][:, [-1, 0]].reshape(len(order), -1)

    def take(self, source: WatchedSession, output: str, name: str, row: int, index: int = 0) -> None:
        assert not self.running and not source.running, "a slot is written while it is read"
        self.buffers[name][row] = source.output(output)[index]

    def close(self) -> None:
        assert not self.running and not self.closed
        self.closed = True
        self.state.open.remove(self)
        self.state.threads.add(threading.get_ident())


@pytest.fixture
def watched() -> Callable[..., Runtime]:
    """`watched(faces=8, batches=(1,), together=(1,))` -> a runtime over `WatchedSession`, with its `state`.

    `batches` are those of `frame`, `together` those of `temporal`.

    Frames are uint8 `[4, 4, 3]`; a clip has 4 of them, 0.2 s apart, the last one being the newest; a ring has
    8 slots.
    """

    def make(faces: int = 8, batches: tuple[int, ...] = (1,), together: tuple[int, ...] = (1,)) -> Runtime:
        spec = StreamSpec(slots=8, faces=faces, frames=4, grid=1, window=(1, 1, 1), embed_dim=3)

        def entry(graph: str, precision: str, batch: int = 1) -> GraphEntry:
            probabilities = (TensorSpec("probabilities", "float32", (batch, 6)),)
            order = (4,) if batch == 1 else (batch, 4)
            sides = {
                "frame": (
                    (TensorSpec("frame", "uint8", (batch, 4, 4, 3)),),
                    (TensorSpec("tokens", "float32", (batch, 1, 3)),),
                ),
                "clip": ((TensorSpec("clip", "uint8", (1, 4, 4, 4, 3)),), probabilities),
                "temporal": (
                    (TensorSpec("ring", "float32", (8 * faces, 3)), TensorSpec("order", "int32", order)),
                    probabilities,
                ),
            }[graph]
            return GraphEntry(graph, precision, batch, graph, "", 0, 20, *sides, {})

        bundle = SimpleNamespace(
            stream=spec, sampling=Sampling(4, 1, 0.8, 10.0), labels=tuple("abcdef"), image_size=4, frames=4,
            graph=entry, path="watched.bundle",
        )  # fmt: skip
        state = SimpleNamespace(threads=set(), runs=[], open=[], before=lambda session: None)

        def open_session(entry: GraphEntry, arena: Any = None) -> WatchedSession:
            return WatchedSession(entry, state, arena)

        runtime = Runtime(bundle, Backend("watched", "fp32", open_session, batches, together))
        runtime.state = state
        return runtime

    return make


@pytest.fixture
def numbered() -> Callable[[int, int], np.ndarray]:
    """`numbered(face, number)`: a frame that says whose it is and which; number below 65536."""

    def make(face: int, number: int) -> np.ndarray:
        frame = np.zeros((4, 4, 3), np.uint8)
        frame[0, 0] = face, number % 256, number // 256
        return frame

    return make


@pytest.fixture
def told() -> Callable[[Result], tuple[int, int]]:
    """`told(result)`: the face and the number of the newest frame that an answer was made of.

    The oldest must be of the same face.
    """

    def read(result: Result) -> tuple[int, int]:
        face, low, high, oldest, *_ = (int(value) for value in result.probabilities)
        assert face == oldest, "two faces in one clip"
        return face, low + 256 * high

    return read


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`scripted("short")`: TensorRT is `scripted/tensorrt.py` here and in every process started, and fails that way."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "scripted"))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)

    def follow(script: str) -> None:
        monkeypatch.setenv("SCRIPTED_TENSORRT", script)

    yield follow
    sys.modules.pop("tensorrt", None)
