"""The `frame` graph for several faces at once: same nodes and weights, another leading size.

A batch is made from the finished graph, whatever its precision, so precision and judgement stay those of the single
graph: nothing is traced, converted or scanned again. That it answers alike is still proven, on real frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from ..bundle import BundleWriter
from ..errors import VerificationError
from .entries import add_model
from .lint import require_clean
from .parity import Runner, ort_runner

BATCHES = (2, 4, 8)
TOLERANCE = 1e-4  # of a token's standard deviation; another batch may sum a convolution in another order


def batched(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The same frame graph for `batch` frames.

    Args:
        model: `[1, S, S, 3]` -> `[1, h*w, d]`.
        batch: B.

    Returns:
        A new model: `[B, S, S, 3]` -> `[B, h*w, d]`.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del graph.value_info[:]  # sizes of what lies between, all for one frame
    stored = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape":
            shape = numpy_helper.to_array(stored[node.input[1]]).copy()
            shape[0] = batch
            stored[node.input[1]].CopyFrom(numpy_helper.from_array(shape, node.input[1]))
    return made


def write_frame_batches(
    writer: BundleWriter,
    singles: Mapping[str, onnx.ModelProto],
    batches: Sequence[int],
    clips: npt.NDArray[np.uint8],
    runner: Callable[[str, onnx.ModelProto], Runner] = ort_runner,
) -> list[dict[str, Any]]:
    """Adds frame graphs for several faces to a bundle.

    Args:
        writer: of the bundle.
        singles: the frame graph by precision.
        batches: sizes, each once.
        clips: uint8 `[N, T, S, S, 3]`, whose frames prove that the answers are those of the single graph.
        runner: runs a graph by the runtime's own session.

    Returns:
        Entries for the index.

    Raises:
        VerificationError: a batch breaks a lint rule, or does not answer as the single graph does.
    """
    entries = []
    frames = clips.reshape(-1, *clips.shape[2:])
    for precision, single in singles.items():
        for batch in batches:
            model = batched(single, batch)
            require_clean(model, f"The graph frame in {precision} for batch {batch}")
            given = frames[np.arange(batch) * max(1, len(frames) // batch) % len(frames)]
            _require_equal(runner("frame", single), runner("frame", model), given, f"{precision}, batch {batch}")
            entries.append(add_model(writer, model, "frame", precision, batch))
    return entries


def _require_equal(single: Runner, together: Runner, frames: npt.NDArray[np.uint8], shown: str) -> None:
    wanted = np.concatenate([single({"frame": frame[None]})["tokens"] for frame in frames])
    found = together({"frame": frames})["tokens"]
    share = float(np.abs(found - wanted).max() / (wanted.std() or 1.0))
    if not share <= TOLERANCE:
        raise VerificationError(
            f"The frame graph in {shown} differs from the single one by {share:.2g} of a token's deviation.",
            cause="a node that does not treat the frames of a batch alike",
        )
