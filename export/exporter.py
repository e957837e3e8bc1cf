"""Export a checkpoint to a bundle.

The order is fail-first: trace, lint, prove FP32 against PyTorch, scan ranges, convert to FP16, judge FP16 by the
rounding reference; only then is anything written.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from torch import nn

from ..bundle import Bundle, BundleWriter, Golden, StreamSpec
from ..bundle.files import sha256
from ..errors import BadInputError, UsageError, one_of
from ..model.data.clips import Progress
from ..model.networks.complexity import complexity
from ..model.networks.config import ModelConfig
from ..model.networks.logoformer import LogoFormer
from .acceptance import PrecisionJudge
from .batches import BATCHES, write_frame_batches
from .entries import add_models
from .graphs import GRAPHS, build_graph, example_inputs
from .lint import require_clean
from .parity import torch_answers
from .trace import trace

_log = logging.getLogger(__name__)

PRECISIONS = ("fp32", "fp16")
GOLDEN_CLIPS = 8


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

    modules: dict[str, nn.Module] = {}
    fp32: dict[str, onnx.ModelProto] = {}
    for index, name in enumerate(GRAPHS):
        note("trace", index, len(GRAPHS))
        _log.info("tracing the graph %s", name)
        modules[name] = build_graph(name, model)
        inputs = example_inputs(name, c, slots * config.faces)
        fp32[name] = trace(modules[name], inputs, "tokens" if name == "frame" else "probabilities")
        require_clean(fp32[name], f"The graph {name} in fp32")
    note("trace", len(GRAPHS), len(GRAPHS))

    truth = torch_answers(model, real.clips)
    judge = PrecisionJudge(modules, real.clips, truth, stream, note)
    precisions: dict[str, Any] = {"fp32": judge.fp32(fp32)}
    models = {"fp32": fp32}
    if "fp16" in config.precisions:
        models["fp16"], protected = judge.convert_fp16(fp32)
        precisions["fp16"] = judge.fp16(models["fp16"], protected)

    for precision, judged in precisions.items():
        _log.info("%s: %s - %s", precision, judged["verdict"], judged["reason"])

    entries, promised = add_models(writer, models, note)
    for precision, shares in promised.items():
        precisions[precision]["promised_share"] = shares
    for entry in entries:
        _log.info("wrote %s, %.2f MB", entry["file"], entry["size"] / 1e6)
    frames = {precision: by_name["frame"] for precision, by_name in models.items()}
    entries += write_frame_batches(writer, frames, config.frame_batches, real.clips)
    golden = Golden(real.clips[:GOLDEN_CLIPS], truth[:GOLDEN_CLIPS])
    bundle = writer.commit(
        {
            "model": {**c.to_json(), "complexity": complexity(c).to_json()},
            "labels": list(c.labels),
            "preprocessing": {"size": c.image_size, "color": "rgb", "resize": "Pillow bilinear, antialiased"},
            "sampling": c.sampling.to_json(),
            "stream": asdict(stream),
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
    note("write", len(GRAPHS) * len(models), len(GRAPHS) * len(models))
    return bundle
