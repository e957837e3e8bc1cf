"""Acceptance of FP32 and FP16: parity with PyTorch, the range scan, the probe for overflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from torch import nn

from ..bundle import StreamSpec
from ..clips import window_order
from ..engine.golden import allowed_share
from ..engine.sessions.ort import runtime_name
from ..errors import VerificationError
from ..model.data.clips import Progress
from .lint import require_clean
from .parity import (
    Probabilities,
    answers_of_clip_graph,
    answers_of_graph_pair,
    measure_parity,
    ort_runner,
    pair_feed,
    rounding_parity,
    worst_tensor,
)
from .precision import MARGIN, SOFTMAX_LIMIT, Protected, narrow_rows, not_finite, protect, scan, to_fp16
from .reference import NAME

FP16_SHARE = 0.05  # of the between-clip deviation of a logit
SCAN_CLIPS = 32
Models = Mapping[str, onnx.ModelProto]  # by graph


@dataclass(frozen=True)
class PrecisionJudge:
    """Judge of one model's graphs, precision by precision.

    Attributes:
        modules: by graph, what it was traced from.
        clips: uint8 `[N, T, S, S, 3]`, RGB.
        truth: PyTorch's probabilities for them.
        stream: sizes of the ring.
        progress: called with (stage, done, total).
    """

    modules: Mapping[str, nn.Module]
    clips: npt.NDArray[np.uint8]
    truth: Probabilities
    stream: StreamSpec
    progress: Progress

    def fp32(self, models: Models) -> dict[str, Any]:
        """The verdict on FP32, for the manifest.

        Raises:
            VerificationError: it does not answer as PyTorch does.
        """
        runners = {name: ort_runner(name, model) for name, model in models.items()}
        who = runtime_name()
        self.progress("parity fp32", 0, 2)
        answers = answers_of_clip_graph(runners["clip"], self.clips)
        clip = measure_parity(answers, self.truth, who, "PyTorch float32")
        self.progress("parity fp32", 1, 2)
        given = answers_of_graph_pair(runners["frame"], runners["temporal"], self.clips, self.stream.rows, self._order)
        pair = measure_parity(given, answers, who, f"the clip graph on {who}")
        self.progress("parity fp32", 2, 2)
        allowed = allowed_share("fp32", self.truth)
        for result, blamed in ((clip, "clip"), (pair, "frame + temporal")):
            if not result.within(allowed):
                raise VerificationError(
                    f"FP32 of {blamed} differs from {result.against} by {result.share:.3%} of the deviation "
                    f"between clips; at most {allowed:.1%} is allowed. Nothing was written.",
                    cause="the traced graph does not compute what the module computes",
                    log=self._worst_tensors(models),
                )
        return {
            "verdict": "accept",
            "reason": f"differs from PyTorch by {clip.share:.4%} of the deviation between clips",
            "parity": {"clip": clip.to_json(), "pair": pair.to_json()},
            "kept_fp32": {},
        }

    def convert_fp16(self, models: Models) -> tuple[dict[str, onnx.ModelProto], dict[str, list[Protected]]]:
        """Convert FP32 graphs, each node's precision chosen on the clip graph, which holds them all.

        Returns:
            By graph, the FP16 model and the nodes that stay FP32.

        Raises:
            VerificationError: a graph breaks a lint rule.
        """
        self.progress("range scan", 0, 1)
        keep = protect(models["clip"], scan(models["clip"], self._scanned))
        self.progress("range scan", 1, 1)
        feeds = {
            "clip": {"clip": self.clips[:1]},
            "frame": {"frame": self.clips[0, :1]},
            "temporal": pair_feed(ort_runner("frame", models["frame"]), self.clips[0], self.stream.rows, self._order),
        }
        converted, protected = {}, {}
        for index, (name, model) in enumerate(models.items()):
            self.progress("convert fp16", index, len(models))
            names = {node.name for node in model.graph.node}
            protected[name] = [item for item in keep if item.node in names]
            converted[name] = to_fp16(model, feeds[name], protected[name])
        narrow_rows(converted["frame"], converted["temporal"])
        for name, model in converted.items():
            require_clean(model, f"The graph {name} in fp16")
        self.progress("convert fp16", len(models), len(models))
        return converted, protected

    def fp16(self, models: Models, protected: Mapping[str, list[Protected]]) -> dict[str, Any]:
        """The verdict on what `convert_fp16` gives, for the manifest."""
        clip, pair = rounding_parity(
            models, self.clips, self.truth, self.stream, lambda done: self.progress("parity fp16", done, 3)
        )
        overflowing = not_finite(models["clip"], self._scanned)
        self.progress("parity fp16", 3, 3)
        good = clip.within(FP16_SHARE, 0.99) and pair.within(FP16_SHARE, 0.99) and not overflowing
        worst, probed = max(clip.share, pair.share), len(self._scanned)
        verdict: dict[str, Any] = {
            "verdict": "accept" if good else "refuse: use fp32",
            "reason": f"differs from PyTorch by {worst:.3%} of the deviation between clips; "
            f"{FP16_SHARE:.0%} is allowed",
            "parity": {"clip": clip.to_json(), "pair": pair.to_json()},
            "kept_fp32": {
                name: [{"node": item.node, "reason": item.reason} for item in items]
                for name, items in protected.items()
            },
            "scan": {"clips": probed, "margin_of_65504": MARGIN, "softmax_limit": SOFTMAX_LIMIT},
            "probe": {"clips": probed, "not_finite": overflowing[:8], "evaluator": NAME},
        }
        if not good:
            verdict["worst_tensors"] = self._worst_tensors(models)
        return verdict

    @property
    def _order(self) -> npt.NDArray[np.int64]:
        return window_order(self.stream.frames, self.stream.grid, self.stream.window)

    @property
    def _scanned(self) -> list[dict[str, npt.NDArray[np.uint8]]]:
        return [{"clip": clip[None]} for clip in self.clips[:SCAN_CLIPS]]

    def _worst_tensors(self, models: Models) -> list[str]:
        """By graph, the first tensor that leaves the traced module, and the worst."""
        random = np.random.default_rng(0)  # `temporal` is looked at alone, whatever `frame` would have given
        ring = random.standard_normal((self.stream.rows, self.stream.embed_dim), np.float32)
        feeds: dict[str, dict[str, npt.NDArray[Any]]] = {
            "clip": {"clip": self.clips[:1]},
            "frame": {"frame": self.clips[0, :1]},
            "temporal": {"ring": ring, "order": self._order.astype(np.int32)},
        }
        return [f"{name}: {worst_tensor(models[name], module, feeds[name])}" for name, module in self.modules.items()]
