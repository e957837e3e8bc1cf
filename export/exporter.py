"""Checkpoint to bundle.

The order is fail-first: trace, lint, prove FP32 against PyTorch, scan ranges, convert to FP16, judge FP16 by the
rounding reference; only then is anything written.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from torch import nn

from ..bundle import Bundle, BundleWriter, Golden, GraphEntry, StreamSpec, TensorSpec
from ..bundle.files import sha256
from ..clips import window_order
from ..engine.sessions.ort import open_session, runtime_name
from ..errors import BadInputError, UsageError, VerificationError, one_of
from ..model.networks.complexity import complexity
from ..model.networks.config import ModelConfig
from ..model.networks.logoformer import LogoFormer
from . import parity as par
from .batches import BATCHES, write_frame_batches
from .graphs import GRAPHS, build_graph, example_inputs
from .lint import require_clean
from .macs import macs_by_precision, promised_share
from .precision import to_fp16
from .ranges import MARGIN, SOFTMAX_LIMIT, Protected, not_finite, protect, scan
from .reference import NAME as REFERENCE_NAME
from .trace import OPSET, to_bytes, trace

_log = logging.getLogger(__name__)

PRECISIONS = ("fp32", "fp16")
FP32_SHARE = 0.001  # of the between-clip deviation of a logit
FP16_SHARE = 0.05
GOLDEN_CLIPS = 8
SCAN_CLIPS = 32
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ExportConfig:
    """What to export.

    Attributes:
        precisions: 'fp32' always; 'fp16' when asked for.
        faces: streams that share the ring arena.
        max_fps: the fastest camera whose every frame is kept; the ring has a quarter more slots than that needs.
        frame_batches: frame graphs for several faces at once, beside the one for a single face.
    """

    precisions: tuple[str, ...] = PRECISIONS
    faces: int = 4
    max_fps: float = 30.0
    frame_batches: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        unknown = set(self.precisions) - set(PRECISIONS)
        if unknown or "fp32" not in self.precisions:
            raise UsageError(
                f"Cannot export the precisions {list(self.precisions)}.",
                next=f"choose from {one_of(PRECISIONS)}; fp32 is always among them",
            )
        if not 1 <= self.faces <= 64 or not 1 <= self.max_fps <= 240:
            raise UsageError(f"faces must be 1..64 and max_fps 1..240; got {self.faces} and {self.max_fps}.")
        if set(self.frame_batches) - set(BATCHES) or len(set(self.frame_batches)) < len(self.frame_batches):
            raise UsageError(
                f"Cannot export frame batches {list(self.frame_batches)}.", next=f"choose from {one_of(BATCHES)}"
            )


@dataclass(frozen=True)
class RealClips:
    """The clips that ranges, parity and golden answers are taken on.

    Attributes:
        clips: uint8 `[N, T, S, S, 3]`, RGB.
        source: where they come from, for the record.
        synthetic: whether they may be shipped as golden clips (no real face enters a bundle unasked).
    """

    clips: npt.NDArray[np.uint8]
    source: str
    synthetic: bool


@dataclass(frozen=True)
class _Graph:
    """One traced graph with the module it came from."""

    name: str
    module: nn.Module
    fp32: onnx.ModelProto
    ring_slots: int


def ring_slots(config: ModelConfig, max_fps: float) -> int:
    """Slots of one face: the training span at the fastest camera, and a quarter more.

    The stream does not keep frames that follow closer than the pattern's reach over the slots; the quarter lets a
    camera of just `max_fps` jitter without losing any.
    """
    return math.ceil(1.25 * config.sampling.span_s * max_fps) + 2


def export_bundle(
    model: LogoFormer,
    out: str | os.PathLike[str],
    real: RealClips,
    config: ExportConfig | None = None,
    *,
    provenance: dict[str, Any] | None = None,
    share_clips: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Exports a model.

    Args:
        model: in evaluation mode.
        out: the bundle's folder; an older bundle there is replaced in one step at the very end.
        real: at least `GOLDEN_CLIPS` clips.
        config: what to export.
        provenance: JSON values about the checkpoint.
        share_clips: store clips in the bundle although they are not synthetic.
        progress: called with (stage, done, total).

    Returns:
        The bundle, opened.

    Raises:
        BadInputError: too few clips, or of another shape.
        VerificationError: a graph breaks a lint rule, or FP32 does not answer as PyTorch does.
        MachineError: a package is missing, or the disk is full.
    """
    config = config or ExportConfig()
    note = progress or (lambda *_: None)
    c = model.config
    expected = (c.frames, c.image_size, c.image_size, 3)
    if real.clips.dtype != np.uint8 or real.clips.shape[1:] != expected or len(real.clips) < GOLDEN_CLIPS:
        raise BadInputError(
            f"The clips are {real.clips.dtype} {list(real.clips.shape)}; at least {GOLDEN_CLIPS} of uint8 "
            f"{list(expected)} are needed.",
            next="give more clips, or leave --data out to use synthetic ones",
        )
    if not (real.synthetic or share_clips):
        raise BadInputError(
            "The golden clips would be real faces, and a bundle travels.",
            next="leave --data out (synthetic faces are stored), or pass --share-clips if you may share them",
        )
    writer = BundleWriter(out)  # refuses a foreign folder before any time is spent
    slots = ring_slots(c, config.max_fps)
    stream = StreamSpec(slots, config.faces, c.frames, c.grid, c.token_window, c.embed_dim)

    graphs = []
    for index, name in enumerate(GRAPHS):
        note("trace", index, len(GRAPHS))
        _log.info("tracing the graph %s", name)
        module = build_graph(name, model)
        inputs = example_inputs(name, c, slots * config.faces)
        graph = _Graph(name, module, trace(module, inputs, "tokens" if name == "frame" else "probabilities"), slots)
        require_clean(graph.fp32, f"The graph {name} in fp32")
        graphs.append(graph)
    note("trace", len(GRAPHS), len(GRAPHS))

    truth = par.torch_answers(model, real.clips)
    order = window_order(c.frames, c.grid, c.token_window)
    fp32 = {graph.name: graph.fp32 for graph in graphs}
    precisions: dict[str, Any] = {"fp32": _judge_fp32(graphs, fp32, real.clips, truth, stream, order, note)}
    models = {"fp32": fp32}
    if "fp16" in config.precisions:
        converted, protected = _convert_fp16(fp32, real.clips, stream, order, note)
        precisions["fp16"] = _judge_fp16(graphs, converted, protected, real.clips, truth, stream, order, note)
        models["fp16"] = converted

    for precision, judged in precisions.items():
        _log.info("%s: %s - %s", precision, judged["verdict"], judged["reason"])

    entries: list[dict[str, Any]] = []
    total = len(GRAPHS) * len(models)
    for precision, by_name in models.items():
        for name, onnx_model in by_name.items():
            note("write", len(entries), total)
            specs = _specs(onnx_model)
            macs = macs_by_precision(onnx_model)
            precisions[precision].setdefault("promised_share", {})[name] = promised_share(macs, precision)
            entry = writer.add_graph(
                to_bytes(onnx_model),
                graph=name,
                precision=precision,
                batch=1,
                opset=OPSET,
                inputs=specs[0],
                outputs=specs[1],
                macs=macs,
            )
            entries.append(entry)
            _log.info("wrote %s, %.2f MB", entry["file"], entry["size"] / 1e6)
    frames = {precision: by_name["frame"] for precision, by_name in models.items()}
    entries += write_frame_batches(writer, frames, config.frame_batches, real.clips, _specs, _ort_runner)
    golden = Golden(real.clips[:GOLDEN_CLIPS], truth[:GOLDEN_CLIPS])
    bundle = writer.commit(
        {
            "model": {**c.to_json(), "complexity": complexity(c).to_json()},
            "labels": list(c.labels),
            "preprocessing": {"size": c.image_size, "color": "rgb", "resize": "Pillow bilinear, antialiased"},
            "sampling": c.sampling.to_json(),
            "stream": {
                "slots": stream.slots,
                "faces": stream.faces,
                "frames": stream.frames,
                "grid": stream.grid,
                "window": list(stream.window),
                "embed_dim": stream.embed_dim,
            },
            "graphs": entries,
            "precisions": precisions,
            "golden": writer.add_golden(golden, real.source),
            "provenance": {
                "checkpoint": provenance or {},
                "clips": {"source": real.source, "count": len(real.clips), "sha256": sha256(real.clips.tobytes())},
                "tools": {name: metadata.version(name) for name in ("torch", "onnx", "nvidia-modelopt", "numpy")},
            },
        }
    )
    note("write", total, total)
    return bundle


# ---------------------------------------------------------------------------------------------------------------- judge
def _judge_fp32(
    graphs: list[_Graph],
    models: dict[str, onnx.ModelProto],
    clips: npt.NDArray[np.uint8],
    truth: par.Probabilities,
    stream: StreamSpec,
    order: npt.NDArray[np.int64],
    note: Progress,
) -> dict[str, Any]:
    runners = {name: _ort_runner(name, model) for name, model in models.items()}
    who = runtime_name()
    note("parity fp32", 0, 2)
    answers = par.clip_answers(runners["clip"], clips)
    clip = par.compare(answers, truth, who, "PyTorch float32")
    note("parity fp32", 1, 2)
    pair = par.compare(
        par.pair_answers(runners["frame"], runners["temporal"], clips, stream.rows, order),
        answers,
        who,
        f"the clip graph on {who}",
    )
    note("parity fp32", 2, 2)
    for result, blamed in ((clip, ("clip",)), (pair, ("frame", "temporal"))):
        if not result.within(FP32_SHARE):
            raise VerificationError(
                f"FP32 of {' + '.join(blamed)} differs from {result.against} by {result.share:.3%} of the deviation "
                f"between clips; at most {FP32_SHARE:.1%} is allowed. Nothing was written.",
                cause="the traced graph does not compute what the module computes",
                log=[_blame(graph, models[graph.name], clips[0], stream, order) for graph in graphs],
            )
    return {
        "verdict": "accept",
        "reason": f"differs from PyTorch by {clip.share:.4%} of the deviation between clips",
        "parity": {"clip": clip.to_json(), "pair": pair.to_json()},
        "kept_fp32": {},
    }


def _convert_fp16(
    models: dict[str, onnx.ModelProto],
    clips: npt.NDArray[np.uint8],
    stream: StreamSpec,
    order: npt.NDArray[np.int64],
    note: Progress,
) -> tuple[dict[str, onnx.ModelProto], dict[str, list[Protected]]]:
    """Scans the clip graph, which holds every node of the pair under the same name, and converts all three alike."""
    scanned = clips[:SCAN_CLIPS]
    note("range scan", 0, 1)
    ranges = scan(models["clip"], [{"clip": clip[None]} for clip in scanned])
    keep = protect(models["clip"], ranges)
    note("range scan", 1, 1)
    frame = _ort_runner("frame", models["frame"])
    feeds = {
        "clip": {"clip": clips[:1]},
        "frame": {"frame": clips[0, :1]},
        "temporal": par.pair_feed(frame, clips[0], stream.rows, order),
    }
    converted, protected = {}, {}
    for index, (name, model) in enumerate(models.items()):
        note("convert fp16", index, len(models))
        names = {node.name for node in model.graph.node}
        protected[name] = [item for item in keep if item.node in names]
        _log.info("converting %s to FP16, %d nodes stay FP32", name, len(protected[name]))
        converted[name] = to_fp16(model, feeds[name], protected[name])
        require_clean(converted[name], f"The graph {name} in fp16")
    note("convert fp16", len(models), len(models))
    return converted, protected


def _judge_fp16(
    graphs: list[_Graph],
    models: dict[str, onnx.ModelProto],
    protected: dict[str, list[Protected]],
    clips: npt.NDArray[np.uint8],
    truth: par.Probabilities,
    stream: StreamSpec,
    order: npt.NDArray[np.int64],
    note: Progress,
) -> dict[str, Any]:
    note("parity fp16", 0, 3)
    clip = par.compare(par.RoundingClip(models["clip"]).answers(clips), truth, REFERENCE_NAME, "PyTorch float32")
    note("parity fp16", 1, 3)
    answers = par.RoundingPair(models["frame"], models["temporal"], order).answers(clips)
    pair = par.compare(answers, truth, REFERENCE_NAME, "PyTorch float32")
    note("parity fp16", 2, 3)
    probed = clips[:SCAN_CLIPS]
    overflowing = not_finite(models["clip"], [{"clip": clip[None]} for clip in probed])
    note("parity fp16", 3, 3)
    good = clip.within(FP16_SHARE, 0.99) and pair.within(FP16_SHARE, 0.99) and not overflowing
    worst = max(clip.share, pair.share)
    verdict: dict[str, Any] = {
        "verdict": "accept" if good else "refuse: use fp32",
        "reason": f"differs from PyTorch by {worst:.3%} of the deviation between clips; {FP16_SHARE:.0%} is allowed",
        "parity": {"clip": clip.to_json(), "pair": pair.to_json()},
        "kept_fp32": {
            name: [{"node": item.node, "reason": item.reason} for item in items] for name, items in protected.items()
        },
        "scan": {"clips": len(probed), "margin_of_65504": MARGIN, "softmax_limit": SOFTMAX_LIMIT},
        "probe": {"clips": len(probed), "not_finite": overflowing[:8], "evaluator": REFERENCE_NAME},
    }
    if not good:
        verdict["worst_tensors"] = [_blame(graph, models[graph.name], clips[0], stream, order) for graph in graphs]
    return verdict


def _blame(
    graph: _Graph, model: onnx.ModelProto, clip: npt.NDArray[np.uint8], stream: StreamSpec, order: npt.NDArray[np.int64]
) -> str:
    feed: dict[str, npt.NDArray[Any]]
    if graph.name == "clip":
        feed = {"clip": clip[None]}
    elif graph.name == "frame":
        feed = {"frame": clip[:1]}
    else:
        random = np.random.default_rng(0)  # the graph alone is asked, whatever the frame graph would have given
        ring = random.standard_normal((stream.rows, stream.embed_dim), np.float32)
        feed = {"ring": ring, "order": order.astype(np.int32)}
    return f"{graph.name}: {par.worst_tensor(model, graph.module, feed)}"


# -------------------------------------------------------------------------------------------------------------- helpers
def _specs(model: onnx.ModelProto) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    def spec(value: onnx.ValueInfoProto) -> TensorSpec:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        return TensorSpec(value.name, dtype.name, tuple(axis.dim_value for axis in tensor.shape.dim))

    return tuple(map(spec, model.graph.input)), tuple(map(spec, model.graph.output))


def _ort_runner(name: str, model: onnx.ModelProto) -> par.Runner:
    """Runs a graph through the runtime's own session, so that parity is proven on what will be shipped."""
    data = to_bytes(model)
    inputs, outputs = _specs(model)
    file = f"graphs/{name}.fp32.b1.onnx"
    session = open_session(
        data, GraphEntry(name, "fp32", 1, file, sha256(data), len(data), OPSET, inputs, outputs, {}), {}
    )

    def run(feed: Any) -> dict[str, npt.NDArray[Any]]:
        for key, value in feed.items():
            np.copyto(session.input(key), value, casting="no")
        session.run()
        return {spec.name: session.output(spec.name).copy() for spec in outputs}

    return run


def default_out(checkpoint: str | os.PathLike[str]) -> Path:
    """`face` -> `face.bundle`, beside it."""
    path = Path(checkpoint)
    return path.with_name(path.name.removesuffix(".pt") + ".bundle")
