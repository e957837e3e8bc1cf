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
from ..bundle.alignment import STANDARD, Alignment
from ..bundle.files import sha256
from ..errors import BadInputError, UsageError, one_of
from ..model.data.clips import Progress
from ..model.networks.configs import complexity
from ..model.networks.contract import NetworkConfig
from ..model.networks.families import FAMILIES
from ..model.networks.network import Network, to_tensor
from ..model.networks.values import refuse_answers
from .acceptance import PrecisionJudge
from .batches import BATCHES, write_batches
from .entries import add_models
from .forms import GraphForm, form_entry, form_of
from .graphs import GRAPHS, build_graph, example_inputs
from .lint import require_clean
from .parity import torch_answers
from .trace import trace

_log = logging.getLogger(__name__)

PRECISIONS = ("fp32", "fp16")
_BYTES = {"fp32": 4, "fp16": 2}  # of a weight
GOLDEN_CLIPS = 8


@dataclass(frozen=True)
class ExportConfig:
    """What to export.

    Attributes:
        precisions: 'fp32' always; 'fp16' when asked for.
        faces: streams that share the ring arena.
        max_fps: the fastest camera whose every frame is kept; the ring has a quarter more slots than that needs.
        batches: graphs of a stream for several faces at once, beside those for a single face.
    """

    precisions: tuple[str, ...] = PRECISIONS
    faces: int = 4
    max_fps: float = 30.0
    batches: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if set(self.precisions) - set(PRECISIONS) or "fp32" not in self.precisions:
            raise UsageError(
                f"Cannot export the precisions {one_of(self.precisions) or 'of none'}: fp32 is always among them.",
                cause="every other precision is judged by it, and what it leaves out runs in it",
                next=f"choose fp32, alone or with others of {one_of(PRECISIONS)}",
            )
        if not 1 <= self.faces <= 64 or not 1 <= self.max_fps <= 240:
            raise UsageError(f"faces must be 1..64 and max_fps 1..240; got {self.faces} and {self.max_fps}.")
        if set(self.batches) - set(BATCHES) or len(set(self.batches)) < len(self.batches):
            raise UsageError(f"Cannot export the batches {list(self.batches)}.", next=f"choose from {one_of(BATCHES)}")


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


def ring_slots(config: NetworkConfig, max_fps: float) -> int:
    """Slots of one face: the training span at the fastest camera, and a quarter more.

    The stream does not keep frames that follow closer than the pattern's reach over the slots; the quarter lets a
    camera of just `max_fps` jitter without losing any.
    """
    return math.ceil(1.25 * config.sampling.span_s * max_fps) + 2


@dataclass(frozen=True)
class TracedGraphs:
    """The graphs of one form, by name: the modules, and FP32 as traced."""

    modules: dict[str, nn.Module]
    models: dict[str, onnx.ModelProto]


def _trace_all(model: Network, form: GraphForm, ring_slots: int, note: Progress) -> TracedGraphs:
    found = TracedGraphs({}, {})
    for index, name in enumerate(GRAPHS):
        note("trace", index, len(GRAPHS))
        _log.info("tracing the graph %s, %s", name, form.name)
        found.modules[name] = build_graph(name, model, absorbed=form.absorbed)
        inputs = example_inputs(name, model.config, ring_slots)
        found.models[name] = trace(found.modules[name], inputs, "tokens" if name == "frame" else "probabilities")
        require_clean(found.models[name], f"The graph {name} in fp32")
    note("trace", len(GRAPHS), len(GRAPHS))
    return found


def export_bundle(
    model: Network,
    out: str | os.PathLike[str],
    real: RealClips,
    config: ExportConfig | None = None,
    *,
    alignment: Alignment = STANDARD,
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
        alignment: where the model's training crops show eyes and mouth.
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
    stored = sum(value.numel() for value in model.parameters()) * sum(_BYTES[name] for name in config.precisions)
    # `clip`, and once more in `frame` and `temporal`; refuses before any work
    with BundleWriter(out, 2 * stored) as writer:
        slots = ring_slots(c, config.max_fps)
        stream = StreamSpec(slots, config.faces, c.frames, c.grid, c.token_window, c.token_dim)

        truth = torch_answers(model, real.clips)
        refuse_answers(model, truth, to_tensor(real.clips[:GOLDEN_CLIPS]))
        form = form_of(c, "fp32")
        traced = _trace_all(model, form, slots * config.faces, note)
        judge = PrecisionJudge(traced.modules, real.clips, truth, stream, note)
        precisions: dict[str, Any] = {"fp32": {**judge.fp32(traced.models), **form_entry(c, "fp32")}}
        models = {"fp32": traced.models}
        if "fp16" in config.precisions:
            if form_of(c, "fp16") != form:
                traced = _trace_all(model, form_of(c, "fp16"), slots * config.faces, note)
                judge = PrecisionJudge(traced.modules, real.clips, truth, stream, note)
            models["fp16"], protected = judge.convert_fp16(traced.models)
            precisions["fp16"] = {**judge.fp16(models["fp16"], protected), **form_entry(c, "fp16")}

        for precision, judged in precisions.items():
            _log.info("%s: %s - %s", precision, judged["verdict"], judged["reason"])

        entries, promised = add_models(writer, models, note)
        for precision, shares in promised.items():
            precisions[precision]["promised_share"] = shares
        for entry in entries:
            _log.info("wrote %s, %.2f MB", entry["file"], entry["size"] / 1e6)
        entries += write_batches(writer, models, config.batches, real.clips, stream)
        golden = Golden(real.clips[:GOLDEN_CLIPS], truth[:GOLDEN_CLIPS])
        bundle = writer.commit(
            {
                "family": FAMILIES[c.family].to_json(),
                "model": {**c.to_json(), "complexity": complexity(c).to_json()},
                "labels": list(c.labels),
                "preprocessing": {"size": c.image_size, "color": "rgb", "resize": "Pillow bilinear, antialiased"},
                "alignment": alignment.to_json(),
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
