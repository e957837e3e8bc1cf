"""Trace a PyTorch module to one clean ONNX file.

`torch.onnx.export` (dynamo) does the tracing; this file gives the result names that people can read, removes what says
where it was made, and keeps it small: no external data, no metadata, no symbolic dimension. Two checkouts in two
places give the same bytes.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import Tensor, nn

from ..errors import VerificationError

OPSET = 20  # the newest that TensorRT 10.3 is taken to parse; native LayerNormalization and Gelu
MAX_GRAPH_BYTES = 1 << 30


def trace(module: nn.Module, inputs: dict[str, Tensor], output: str) -> onnx.ModelProto:
    """Traces a module with static shapes.

    Args:
        module: in evaluation mode, one output.
        inputs: example tensors by graph input name, in the order of `forward`.
        output: the graph output's name.

    Returns:
        An ONNX model, opset 20, readable names, no metadata.

    Raises:
        VerificationError: the exporter left something that is not static.
    """
    with quiet(), torch.inference_mode(False), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            None,
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            optimize=True,
            input_names=list(inputs),
            output_names=[output],
            verbose=False,
        )
    if program is None:  # documented for the other exporter only, but typed so
        raise VerificationError("torch.onnx.export returned nothing.")
    model: onnx.ModelProto = program.model_proto
    _plain_gather(model)
    _readable_names(model)
    return strip(model)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence tools that warn of their own deprecations and print what they decide."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove what does not compute: doc strings, source paths, annotations, types of weights."""
    model.doc_string = ""
    model.producer_name, model.producer_version, model.domain = "logoformer", "", ""
    del model.metadata_props[:]
    graph = model.graph
    graph.name, graph.doc_string = "logoformer", ""
    del graph.metadata_props[:]
    del graph.quantization_annotation[:]
    made = {name for node in graph.node for name in node.output}
    # A weight among them is taken for an activation by onnxruntime.quantization: onnx/onnx#5374.
    for value in [value for value in graph.value_info if value.name not in made]:
        graph.value_info.remove(value)
    for item in [*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]:
        item.doc_string = ""
        del item.metadata_props[:]
    for node in graph.node:
        for attribute in node.attribute:
            attribute.doc_string = ""
    return model


def to_bytes(model: onnx.ModelProto) -> bytes:
    """Serialises with a fixed field order, so that the same graph has the same hash.

    Raises:
        VerificationError: the graph is larger than a bundle may hold.
    """
    data: bytes = model.SerializeToString(deterministic=True)
    if len(data) > MAX_GRAPH_BYTES:
        raise VerificationError(f"The graph has {len(data)} bytes; at most {MAX_GRAPH_BYTES} are supported.")
    return data


def _plain_gather(model: onnx.ModelProto) -> None:
    """Feed int32 indices straight to Gather, without the exporter's reshape and cast."""
    graph = model.graph
    producer = {name: node for node in graph.node for name in node.output}
    inputs = {value.name for value in graph.input}
    for node in graph.node:
        if node.op_type != "Gather":
            continue
        name, passed = node.input[1], []
        while name in producer and producer[name].op_type in ("Cast", "Reshape"):
            passed.append(producer[name])
            name = passed[-1].input[0]
        if name in inputs:
            node.input[1] = name
            for dead in passed:
                graph.node.remove(dead)
    drop_unused_initializers(graph)


def drop_unused_initializers(graph: onnx.GraphProto) -> None:
    """Remove stored tensors that no node reads."""
    used = {name for node in graph.node for name in node.input}
    for item in [item for item in graph.initializer if item.name not in used]:
        graph.initializer.remove(item)


def _scope(node: onnx.NodeProto) -> str:
    """The module path that the exporter noted, such as `temporal.blocks.0.ffn.fc1`."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = [scope for scope in ast.literal_eval(entry.value) if scope]
            return str(scopes[-2]) if len(scopes) > 1 else ""
    return ""


def _readable_names(model: onnx.ModelProto) -> None:
    """Name nodes `module.path/Operator`.

    Tensors are named after the node that makes them, weights after the node they serve.
    """
    graph = model.graph
    seen: dict[str, int] = {}

    def unique(name: str) -> str:
        seen[name] = seen.get(name, 0) + 1
        return name if seen[name] == 1 else f"{name}.{seen[name]}"

    renamed: dict[str, str] = {}
    kept = {value.name for value in [*graph.input, *graph.output]}
    weights = {item.name: item for item in graph.initializer}
    scope = ""
    for node in graph.node:
        scope = _scope(node) or scope  # nodes that the optimiser made carry none: they stay with their neighbours
        node.name = unique(f"{scope}/{node.op_type}" if scope else node.op_type)
        for name in node.output:
            if name not in kept:
                renamed[name] = node.name
        for place, name in enumerate(node.input):
            if name in weights and name not in renamed:
                role = "weight" if node.op_type in ("MatMul", "Conv", "Gemm") and place == 1 else "constant"
                own = "." in name and not name.startswith("val_")
                renamed[name] = unique(name if own else f"{scope or node.name}.{role}")
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for item in [*graph.initializer, *graph.value_info]:
        item.name = renamed.get(item.name, item.name)
