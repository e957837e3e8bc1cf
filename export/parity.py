"""Parity of two evaluators: distance of their answers, the first tensor that differs.

Differences are measured as `engine.golden.distance` does: logits, as a share of their deviation between clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor, nn

from ..bundle import GraphEntry, StreamSpec
from ..bundle.files import sha256
from ..clips import window_order
from ..engine.golden import distance
from ..engine.sessions.ort import open_session
from ..model.networks.network import to_tensor
from .entries import tensor_specs
from .reference import NAME, Reference
from .trace import OPSET, to_bytes

PARTED = 0.01  # relative error from which a tensor is no longer the module's
Probabilities = npt.NDArray[np.float32]  # [N, C]


@dataclass(frozen=True)
class Parity:
    """How far one set of answers is from another.

    Attributes:
        share: largest difference of a logit over the standard deviation of logits between clips.
        agreement: share of clips with the same most probable class.
        clips: N.
        finite: no NaN and no infinity.
        evaluator: who gave the answers under test.
        against: who gave those that they are held against.
    """

    share: float
    agreement: float
    clips: int
    finite: bool
    evaluator: str
    against: str

    def within(self, share: float, agreement: float = 0.0) -> bool:
        """Whether the bounds hold."""
        return self.finite and self.share <= share and self.agreement >= agreement

    def to_json(self) -> dict[str, Any]:
        return {
            "share_of_clip_deviation": round(self.share, 9) if np.isfinite(self.share) else None,
            "agreement": self.agreement,
            "clips": self.clips,
            "finite": self.finite,
            "evaluator": self.evaluator,
            "against": self.against,
        }


def measure_parity(answers: Probabilities, against: Probabilities, evaluator: str, other: str) -> Parity:
    """Compare answers for the same clips."""
    share, agreement = distance(answers, against)
    return Parity(share, agreement, len(answers), bool(np.isfinite(answers).all()), evaluator, other)


# ------------------------------------------------------------------------------------------------------------- answers
def torch_answers(model: nn.Module, clips: npt.NDArray[np.uint8], batch: int = 8) -> Probabilities:
    """Probabilities of the PyTorch model for uint8 `[N, T, S, S, 3]`."""
    with torch.no_grad():
        parts = [torch.softmax(model(to_tensor(clips[i : i + batch])), -1) for i in range(0, len(clips), batch)]
    answers: Probabilities = torch.cat(parts).numpy()
    return answers


Runner = Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]]


def ort_runner(name: str, model: onnx.ModelProto) -> Runner:
    """Run a graph by the runtime's own session: parity is proven on what will be shipped."""
    data = to_bytes(model)
    inputs, outputs = tensor_specs(model)
    file = f"graphs/{name}.fp32.b1.onnx"
    session = open_session(
        data, GraphEntry(name, "fp32", 1, file, sha256(data), len(data), OPSET, inputs, outputs, {}), {}
    )

    def run(feed: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        for key, value in feed.items():
            np.copyto(session.input(key), value, casting="no")
        session.run()
        return {spec.name: session.output(spec.name).copy() for spec in outputs}

    return run


def answers_of_clip_graph(run: Runner, clips: npt.NDArray[np.uint8]) -> Probabilities:
    """Probabilities of the `clip` graph."""
    return np.concatenate([run({"clip": clip[None]})["probabilities"] for clip in clips]).astype(np.float32)


def pair_feed(
    frame: Runner, clip: npt.NDArray[np.uint8], ring_rows: int, order: npt.NDArray[np.int64]
) -> dict[str, npt.NDArray[Any]]:
    """Feed of `temporal`: runs `frame` on each frame and stores the tokens as a stream would.

    Args:
        frame: the frame graph.
        clip: uint8 `[T, S, S, 3]`.
        ring_rows: rows of the arena.
        order: `clips.window_order`.
    """
    tokens = np.concatenate([frame({"frame": image[None]})["tokens"][0] for image in clip])  # [T*h*w, d]
    ring = np.zeros((ring_rows, tokens.shape[1]), tokens.dtype)
    ring[: len(tokens)] = tokens
    return {"ring": ring, "order": order.astype(np.int32)}


def answers_of_graph_pair(
    frame: Runner, temporal: Runner, clips: npt.NDArray[np.uint8], ring_rows: int, order: npt.NDArray[np.int64]
) -> Probabilities:
    """Probabilities of `frame` + `temporal`."""
    answers = [temporal(pair_feed(frame, clip, ring_rows, order))["probabilities"] for clip in clips]
    return np.concatenate(answers).astype(np.float32)


class RoundingPair:
    """`frame` + `temporal` by the rounding reference, many clips at once."""

    def __init__(self, frame: onnx.ModelProto, temporal: onnx.ModelProto, stream: StreamSpec) -> None:
        self._frame, self._temporal = Reference(frame), Reference(temporal)
        self._order = window_order(stream.frames, stream.grid, stream.window).astype(np.int32)

    def answers(self, clips: npt.NDArray[np.uint8]) -> Probabilities:
        """Probabilities float32 `[N, C]` for clips uint8 `[N, T, S, S, 3]`."""
        parts = []
        for some in _few(clips):
            n, frames = some.shape[:2]
            tokens = self._frame.run_many({"frame": some.reshape(n * frames, 1, *some.shape[2:])})[0]["tokens"]
            # The first slots of a ring; the others are never read.
            ring = tokens.reshape(n, -1, tokens.shape[-1]).astype(np.float32)  # [n, T*h*w, d]
            parts.append(self._temporal.run_many({"ring": ring}, {"order": self._order})[0]["probabilities"][:, 0])
        return np.concatenate(parts).astype(np.float32)


class RoundingClip:
    """The `clip` graph by the rounding reference, many clips at once."""

    def __init__(self, clip: onnx.ModelProto) -> None:
        self._clip = Reference(clip)

    def answers(self, clips: npt.NDArray[np.uint8]) -> Probabilities:
        """Probabilities float32 `[N, C]` for clips uint8 `[N, T, S, S, 3]`."""
        parts = [self._clip.run_many({"clip": some[:, None]})[0]["probabilities"][:, 0] for some in _few(clips)]
        return np.concatenate(parts).astype(np.float32)


def rounding_parity(
    models: Mapping[str, onnx.ModelProto],
    clips: npt.NDArray[np.uint8],
    truth: Probabilities,
    stream: StreamSpec,
    done: Callable[[int], None],
) -> tuple[Parity, Parity]:
    """Parity of the clip graph and of the pair with PyTorch, both by the rounding reference.

    Args:
        models: by graph.
        clips: uint8 `[N, T, S, S, 3]`.
        truth: PyTorch's probabilities for them.
        stream: sizes of the ring.
        done: called with 0, 1 and 2, the comparisons that are done.
    """
    done(0)
    clip = RoundingClip(models["clip"]).answers(clips)
    done(1)
    pair = RoundingPair(models["frame"], models["temporal"], stream).answers(clips)
    done(2)
    return measure_parity(clip, truth, NAME, "PyTorch float32"), measure_parity(pair, truth, NAME, "PyTorch float32")


def _few(clips: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    """Batches that keep memory small: 32 clips of `tiny`, 6 of `base`."""
    together = max(1, min(32, (1 << 22) // clips[0].nbytes))
    for start in range(0, len(clips), together):
        yield clips[start : start + together]


# ---------------------------------------------------------------------------------------------------------------- blame
def worst_tensor(model: onnx.ModelProto, module: nn.Module, feed: Mapping[str, npt.NDArray[Any]]) -> str:
    """Name the first module whose output the graph, in any precision, leaves, and the worst."""
    wanted: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()

    def hook(name: str) -> Callable[..., None]:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            calls[name] += 1
            wanted[name] = output.detach().clone()

        return keep

    leaves = [(name, part) for name, part in module.named_modules() if not any(part.children())]
    handles = [part.register_forward_hook(hook(name)) for name, part in leaves]
    try:
        with torch.no_grad():
            module(*(torch.as_tensor(value) for value in feed.values()))
    finally:
        for handle in handles:
            handle.remove()
    for name in [name for name, count in calls.items() if count > 1]:  # one ReLU serves a whole block
        del wanted[name]
    last_of_scope = {node.name.split("/")[0]: node.output[0] for node in model.graph.node}
    scope_of = {tensor: scope for scope, tensor in last_of_scope.items() if scope in wanted}
    errors: list[tuple[str, float]] = []

    def observe(name: str, value: Tensor) -> None:
        scope = scope_of.get(name)
        if scope is not None and value.numel() == wanted[scope].numel():
            truth = wanted[scope].reshape(value.shape)
            size = float(truth.abs().max()) or 1.0
            error = float((value.float() - truth).abs().max()) / size
            errors.append((scope, error if np.isfinite(error) else float("inf")))

    Reference(model).run(feed, observe)
    if not errors:
        return "no module output could be compared"
    worst = max(errors, key=lambda item: item[1])
    first = next((item for item in errors if item[1] > PARTED), worst)
    return f"first to part: {first[0]} (relative error {first[1]:.2g}); worst: {worst[0]} ({worst[1]:.2g})"
