"""SmoothQuant: outlier channels moved from activations into weights.

Behind a LayerNormalization some channels can be a hundred times as large as the rest. One scale must serve them all,
and the rest is rounded away. The norm's gain and bias are divided by a factor for each channel, the rows of the weights
that read it are multiplied by the same: the function stays what it was, and both sides fit into INT8.

Source: Xiao et al., "SmoothQuant", ICML 2023 (arXiv 2211.10438), s = max|x|^a / max|w|^(1-a) with a = 1/2.

Only norms that weights alone read are treated: before the local attention and before the feed-forward network. The norm
before the global attention is read by the pooling too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..bundle.onnx_graph import OnnxNode, infer_onnx

if TYPE_CHECKING:
    import onnx

OUTLIER = 8.0  # times the median channel
STRENGTH = 0.5  # SmoothQuant's alpha


def norms(model: onnx.ModelProto) -> list[tuple[OnnxNode, tuple[str, ...]]]:
    """The norms of a graph that can be smoothed, in graph order.

    Returns:
        Each LayerNormalization that only products with weights read (its second and third input are gain and bias), and
        the initializers `[d, n]` of the products.
    """
    graph = infer_onnx(model)
    found = []
    for node in graph.nodes:
        reading = graph.readers.get(node.outputs[0], [])
        if node.op != "LayerNormalization" or not reading:
            continue
        if all(r.op == "MatMul" and r.inputs[1] in graph.weights for r in reading):
            found.append((node, tuple(r.inputs[1] for r in reading)))
    return found


def factors(
    model: onnx.ModelProto, channels: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, npt.NDArray[np.float32]]:
    """The factor of each channel, for the norms that have outliers.

    Args:
        model: the FP32 clip graph.
        channels: by output tensor of `norms(model)`, the largest absolute value of each channel on the calibration
            clips, float32 `[d]`.

    Returns:
        By norm: float32 `[d]`, the activation is divided by it. Norms without outliers are left out.
    """
    values = initializers(model)
    found = {}
    for norm, weights in norms(model):
        activation = np.maximum(channels[norm.outputs[0]], 1e-12)
        if activation.max() <= OUTLIER * np.median(activation):
            continue
        weight = np.max([np.abs(values[name]).max(1) for name in weights], axis=0)
        factor = activation**STRENGTH / np.maximum(weight, 1e-12) ** (1.0 - STRENGTH)
        found[norm.name] = np.clip(factor / np.median(factor), 1e-4, 1e4).astype(np.float32)
    return found


def smooth(model: onnx.ModelProto, found: Mapping[str, npt.NDArray[np.float32]]) -> onnx.ModelProto:
    """The same function with scales moved.

    Args:
        model: any of the three graphs, FP32 or FP16; norms that it does not have are passed over.
        found: of `factors`.

    Returns:
        A new model.
    """
    values, changed = initializers(model), {}
    for norm, weights in norms(model):
        if norm.name in found:
            factor = found[norm.name].astype(np.float64)
            for name in norm.inputs[1:]:
                changed[name] = values[name] / factor
            for name in weights:
                changed[name] = values[name] * factor[:, None]
    return with_weights(model, changed)


def with_weights(model: onnx.ModelProto, changed: Mapping[str, npt.NDArray[Any]]) -> onnx.ModelProto:
    """A copy of a graph with other values in some initializers, each in the type that it had."""
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for item in copied.graph.initializer:
        if item.name in changed:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(item.data_type)
            value = np.ascontiguousarray(changed[item.name]).astype(dtype)
            item.CopyFrom(onnx.numpy_helper.from_array(value, item.name))
    return copied


def initializers(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    """The constants of a graph by name."""
    from onnx import numpy_helper

    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
