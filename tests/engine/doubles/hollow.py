"""A runtime of `base`'s sizes on a double, whose graphs hardly compute: for thousands of frames in seconds.

The graphs say what `trt.simple` says: the first pixel of a frame is its tokens, an answer names the frames at the last
and at the first place of its clip.
"""

from __future__ import annotations

import functools
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from logoformer.bundle import GraphEntry, StreamSpec, TensorSpec
from logoformer.clips import Sampling
from logoformer.engine import Runtime
from logoformer.engine.cuda.open import open_cuda
from logoformer.engine.sessions.contract import Backend
from logoformer.engine.sessions.trt import TrtSession
from onnx import TensorProto, helper, numpy_helper

from .machine import Machine
from .null import CELLS, DIM, FACES, FRAMES, SIZE, SLOTS

SPEC = StreamSpec(slots=SLOTS, faces=FACES, frames=FRAMES, grid=4, window=(4, 2, 2), embed_dim=DIM)
SAMPLING = Sampling(8, 2, 2.8, 25.0)
LABELS = tuple("abcdefg")


def sides(dtype: str) -> dict[str, tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]]:
    """Inputs and outputs by graph; `dtype` of tokens and ring."""
    return {
        "frame": (
            (TensorSpec("frame", "uint8", (1, SIZE, SIZE, 3)),),
            (TensorSpec("tokens", dtype, (1, CELLS, DIM)),),
        ),
        "temporal": (
            (TensorSpec("ring", dtype, (SPEC.rows, DIM)), TensorSpec("order", "int32", (FRAMES * CELLS,))),
            (TensorSpec("probabilities", "float32", (1, len(LABELS))),),
        ),
    }


@functools.cache
def graph_of(graph: str, dtype: str) -> bytes:
    """The ONNX bytes of one graph."""
    kinds = {"uint8": TensorProto.UINT8, "int32": TensorProto.INT32, "float32": TensorProto.FLOAT}
    kinds["float16"] = TensorProto.FLOAT16
    weights: list[Any] = []
    nodes: list[Any] = []

    def constant(name: str, values: Any, kind: type = np.int64) -> str:
        weights.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def node(op: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"v{len(nodes)}"], **attributes))
        return f"v{len(nodes) - 1}"

    if graph == "frame":
        flat = node("Reshape", node("Cast", "frame", to=TensorProto.FLOAT), constant("flat", [1, SIZE * SIZE, 3]))
        pixel = node("Slice", flat, constant("from", [0]), constant("to", [1]), constant("axis", [1]))  # [1, 1, 3]
        wide = node("MatMul", pixel, constant("wide", np.eye(3, DIM), np.float32))
        node("Expand", node("Cast", wide, to=kinds[dtype]), constant("cells", [1, CELLS, DIM]))
    else:
        places = node("Gather", "order", constant("ends", [-1, 0]))
        rows = node("Cast", node("Gather", "ring", places), to=TensorProto.FLOAT)  # [2, d]
        named = node("MatMul", rows, constant("narrow", np.eye(DIM, 3), np.float32))
        joined = node("Reshape", named, constant("joined", [1, 6]))
        node("MatMul", joined, constant("classes", np.eye(6, len(LABELS)), np.float32))
    inputs, outputs = sides(dtype)[graph]
    nodes[-1].output[0] = outputs[0].name
    values = [
        [helper.make_tensor_value_info(t.name, kinds[t.dtype], t.shape) for t in side] for side in (inputs, outputs)
    ]
    model = helper.make_model(
        helper.make_graph(nodes, graph, *values, weights), opset_imports=[helper.make_opsetid("", 20)], ir_version=9
    )
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def open_runtime(here: Machine, dtype: str = "float32") -> Runtime:
    """A runtime of `frame` and `temporal` on a machine's double."""
    cuda = open_cuda(here.layer)

    def entry(graph: str, precision: str, batch: int = 1) -> GraphEntry:
        return GraphEntry(graph, precision, batch, graph, "", 0, 20, *sides(dtype)[graph], {})

    def open_session(one: GraphEntry) -> TrtSession:
        return TrtSession(here.trt, cuda, here.engine_of(graph_of(one.graph, dtype)), one)

    bundle: Any = types.SimpleNamespace(
        stream=SPEC, sampling=SAMPLING, labels=LABELS, image_size=SIZE, frames=FRAMES, graph=entry,
        path=Path("hollow.bundle"),
    )  # fmt: skip
    return Runtime(bundle, Backend(f"hollow {here.trt}", "fp16", open_session))
