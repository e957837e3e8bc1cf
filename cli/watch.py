"""The verb watch."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from ..errors import UsageError, printable
from . import choices
from .options import (
    RUNTIME_DEFAULTS,
    AddVerb,
    choice_option,
    handling,
    overwrite_option,
    runtime_arguments,
    runtime_options,
)
from .parser import real_between
from .terminal import Bar, change_line, loss_line

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..camera.answers.contract import FaceRuntime
    from ..camera.answers.video import OverlaySink
    from ..camera.pipeline.board import Board

PORT, HERE = 8080, "127.0.0.1"
MAX_TOKEN_FILE = 4096  # bytes


class _Terminated(BaseException):
    """A supervisor asked the program to end."""


def _watch(a: argparse.Namespace, bar: Bar) -> int:
    from ..bundle import Bundle
    from ..camera.answers.contract import AnswerSink, CallbackSink
    from ..camera.answers.lines import LineSink, json_lines
    from ..camera.answers.smoothing import AnswerConfig
    from ..camera.watch import Watch

    config = AnswerConfig(smooth_s=a.smooth, margin=a.margin, gate=a.gate)
    token = _token(a)
    if a.no_page and (a.token or a.host != HERE):
        raise UsageError("--no-page serves nothing: --host and --token have no use beside it.")
    if a.events and a.schema == "nv":
        raise UsageError("The schema nv has no message for a change of state.", next="leave --events or --schema out")
    if a.out and len(a.sources) > 1:
        raise UsageError("An overlay video shows one source.", next="watch one source a program, or leave -o out")
    bundle = Bundle(a.bundle)
    span_s, digest = bundle.sampling.span_s, str(bundle.manifest["digest"])
    with contextlib.ExitStack() as stack:
        ends = stack.enter_context(_ending_on_sigterm())
        sinks: list[AnswerSink] = []
        if a.out:
            from ..camera.answers.video import OverlaySink

            recording = OverlaySink(_target(a), bundle.labels)
            sinks.append(recording)
            stack.enter_context(_naming(recording, a, bar))
        if sys.stdout.isatty() and not (a.json or a.events or a.schema != "own"):
            sinks.append(CallbackSink(on_event=change_line))
        elif not a.quiet or not sys.stdout.isatty():
            sinks.append(LineSink(json_lines(sys.stdout), a.schema, events=a.events, span_s=span_s, digest=digest))
            if not (a.quiet or a.events):  # lines of answers do not say why there are none
                sinks.append(CallbackSink(on_event=loss_line))
        if a.mqtt:
            from ..camera.answers.mqtt import MqttSink, parse_broker

            sinks.append(MqttSink(parse_broker(a.mqtt), a.schema, span_s=span_s, digest=digest))
            stack.callback(sinks[-1].close)
        runtime = stack.enter_context(_runtime(a, bundle))
        watch = stack.enter_context(
            Watch(
                runtime, a.sources, face=a.face, hop=a.hop, warmup=a.warmup, config=config, sinks=sinks, fps=a.fps,
                pace=a.window or not a.no_page, loop=a.loop, patient=a.patient,
            )
        )  # fmt: skip
        ends.append(watch.stop)
        if not a.no_page:
            _say(a, bar, f"{watch.serve(a.port, host=a.host, token=token)}  (Ctrl-C ends)")
        if a.window:
            from ..camera.window import WatchWindow

            stack.callback(WatchWindow(watch.board, closed=watch.stop).close)
        watch.run()
        for line in end_lines(watch.board):
            _say(a, bar, line)
    return 0


def _runtime(a: argparse.Namespace, bundle: Bundle) -> contextlib.AbstractContextManager[FaceRuntime]:
    """What answers: this machine, or the Triton that was named."""
    from ..engine import load

    arguments = runtime_arguments(a)
    if a.triton is None:
        return load(bundle, selftest=a.selftest, **arguments)
    from ..serving.check import check_triton
    from ..serving.remote import TritonRuntime

    useless = [name for name, value in arguments.items() if value != RUNTIME_DEFAULTS[name]]
    if useless:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in useless)
        raise UsageError(
            f"--triton answers on a server: {options} has no use beside it.",
            next="give that to logoformer triton, which says how the server runs the bundle",
        )
    url, _, name = a.triton.partition("/")
    runtime = TritonRuntime(bundle, url, name=name, warmup=a.warmup)
    if a.selftest:
        check_triton(url, name)
    return runtime


def _token(a: argparse.Namespace) -> str | None:
    from ..bundle.files import read_file
    from ..camera.web.access import NEW, new_token

    if a.token is None or not a.token.startswith("@"):
        return new_token() if a.token == NEW else a.token
    lines = read_file(a.token[1:], MAX_TOKEN_FILE).decode("utf-8", "replace").splitlines()
    return lines[0].strip() if lines else ""


def _target(a: argparse.Namespace) -> Path:
    target, source = Path(a.out), Path(a.sources[0])
    with contextlib.suppress(OSError, ValueError):
        if target.samefile(source):
            raise UsageError(
                f"The overlay video {target} would replace the video it is made from.", next="-o another.mp4"
            )
    return target


def _say(a: argparse.Namespace, bar: Bar, text: str) -> None:
    """Says it beside the answers, which are on standard output."""
    if not a.quiet:
        bar.clear()
        print(printable(text), file=sys.stderr, flush=True)


@contextlib.contextmanager
def _naming(recording: OverlaySink, a: argparse.Namespace, bar: Bar) -> Iterator[None]:
    """Names the recording once it is closed, whatever ended the watch."""
    try:
        yield
    finally:
        if recording.kept:
            _say(a, bar, f"{recording.target}: {recording.frames} frames recorded")
        elif recording.frames:
            _say(a, bar, f"{recording.target}: nothing was kept of {recording.frames} recorded frames")


def end_lines(board: Board) -> Iterator[str]:
    """What was counted, a line for each source."""
    for one in board.state()[1]:
        dropped = "".join(f", {count} dropped ({cause})" for cause, count in one.dropped.items() if count)
        left_out = "".join(f", {count} faces {reason}" for reason, count in one.skipped.items() if count)
        yield f"{one.name}: {one.frames} frames, {one.answers} answers{dropped}{left_out}"


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[list[Callable[[], None]]]:
    """SIGTERM ends the watch with exit code 0; SIGINT stays as it was, ignored under nohup.

    Yields a list of what SIGTERM calls, too: raised while Python frees an object, the exception would be lost.
    """
    ends: list[Callable[[], None]] = []

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the second of an impatient supervisor
        for call in ends:
            call()
        raise _Terminated

    with handling(signal.SIGTERM, end), contextlib.suppress(_Terminated):
        yield ends


# --------------------------------------------------------------------------------------------------------------- parser
def add(verb: AddVerb) -> None:
    p = verb(
        "watch", _watch, "find and follow faces in cameras and videos, and show what the model reads, on a local page",
        "logoformer watch face.bundle 0",
    )  # fmt: skip
    p.add_argument("bundle")
    p.add_argument(
        "sources", nargs="+", metavar="source",
        help="a camera's index, rtsp://..., http://..., gst:PIPELINE, csi:0, a video file or a folder of frames",
    )  # fmt: skip
    shown = "detect (default) finds and follows faces; whole: the frame as it is; center: the square in its middle"
    choice_option(p, "--face", choices.FACES, "F", shown, "detect")
    p.add_argument("--hop", type=int, default=4, metavar="N", help="frames from one answer to the next; default 4")
    shown = "wait (default) for a full span, or repeat the first frame"
    choice_option(p, "--warmup", choices.WARMUPS, "W", shown, "wait")
    p.add_argument("--smooth", type=float, default=0.5, metavar="S", help="time constant in seconds; default 0.5")
    p.add_argument("--margin", type=float, default=0.1, metavar="X", help="lead that a new label needs; default 0.1")
    p.add_argument("--gate", type=float, default=0.4, metavar="X", help="below it a label is uncertain; default 0.4")

    page = p.add_argument_group("page")
    page.add_argument("--port", type=int, default=PORT, metavar="N", help=f"of the page; default {PORT}; 0: a free one")
    page.add_argument(
        "--host", default=HERE, metavar="A", help=f"address to listen at; default {HERE}: this machine alone"
    )
    page.add_argument("--token", metavar="TEXT", help="needed with another --host; new makes one, @FILE reads one")
    page.add_argument("--no-page", action="store_true", help="serve nothing, and read files as fast as that goes")
    page.add_argument("--window", action="store_true", help="show the pictures in a window on this machine's display")

    out = p.add_argument_group("output")
    choice_option(out, "--schema", choices.SCHEMAS, "S", "of lines and messages: own (default) or nv", "own")
    out.add_argument("--events", action="store_true", help="print a line for each change of state, not each answer")
    out.add_argument("--mqtt", metavar="URL", help="send answers to a broker: mqtt://HOST:1883/TOPIC")
    out.add_argument("-o", "--out", metavar="MP4", help="record a video with the answers drawn in")
    overwrite_option(out)

    shown = "send crops to a Triton that serves this bundle, and run no network of it here; /NAME: of logoformer triton"
    p.add_argument("--triton", metavar="HOST:PORT[/NAME]", help=shown)
    p.add_argument("--fps", type=real_between(0.001, 1000), metavar="X", help="for a folder of frames")
    p.add_argument("--loop", action="store_true", help="play files over and over")
    p.add_argument("--patient", action="store_true", help="wait for cameras that are not there at the start")
    p.add_argument(
        "--selftest", action="store_true", help="answer the golden clips first; exit code 5 if an answer is wrong"
    )
    runtime_options(p)
