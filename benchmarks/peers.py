"""What is timed side by side: our engine, and what people would use without it.

All peers get the same uint8 clips in host memory, use the same number of CPU threads, and are finished when the
probabilities are a numpy array. What each does in between is its `what`, word for word in the report.

Everything here runs on the CPU, so no GPU latency can come out of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bundle import Bundle
from ..clips import Clip, pattern_ages, pick
from ..engine import Engine, load
from ..engine.result import Result
from ..errors import BadInputError, LogoformerError, VerificationError, command
from .loadgen import Progress
from .records import CPU

CLIP, STREAM = "clip", "stream"
CLIP_AGAIN, STREAM_AGAIN = "clip again", "stream again"  # the same programs a second time: the noise of the run
CLIP_REPEATED = "clip repeated"  # one and the same input at every step: whether answers come from a cache
ORT, EAGER, COMPILED = "onnxruntime", "torch", "torch.compile"
OTHERS = (ORT, EAGER, COMPILED)
COMPILE_TOLERANCE = 1e-3  # between the compiled model's probabilities and the eager one's


@dataclass(frozen=True)
class Answer:
    """What one step gave.

    Attributes:
        probabilities: float32 `[C]`.
        stages_ms: wall clock by stage, empty where the peer has none.
        device_ms: between two events on the device's stream; None where there is no device.
    """

    probabilities: npt.NDArray[np.float32]
    stages_ms: Mapping[str, float]
    device_ms: float | None = None


def answer_of(result: Result) -> Answer:
    """What the engine gave. Device time is there where a session takes it by events, else None."""
    return Answer(result.probabilities, result.stages_ms, getattr(result, "device_ms", None))


@dataclass(frozen=True)
class Peer:
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
    """

    name: str
    what: str
    precision: str
    same_weights: bool
    answer: Callable[[int], Answer]
    backend: str
    device: str = CPU
    hop: int | None = None


@dataclass(frozen=True)
class Skipped:
    """A peer that could not take part, and why."""

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
        """The clip that a stream must have picked when it answers for a frame, without looking at its ring.

        Args:
            index: of that frame in its stream.
            bundle: gives the training pattern.
            offset: where in the rotation this stream began.
        """
        times = np.arange(index + 1) / self.fps
        return np.stack([self.frame(offset + int(i)) for i in pick(times, pattern_ages(bundle.sampling))])


# ---------------------------------------------------------------------------------------------------------------- ours
def clip_peer(engine: Engine, inputs: Inputs, name: str, device: str = CPU) -> Peer:
    """`engine(clip)`; as `CLIP_REPEATED` always the same clip."""
    rotate = name != CLIP_REPEATED

    def answer(index: int) -> Answer:
        result = engine(inputs.clip(index if rotate else 0), color="rgb")
        return answer_of(result)

    what = f"engine(clip): {engine.bundle.frames} uint8 frames -> probabilities"
    return Peer(name, what, engine.precision, True, answer, engine.backend, device)


def stream_peer(engine: Engine, inputs: Inputs, name: str, hop: int = 1, device: str = CPU) -> Peer:
    """`stream.push(frame, t)`, `hop` frames for one answer; a step is all of them."""
    stream = engine.stream(hop=hop, color="rgb", warmup="repeat")

    def answer(index: int) -> Answer:
        for frame in range(index * hop, (index + 1) * hop):
            result = stream.push(inputs.frame(frame), frame / inputs.fps)
        if result is None:
            raise VerificationError(f"The stream gave no answer at step {index} although {hop} frames were pushed.")
        return answer_of(result)

    frames = "1 new uint8 frame" if hop == 1 else f"{hop} new uint8 frames, one push each"
    what = f"stream.push(frame), hop {hop}: {frames} -> probabilities"
    return Peer(name, what, engine.precision, True, answer, engine.backend, device, hop)


def open_ours(
    bundle: Bundle, precision: str, threads: int, closing: contextlib.ExitStack, backend: str = "onnxruntime"
) -> Engine:
    """One more engine of the bundle; closed with `closing`."""
    return closing.enter_context(load(bundle, backend=backend, precision=precision, threads=threads))


# -------------------------------------------------------------------------------------------------------------- others
def ort_peer(bundle: Bundle, precision: str, threads: int, inputs: Inputs) -> Peer:
    """The same clip graph in a plain `InferenceSession.run`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    graph = bundle.read_graph(bundle.graph("clip", precision))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def answer(index: int) -> Answer:
        return Answer(session.run(None, {name: inputs.clip(index)[None]})[0][0], {})

    what = "InferenceSession.run on the bundle's clip graph, nothing around it"
    return Peer(ORT, what, precision, True, answer, f"onnxruntime {onnxruntime.__version__} CPU")


def torch_peer(model: Any, name: str, inputs: Inputs) -> Peer:
    """A torch module from the same uint8 clip: scaling and layout, forward in inference mode, softmax."""
    import torch

    from ..model.logoformer import to_tensor

    def answer(index: int) -> Answer:
        with torch.inference_mode():
            logits = model(to_tensor(inputs.clip(index)[None]))
            return Answer(torch.softmax(logits, -1)[0].numpy(), {})

    how = "LogoFormer in eval and inference mode" + (", compiled" if name == COMPILED else "")
    what = f"{how}: uint8 clip -> float, /255 -> probabilities; random weights (time does not depend on them)"
    return Peer(name, what, "fp32", False, answer, f"torch {torch.__version__} CPU")


def eager_model(bundle: Bundle) -> Any:
    """The bundle's architecture with random weights; a bundle holds no torch weights."""
    import torch

    from ..model.config import ModelConfig
    from ..model.logoformer import LogoFormer

    # The index keeps derived figures beside the configuration; they do not build a model.
    config = {name: value for name, value in bundle.manifest["model"].items() if name != "complexity"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LogoFormer(ModelConfig.from_json(config)).eval()


def compiled_peer(model: Any, inputs: Inputs) -> Peer:
    """The same model through `torch.compile`, compiled here and compared with the eager one.

    Raises:
        RuntimeError: its answer is not the eager one's.
        Exception: whatever torch raises where its compiler cannot work.
    """
    import torch

    peer = torch_peer(torch.compile(model, dynamic=False), COMPILED, inputs)
    want = torch_peer(model, EAGER, inputs).answer(0).probabilities
    difference = float(np.abs(peer.answer(0).probabilities - want).max())
    if difference > COMPILE_TOLERANCE:
        raise RuntimeError(f"its probabilities differ by {difference:.2g} from eager torch's")
    return peer


def open_others(
    wanted: Sequence[str],
    bundle: Bundle,
    precision: str,
    threads: int,
    inputs: Inputs,
    closing: contextlib.ExitStack,
    progress: Progress | None = None,
) -> tuple[list[Peer], list[Skipped]]:
    """Opens the peers that work here.

    Args:
        wanted: some of `OTHERS`.
        bundle: gives the graph and the architecture.
        precision: of the ONNX Runtime peer; torch runs in FP32.
        threads: CPU threads of each.
        inputs: what they are fed.
        closing: restores torch's number of threads.
        progress: called before each is opened; compiling takes a minute.

    Returns:
        The peers, and those left out with the reason.
    """
    peers: list[Peer] = []
    skipped: list[Skipped] = []
    model = None
    chosen = [name for name in OTHERS if name in wanted]
    for done, name in enumerate(chosen):
        if progress is not None:
            progress(f"opening {name}", done, len(chosen))
        try:
            if name == ORT:
                peers.append(ort_peer(bundle, precision, threads, inputs))
                continue
            if model is None:
                closing.enter_context(_torch_threads(threads))
                model = eager_model(bundle)
            peers.append(torch_peer(model, EAGER, inputs) if name == EAGER else compiled_peer(model, inputs))
        except LogoformerError:
            raise  # the bundle itself is at fault
        except Exception as error:  # another program's failure, of any class: it must not end our run
            skipped.append(Skipped(name, _reason(error)))
    return peers, skipped


@contextlib.contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
