"""Baselines that are not ours: other programs, and ways without a stream, where they run.

PyTorch runs the bundle's architecture with random weights: a bundle holds none for it.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...bundle.onnx_scan import refuse_external
from ...clips import Frame, pattern_ages, pick
from ...engine import Runtime
from ...engine.sessions.openvino import cpu_settings, runtime_name, shared_core
from ...errors import LogoformerError, MachineError
from ..load.closed import Progress
from ..report.records import CPU
from .contract import (
    COMPILED,
    EAGER,
    NAIVE,
    OPENVINO,
    ORT,
    ORT_CUDA,
    OTHERS,
    PER_FRAME,
    POLYGRAPHY,
    Baseline,
    Inputs,
    Skipped,
    StepAnswer,
    answer_of,
    open_ours,
)

COMPILE_TOLERANCE = 1e-3  # between the compiled model's probabilities and the eager one's
PROVIDERS = {ORT: "CPUExecutionProvider", ORT_CUDA: "CUDAExecutionProvider"}
FATAL = 4  # of log severity: a provider without its card prints a page before it falls back
NEED_GPU = (ORT_CUDA, POLYGRAPHY)


@dataclass(frozen=True)
class Opening:
    """What the baselines of one run are opened with.

    Attributes:
        bundle: gives the graph and the architecture.
        precision: of the graphs; torch runs in FP32.
        threads: CPU threads of each.
        inputs: what they are fed.
        closing: frees what they hold, and restores torch's number of threads.
        gpu: name of this machine's GPU; None: it has none, and whoever needs one is left out.
        backend: of the run: ways without a stream are timed on what ours is timed on.
        device: that the run's figures belong to.
        card: CUDA's number of it.
        strict: as in `logoformer.load`.
    """

    bundle: Bundle
    precision: str
    threads: int
    inputs: Inputs
    closing: contextlib.ExitStack
    gpu: str | None = None
    backend: str = "onnxruntime"
    device: str = CPU
    card: int = 0
    strict: bool = False

    def clip_graph(self) -> bytes:
        """The bytes of the clip graph that all other runtimes are given, checked.

        Raises:
            RefusedError: changed, or with tensors in other files.
        """
        entry = self.bundle.graph("clip", self.precision)
        data = self.bundle.read_graph(entry)
        refuse_external(data, entry.file)
        return data

    def runtime(self) -> Runtime:
        """One more runtime of the bundle, on the backend of the run."""
        given = self.bundle, self.precision, self.threads, self.closing, self.backend
        return open_ours(*given, device=self.card, strict=self.strict)


def open_others(
    wanted: Sequence[str], opening: Opening, progress: Progress | None = None
) -> tuple[list[Baseline], list[Skipped]]:
    """Opens the baselines that work here.

    Args:
        wanted: some of `OTHERS`.
        opening: with what.
        progress: called before each is opened; compiling takes a minute.

    Returns:
        The baselines, and those left out with the reason.

    Raises:
        LogoformerError: the bundle itself is at fault.
    """
    baselines: list[Baseline] = []
    skipped: list[Skipped] = []
    chosen = [name for name in OTHERS if name in wanted]
    for done, name in enumerate(chosen):
        if progress is not None:
            progress(f"opening {name}", done, len(chosen))
        if name in NEED_GPU and opening.gpu is None:
            skipped.append(Skipped(name, "there is no NVIDIA GPU on this machine"))
            continue
        try:
            baselines.append(OPENERS[name](opening))
        except MachineError as error:
            skipped.append(Skipped(name, error.what))
        except LogoformerError:
            raise  # the bundle itself is at fault
        except Exception as error:  # another program's failure, of any class: it must not end our run
            skipped.append(Skipped(name, _reason(error)))
    return baselines, skipped


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


# ------------------------------------------------------------------------------------------------------ other programs
def ort_baseline(o: Opening, name: str = ORT) -> Baseline:
    """The clip graph in a plain `InferenceSession.run`, with a provider of `PROVIDERS`.

    Raises:
        RuntimeError: the provider is not there: ONNX Runtime itself would silently take the CPU, and a CPU's time
            would stand under a GPU's name.
    """
    import onnxruntime

    provider = PROVIDERS[name]
    if provider not in onnxruntime.get_available_providers():
        raise RuntimeError(f"this onnxruntime has no {provider}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3 if name == ORT else FATAL
    options.intra_op_num_threads, options.inter_op_num_threads = o.threads, 1
    asked = [(provider, {"use_tf32": "0", "device_id": str(o.card)} if name == ORT_CUDA else {})]  # FP32 stays FP32
    session = onnxruntime.InferenceSession(o.clip_graph(), options, providers=asked)
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} could not start (no NVIDIA GPU, or its libraries are missing)")
    feed = session.get_inputs()[0].name

    def answer(index: int) -> StepAnswer:
        return StepAnswer(session.run(None, {feed: o.inputs.clip(index)[None]})[0][0], {})

    what = f"InferenceSession.run on the bundle's clip graph with {provider}, nothing around it"
    backend = f"onnxruntime {onnxruntime.__version__} {provider.removesuffix('ExecutionProvider')}"
    return Baseline(name, what, o.precision, True, answer, backend, CPU if name == ORT else str(o.gpu))


def openvino_baseline(o: Opening) -> Baseline:
    """A compiled model with one stream, tuned for latency, called without us.

    OpenVINO computes in BF16 on CPUs that are fast at it unless it is told otherwise; here it keeps to FP32.

    Raises:
        MachineError: OpenVINO is not installed.
        Exception: whatever it raises for a graph that it cannot take.
    """
    core = shared_core()
    model = core.read_model(io.BytesIO(o.clip_graph()))
    request = core.compile_model(model, "CPU", cpu_settings(o.threads)).create_infer_request()

    def answer(index: int) -> StepAnswer:
        request.infer([o.inputs.clip(index)[None]])
        return StepAnswer(request.get_output_tensor(0).data[0].copy(), {})

    what = "compiled model on the CPU, latency hint, one stream, FP32 kept: infer on the bundle's clip graph"
    return Baseline(OPENVINO, what, o.precision, True, answer, runtime_name())


def polygraphy_baseline(o: Opening) -> Baseline:
    """`TrtRunner.infer`, which copies from pageable memory and waits for each call.

    The network is strongly typed and TF32 cleared, as `logoformer build` does.

    Raises:
        ModuleNotFoundError: TensorRT or Polygraphy is not installed.
        RuntimeError: another card than the first was asked for, which its runner does not know of.
        Exception: whatever either raises without a GPU.
    """
    if o.card:
        raise RuntimeError(f"its runner takes the first card, and the run is on card {o.card}")
    import tensorrt  # before Polygraphy, whose own imports are lazy and whose errors then come late
    from polygraphy.backend.trt import CreateConfig, EngineFromNetwork, NetworkFromOnnxBytes, TrtRunner

    network = NetworkFromOnnxBytes(o.clip_graph(), strongly_typed=True)
    runner = o.closing.enter_context(TrtRunner(EngineFromNetwork(network, CreateConfig(tf32=False))))
    entry = o.bundle.graph("clip", o.precision)
    given, wanted = entry.inputs[0].name, entry.outputs[0].name

    def answer(index: int) -> StepAnswer:
        return StepAnswer(runner.infer({given: o.inputs.clip(index)[None]})[wanted][0].copy(), {})

    what = "polygraphy TrtRunner.infer on an engine of the bundle's clip graph, copies included, no CUDA graph"
    backend = f"tensorrt {tensorrt.__version__} by polygraphy"
    return Baseline(POLYGRAPHY, what, o.precision, True, answer, backend, str(o.gpu))


def torch_baseline(model: Any, name: str, inputs: Inputs) -> Baseline:
    """A torch module on the same uint8 clip: scaling, forward in inference mode, softmax."""
    import torch

    from ...model.networks.network import to_tensor

    def answer(index: int) -> StepAnswer:
        with torch.inference_mode():
            logits = model(to_tensor(inputs.clip(index)[None]))
            return StepAnswer(torch.softmax(logits, -1)[0].numpy(), {})

    how = f"{type(model).__name__} in eval and inference mode" + (", compiled" if name == COMPILED else "")
    what = f"{how}: uint8 clip -> float, /255 -> probabilities; random weights (time does not depend on them)"
    return Baseline(name, what, "fp32", False, answer, f"torch {torch.__version__} CPU")


def _eager_model(o: Opening) -> Any:
    """The bundle's architecture in torch, with the threads given until `o.closing` closes."""
    import torch

    from ...model.networks.configs import config_from_json
    from ...model.networks.families import untrained

    # The index keeps derived figures beside the configuration; they do not build a model.
    config = {name: value for name, value in o.bundle.manifest["model"].items() if name != "complexity"}
    o.closing.callback(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(o.threads)
    return untrained(config_from_json(config))


def compiled_baseline(o: Opening) -> Baseline:
    """The same through `torch.compile`, compiled here and compared with the eager model.

    Raises:
        RuntimeError: its answer is not the eager one's.
        Exception: whatever torch raises where its compiler cannot work.
    """
    import torch

    model = _eager_model(o)
    baseline = torch_baseline(torch.compile(model, dynamic=False), COMPILED, o.inputs)
    want = torch_baseline(model, EAGER, o.inputs).answer(0).probabilities
    difference = float(np.abs(baseline.answer(0).probabilities - want).max())
    if difference > COMPILE_TOLERANCE:
        raise RuntimeError(f"its probabilities differ by {difference:.2g} from eager torch's")
    return baseline


# -------------------------------------------------------------------------------------------------- without a stream
def naive_baseline(o: Opening) -> Baseline:
    """Picks the training pattern out of the kept frames and runs the clip graph, every frame."""
    runtime, inputs, sampling = o.runtime(), o.inputs, o.bundle.sampling
    ages = pattern_ages(sampling)
    kept = math.ceil(float(ages.max()) * inputs.fps) + 2
    frames: deque[Frame] = deque(maxlen=kept)
    times: deque[float] = deque(maxlen=kept)

    def answer(index: int) -> StepAnswer:
        frames.append(inputs.frame(index))
        times.append(index / inputs.fps)
        clip = np.stack([frames[int(place)] for place in pick(np.array(times), ages)])
        return answer_of([runtime(clip, color="rgb")])

    what = (
        "1 new uint8 frame: the training pattern is picked out of the frames kept, then the whole clip graph runs again"
    )
    return Baseline(NAIVE, what, runtime.precision, True, answer, runtime.backend, o.device, hop=1)


def per_frame_baseline(o: Opening) -> Baseline:
    """A classifier of single frames: the frame graph, the mean of its tokens, a linear layer."""
    runtime = o.runtime()
    session = runtime.session("frame")
    dim = session.outputs["tokens"].shape[-1]
    rng = np.random.default_rng(0)
    scale = 1.0 / math.sqrt(dim)
    weights = (rng.standard_normal((len(runtime.labels), dim)) * scale).astype(np.float32)  # [C, d]

    def answer(index: int) -> StepAnswer:
        session.input("frame")[0] = o.inputs.frame(index)
        session.run()
        tokens = session.output("tokens")[0]  # [h*w, d]
        logits = weights @ tokens.astype(np.float32).mean(0)  # [C]
        powers = np.exp(logits - logits.max())
        return StepAnswer(powers / powers.sum(), {})

    what = (
        "1 new uint8 frame: the frame graph, the mean of its tokens, one linear layer (random weights): a classifier "
        "of single frames with an equal trunk; it sees no movement"
    )
    return Baseline(PER_FRAME, what, runtime.precision, False, answer, runtime.backend, o.device, hop=1)


OPENERS: dict[str, Callable[[Opening], Baseline]] = {
    ORT: ort_baseline,
    EAGER: lambda o: torch_baseline(_eager_model(o), EAGER, o.inputs),
    COMPILED: compiled_baseline,
    OPENVINO: openvino_baseline,
    NAIVE: naive_baseline,
    PER_FRAME: per_frame_baseline,
    ORT_CUDA: lambda o: ort_baseline(o, ORT_CUDA),
    POLYGRAPHY: polygraphy_baseline,
}
