"""Graphs of a stream for several faces, made from the finished ones for a single face.

Precision and judgement stay those of the single graph: nothing is traced, converted or scanned again
(`batch_axis.py`). That a batch answers alike is still proven, on real frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ..bundle import BundleWriter, StreamSpec
from ..clips import window_order
from ..engine.golden import centred_logits
from ..errors import VerificationError
from .batch_axis import with_batch_axis
from .entries import add_model
from .lint import require_clean
from .parity import Runner, ort_runner

BATCHES = (2, 4, 8)
BATCHED = ("frame", "temporal")
# Of the deviation of tokens or logits: another batch may add, and in 16 bits round, in another order.
TOLERANCES = {"fp32": 1e-4, "fp16": 5e-3}

_Array = npt.NDArray[Any]


def write_batches(
    writer: BundleWriter,
    singles: Mapping[str, Mapping[str, onnx.ModelProto]],
    batches: Sequence[int],
    clips: npt.NDArray[np.uint8],
    stream: StreamSpec,
    runner: Callable[[str, onnx.ModelProto], Runner] = ort_runner,
) -> list[dict[str, Any]]:
    """Adds graphs for several faces to a bundle.

    Args:
        writer: of the bundle.
        singles: `BATCHED` by name, by precision.
        batches: sizes, each once.
        clips: uint8 `[N, T, S, S, 3]`, whose frames prove that the answers are those of the single graphs.
        stream: of the bundle.
        runner: runs a graph by the runtime's own session.

    Returns:
        Entries for the index.

    Raises:
        VerificationError: a batch breaks a lint rule, or does not answer as the single graph does.
    """
    entries: list[dict[str, Any]] = []
    frames = clips.reshape(-1, *clips.shape[2:])
    for precision, by_name in singles.items() if batches else ():
        one = {name: runner(name, by_name[name]) for name in BATCHED}
        ring = _ring_of(one["frame"], frames, stream)
        for batch in batches:
            given = frames[np.arange(batch) * max(1, len(frames) // batch) % len(frames)]
            orders = _orders(stream, batch)
            for name in BATCHED:
                shown = f"{name} graph in {precision}, batch {batch},"
                model = with_batch_axis(by_name[name], batch)
                require_clean(model, f"The {shown}")
                several = runner(name, model)
                if name == "frame":
                    wanted = np.concatenate([one[name]({"frame": frame[None]})["tokens"] for frame in given])
                    found = several({"frame": given})["tokens"]
                else:
                    alone = [one[name]({"ring": ring, "order": order})["probabilities"] for order in orders]
                    wanted = centred_logits(np.concatenate(alone))
                    found = centred_logits(several({"ring": ring, "order": orders})["probabilities"])
                _require_equal(wanted, found, TOLERANCES[precision], shown)
                entries.append(add_model(writer, model, name, precision, batch))
    return entries


def _ring_of(frame: Runner, frames: npt.NDArray[np.uint8], stream: StreamSpec) -> _Array:
    """A ring that holds frames of two clips, or as many as it has slots for."""
    given = [frames[slot % len(frames)][None] for slot in range(_filled(stream))]
    tokens = np.concatenate([frame({"frame": one})["tokens"][0] for one in given])  # [filled * n, c]
    ring = np.zeros((stream.rows, tokens.shape[1]), tokens.dtype)
    ring[: len(tokens)] = tokens
    return ring


def _orders(stream: StreamSpec, batch: int) -> npt.NDArray[np.int32]:
    """Places of the ring for B faces, each beginning at another frame: `[B, T*n]`."""
    natural, rows = window_order(stream.frames, stream.grid, stream.window), stream.tokens_per_frame
    slots = _filled(stream)
    first = np.arange(batch)[:, None] * max(1, slots // batch)  # [B, 1]
    found: npt.NDArray[np.int32] = ((first + natural // rows) % slots * rows + natural % rows).astype(np.int32)
    return found


def _filled(stream: StreamSpec) -> int:
    return min(2 * stream.frames, stream.slots * stream.faces)


def _require_equal(wanted: _Array, found: _Array, tolerance: float, shown: str) -> None:
    wanted, found = wanted.astype(np.float32), found.astype(np.float32)  # rows may be FP16
    share = float(np.abs(found - wanted).max() / (wanted.std() or 1.0))
    if not share <= tolerance:
        raise VerificationError(
            f"The {shown} differs from the single one by {share:.2g} of the deviation.",
            cause="a node that does not treat the faces of a batch alike",
        )
