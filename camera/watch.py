"""Watching sources: cameras and files in, answers of faces out, a page to look on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from ..bundle.alignment import Alignment
from ..errors import UsageError
from .answers.contract import AnswerSink, FaceAnswer, FaceRuntime
from .answers.smoothing import AnswerConfig
from .pipeline.board import Board
from .pipeline.cutters import open_cutter
from .pipeline.faces import check_face_mode
from .pipeline.feeder import CameraSetup
from .pipeline.pipeline import Pipeline
from .sources.contract import FrameSource
from .sources.live import LiveSource
from .sources.open import open_source

Source = str | os.PathLike[str] | FrameSource


class Watch:
    """Answers for every face of one or more sources; iterate it.

        with logoformer.load("face.bundle") as runtime, Watch(runtime, ["0"]) as watch:
            for answer in watch:
                print(answer.source, answer.face, answer.label, answer.confidence)

    Live sources give their newest frames, and what cannot be worked off in time is dropped and counted; of a file every
    frame is used. The iteration ends when all sources have ended, or after `stop`. It runs on the thread that owns the
    runtime: what the loop's body does, answers wait for.

    Args:
        runtime: what `logoformer.load` gave, or a `logoformer.serving.remote.TritonRuntime`.
        sources: what `open_source` takes, or sources that are open; closed with the watch.
        face: 'detect' finds, follows and aligns faces; 'whole' and 'center' take the frame or its middle as the face.
        hop: kept frames from one answer to the next.
        warmup: 'wait' for a full span before the first answer, or 'repeat' the first frame until there is one.
        config: smoothing and gate.
        sinks: take answers, events and frames; closed with the watch.
        fps: for sources without times of their own.
        pace: play files at their own pace instead of as fast as they are worked off.
        loop: play files over and over.
        patient: cameras need not be there at the start; either way one that is lost is tried for ever.

    Attributes:
        board: newest picture and state of each source, for any thread to read.

    Raises:
        UsageError: a wrong argument, or more sources than the bundle has places for faces.
        BadInputError, MachineError: a source cannot be opened.
    """

    def __init__(
        self,
        runtime: FaceRuntime,
        sources: Sequence[Source],
        *,
        face: str = "detect",
        hop: int = 4,
        warmup: str = "wait",
        config: AnswerConfig | None = None,
        sinks: Sequence[AnswerSink] = (),
        fps: float | None = None,
        pace: bool = False,
        loop: bool = False,
        patient: bool = False,
    ) -> None:
        if isinstance(sources, str | os.PathLike | FrameSource):
            raise UsageError("sources is one source; a list of them is expected.", next="Watch(runtime, [source])")
        check_face_mode(face)
        self._runtime, self._sinks = runtime, tuple(sinks)
        rate = runtime.bundle.sampling.fps if fps is None else fps
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as failing:  # closes what was opened, should one of them not open
            cameras = []
            for given in sources:
                source = given if isinstance(given, FrameSource) else open_source(given, rate, patient=True)
                failing.callback(source.close)
                if isinstance(source, LiveSource) and not patient:
                    source.require()
                again = None if isinstance(given, FrameSource) else partial(open_source, given, rate)
                cutter = open_cutter(face, runtime.bundle)
                cameras.append(CameraSetup(source, cutter, again if loop and not source.live else None, pace))
            self._pipeline = Pipeline(runtime, cameras, hop, warmup, config, watch_facts(runtime, face))
            failing.pop_all()
        for sink in self._sinks:
            self._stack.callback(sink.close)
        self._stack.callback(self._pipeline.close)  # before the sinks: nothing comes after it
        self._stopped = self._started = False

    @property
    def board(self) -> Board:
        """Newest picture and state of each source, for any thread to read."""
        return self._pipeline.board

    def serve(self, port: int = 8080, *, host: str = "127.0.0.1", token: str | None = None) -> str:
        """Starts the page; gives its address.

        Args:
            port: 0 takes a free one.
            host: the address to listen at; another than this machine's own needs a token.
            token: who knows it may look.

        Raises:
            UsageError: other machines may come, and there is no token, or a short one.
            MachineError: the port is taken.
        """
        from .web.server import PageServer

        server = PageServer(self.board, host, port, token)
        self._stack.callback(server.close)
        return server.address

    def stop(self) -> None:
        """Ends the iteration soon; from any thread, and from a signal handler."""
        self._stopped = True

    def __iter__(self) -> Iterator[FaceAnswer]:
        if not self._started:
            self._started = True
            self._pipeline.start()
        while not (self._stopped or self._pipeline.finished):
            turn = self._pipeline.turn()
            for event in turn.events:
                for sink in self._sinks:
                    sink.event(event)
            for number, seen in turn.frames.items():
                given = turn.answers.get(number, ())
                for sink in self._sinks:
                    if given:
                        sink.answers(seen, given)
                    sink.frame(self._pipeline.names[number], seen, turn.held[number])
            for given in turn.answers.values():
                yield from given

    def run(self) -> None:
        """Iterates to the end, for who has sinks only."""
        for _ in self:
            pass

    def close(self) -> None:
        """Ends threads, page, sinks and sources. A second call does nothing."""
        self._stack.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def alignment_note(alignment: Alignment | None) -> str:
    """What is known of how crops have to lie, in words."""
    if alignment is None:
        return "not aligned: the bundle does not say how"
    return "aligned as in training" if alignment.calibrated else "alignment uncalibrated"


def watch_facts(runtime: FaceRuntime, face: str) -> Mapping[str, Any]:
    """What the page shows of the runtime and never changes."""
    from .. import __version__

    bundle = runtime.bundle
    return {
        "version": __version__,
        "bundle": Path(bundle.path).name,
        "labels": list(runtime.labels),
        "backend": runtime.backend,
        "precision": runtime.precision,
        "face": face,
        "alignment": alignment_note(bundle.alignment) if face == "detect" else "",
        "span_s": bundle.sampling.span_s,
        "places": bundle.stream.faces,
    }
