"""Baselines: our runtime and what people would use without it, timed side by side.

All baselines get the same uint8 clips in host memory, use the same number of CPU threads, and are finished when the
probabilities are a numpy array. What each does in between is its `what`, word for word in the report.

A baseline that needs a GPU is left out, with the reason, where there is none (`programs.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...bundle import Bundle
from ...clips import Clip, pattern_ages, pick
from ...engine import Result, Runtime, load
from ...engine.sessions.trt import TrtSession
from ...errors import BadInputError, UsageError, VerificationError, command, one_of
from ..report.records import CPU

CLIP, STREAM = "clip", "stream"
CLIP_AGAIN, STREAM_AGAIN = "clip again", "stream again"  # the same programs a second time: the noise of the run
CLIP_REPEATED = "clip repeated"  # one and the same input at every step: whether answers come from a cache
NAIVE, PER_FRAME = "naive re-run", "per-frame"
ORT, EAGER, COMPILED, OPENVINO = "onnxruntime", "torch", "torch.compile", "openvino"
ORT_CUDA, POLYGRAPHY = "onnxruntime-cuda", "polygraphy"
OTHERS = (ORT, EAGER, COMPILED, OPENVINO, NAIVE, PER_FRAME, ORT_CUDA, POLYGRAPHY)

APART = 5  # frames between the places where the faces of one run begin: no two see the same


@dataclass(frozen=True)
class StepAnswer:
    """The answer of one step.

    Attributes:
        probabilities: float32 `[C]`.
        stages_ms: wall clock by stage, empty where the baseline has none.
        device_ms: between two events on the device's stream; None where there is no device.
        others: what a step with several faces gave for the faces after the first.
    """

    probabilities: npt.NDArray[np.float32]
    stages_ms: Mapping[str, float]
    device_ms: float | None = None
    others: tuple[StepAnswer, ...] = ()


def answer_of(results: Sequence[Result]) -> StepAnswer:
    """Results of one step as a `StepAnswer`: the first face, then the others."""
    first, *others = (StepAnswer(r.probabilities, r.stages_ms, getattr(r, "device_ms", None)) for r in results)
    return replace(first, others=tuple(others))


@dataclass(frozen=True)
class Baseline:
    """One way to the same answer.

    Attributes:
        name: unique in a run.
        what: what one step does, from host memory to host memory.
        precision: of the arithmetic.
        same_weights: whether it runs the bundle's own weights, so that its answers can be checked.
        answer: step index -> answer; the index decides the input.
        backend: what runs it, with its version.
        device: 'cpu', or the name of the GPU.
        hop: new frames for one answer; None where a whole clip is answered at once.
        streams: faces that one step answers.
        device_ms: the engines' time for one answer between two events on the device, in runs of their own; None where
            there is no such device.
    """

    name: str
    what: str
    precision: str
    same_weights: bool
    answer: Callable[[int], StepAnswer]
    backend: str
    device: str = CPU
    hop: int | None = None
    streams: int = 1
    device_ms: Callable[[], float | None] | None = None


@dataclass(frozen=True)
class Skipped:
    """A baseline that could not run, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Inputs:
    """The clips that are fed, in rotation.

    Attributes:
        clips: uint8 `[G, T, S, S, 3]`, G at least 2, at the model's own size: no resize is timed.
        fps: distance in time of the frames that are pushed to a stream.
    """

    clips: npt.NDArray[np.uint8]
    fps: float

    def __post_init__(self) -> None:
        if len(self.clips) < 2:
            raise BadInputError(
                f"The bundle has {len(self.clips)} golden clip; a benchmark rotates at least 2.",
                cause="with one input, an answer could come from a cache",
                next=command("logoformer", "export", "CHECKPOINT", "-o", "BUNDLE"),
            )

    @classmethod
    def of(cls, bundle: Bundle) -> Inputs:
        """The bundle's golden clips; copied, because torch warns of arrays that it may not write."""
        return cls(np.array(bundle.golden().clips), bundle.sampling.fps)

    def clip(self, index: int) -> Clip:
        """uint8 `[T, S, S, 3]` of one step."""
        clip: Clip = self.clips[index % len(self.clips)]
        return clip

    def frame(self, index: int) -> npt.NDArray[np.uint8]:
        """uint8 `[S, S, 3]` of one step: the clips' frames, one clip after the other."""
        frames = self.clips.shape[1]
        frame: npt.NDArray[np.uint8] = self.clips[index // frames % len(self.clips), index % frames]
        return frame

    def seen_by_stream(self, index: int, bundle: Bundle, offset: int = 0) -> Clip:
        """The clip that a stream must have picked for a frame, found without its ring.

        Args:
            index: of that frame in its stream.
            bundle: gives the training pattern.
            offset: where in the rotation this stream began.
        """
        times = np.arange(index + 1) / self.fps
        return np.stack([self.frame(offset + int(i)) for i in pick(times, pattern_ages(bundle.sampling))])


# ---------------------------------------------------------------------------------------------------------------- ours
def clip_baseline(runtime: Runtime, inputs: Inputs, name: str, device: str = CPU) -> Baseline:
    """`runtime(clip)`; as `CLIP_REPEATED` always the same clip."""
    rotate = name != CLIP_REPEATED

    def answer(index: int) -> StepAnswer:
        return answer_of([runtime(inputs.clip(index if rotate else 0), color="rgb")])

    what = f"runtime(clip): {runtime.bundle.frames} uint8 frames -> probabilities"
    timed = engine_time(runtime, ("clip",), device)
    return Baseline(name, what, runtime.precision, True, answer, runtime.backend, device, device_ms=timed)


def engine_time(runtime: Runtime, graphs: Sequence[str], device: str) -> Callable[[], float | None] | None:
    """What gives the time of these graphs' engines by the device's clock; None on a CPU."""
    if device == CPU:
        return None

    def timed() -> float | None:
        sessions = [runtime.session(graph) for graph in graphs]
        timers = [session.time_stages for session in sessions if isinstance(session, TrtSession)]
        return sum(timer()["engine"] for timer in timers) if len(timers) == len(sessions) else None

    return timed


def stream_baseline(runtime: Runtime, inputs: Inputs, name: str, device: str = CPU) -> Baseline:
    """`stream.push(frame, t)`, an answer for each frame."""
    stream = runtime.stream(hop=1, color="rgb", warmup="repeat")

    def answer(index: int) -> StepAnswer:
        result = stream.push(inputs.frame(index), index / inputs.fps)
        if result is None:
            raise VerificationError(f"The stream gave no answer at step {index} although a frame was pushed.")
        return answer_of([result])

    what = "stream.push(frame), hop 1: 1 new uint8 frame -> probabilities"
    timed = engine_time(runtime, ("frame", "temporal"), device)
    return Baseline(name, what, runtime.precision, True, answer, runtime.backend, device, hop=1, device_ms=timed)


def faces_baseline(runtime: Runtime, inputs: Inputs, name: str, hop: int, streams: int, device: str) -> Baseline:
    """`runtime.step` for several faces; face i begins at frame `i * APART`."""
    faces = [runtime.stream(hop=hop, color="rgb", warmup="repeat") for _ in range(streams)]

    def answer(index: int) -> StepAnswer:
        for frame in range(index * hop, (index + 1) * hop):
            time_s = frame / inputs.fps
            asked = {face: (inputs.frame(frame + APART * place), time_s) for place, face in enumerate(faces)}
            results = runtime.step(asked)
        found = [result for result in results.values() if result is not None]
        if len(found) != streams:
            raise VerificationError(f"{name}: {len(found)} of {streams} faces were answered at step {index}.")
        return answer_of(found)

    what = f"runtime.step: {hop} new uint8 frame(s) of each of {streams} face(s) -> {streams} x probabilities"
    return Baseline(name, what, runtime.precision, True, answer, runtime.backend, device, hop, streams)


def open_ours(
    bundle: Bundle,
    precision: str,
    threads: int,
    closing: contextlib.ExitStack,
    backend: str = "onnxruntime",
    device: int = 0,
    strict: bool = False,
) -> Runtime:
    """One more runtime of the bundle; closed with `closing`."""
    runtime = load(bundle, backend=backend, precision=precision, threads=threads, device=device, strict=strict)
    return closing.enter_context(runtime)


# -------------------------------------------------------------------------------------------------------------- others
def chosen_baselines(text: str) -> tuple[str, ...]:
    """Reads 'all', 'none' or 'torch,openvino'.

    Raises:
        UsageError: an unknown name.
    """
    if text in ("all", "none"):
        return OTHERS if text == "all" else ()
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in OTHERS]
    if unknown or not names:
        raise UsageError(
            f"Unknown baseline {one_of(unknown or [text])}.", next=f"choose from all, none, {one_of(OTHERS)}"
        )
    return names
