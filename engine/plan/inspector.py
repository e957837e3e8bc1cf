"""Parser of the engine inspector's JSON, for devices, whose TensorRT prints no plan.

The shape is UNVERIFIED: no device was at hand. It is taken from TensorRT's own documentation and from JSON that users
posted (NVIDIA/TensorRT issues 4020 and 2418, versions 8.5 to 10): a list `Layers` of objects with `Name`, `LayerType`,
`Inputs` and `Outputs` (each `Name`, `Dimensions`, `Format/Datatype`), often `Weights` (`Type`, `Count`), `TacticName`,
`StreamId` and `Metadata`. So it is read tolerantly, and what is not found is never counted as a broken promise.
"""

from __future__ import annotations

import re
from typing import Any

from ...bundle.files import parse_json
from ...errors import MachineError
from .kernels import TYPES, Kernel, PlanTensor

MAX_BYTES = 64 << 20
_OUR_NAMES = {word.lower(): name for word, (name, _) in TYPES.items()} | {name: name for name, _ in TYPES.values()}
_WORD = re.compile(r"[A-Za-z]+\d*")
_ONNX_LAYER = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# The inspector's classes of layers that multiply, as the plan of TensorRT-RTX calls them.
_KINDS = {
    "CaskConvolution": "correlation",
    "CaskGemmConvolution": "correlation",
    "Convolution": "correlation",
    "FusedConvActConvolution": "correlation",
    "CaskGemmMatrixMultiply": "gemm",
    "MatrixMultiply": "gemm",
    "CaskPooling": "maxpool",
}


def engine_information(module: Any, logger: Any, engine: bytes) -> str:
    """The inspector's JSON of an engine that was built with verbosity DETAILED.

    Raises:
        MachineError: the engine does not load here.
    """
    loaded = module.Runtime(logger).deserialize_cuda_engine(engine)
    if loaded is None:
        raise MachineError(
            "TensorRT does not load the engine that it just built.", cause="no GPU or no driver", next="nvidia-smi"
        )
    return str(loaded.create_engine_inspector().get_engine_information(module.LayerInformationFormat.JSON))


def parse_inspector(text: str) -> tuple[tuple[Kernel, ...], tuple[str, ...]]:
    """Find the kernels in the JSON of `engine_information`.

    Returns:
        The kernels in order, and the layers that could not be read (a bare name: the verbosity was not DETAILED).

    Raises:
        RefusedError: it is no JSON.
    """
    data = parse_json(text.encode(), "the engine inspector's answer", max_bytes=MAX_BYTES)
    layers = data.get("Layers", []) if isinstance(data, dict) else []
    kernels, unread = [], []
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict) and layer.get("Name") and layer.get("LayerType"):
            kernels.append(_kernel(layer))
        else:
            unread.append(str(layer)[:200])
    return tuple(kernels), tuple(unread)


def _kernel(layer: dict[str, Any]) -> Kernel:
    kind = str(layer["LayerType"])
    stream = layer.get("StreamId", 0)
    return Kernel(
        name=str(layer["Name"]),
        kind=_KINDS.get(kind, kind),
        inputs=_tensors(layer.get("Inputs")),
        constants=_weights(layer.get("Weights")),
        outputs=_tensors(layer.get("Outputs")),
        tactic=str(layer.get("TacticName", "")),
        stream=stream if isinstance(stream, int) else 0,
        onnx_layers=tuple(_ONNX_LAYER.findall(str(layer.get("Metadata", "")))),
    )


def _tensors(items: Any) -> tuple[PlanTensor, ...]:
    found = []
    for item in items if isinstance(items, list) else []:
        if isinstance(item, dict):
            said = str(item.get("Datatype", item.get("Format/Datatype", "")))
            shape = item.get("Dimensions", [])
            sizes = tuple(n for n in shape if isinstance(n, int) and n >= 0) if isinstance(shape, list) else ()
            found.append(PlanTensor(str(item.get("Name", "")), sizes, (1,) * len(sizes), _type_in(said), said))
    return tuple(found)


def _weights(item: Any) -> tuple[PlanTensor, ...]:
    if not isinstance(item, dict) or not isinstance(item.get("Count"), int):
        return ()
    said = str(item.get("Type", ""))
    return (PlanTensor("weights", (max(item["Count"], 0),), (1,), _type_in(said), said),)


def _type_in(text: str) -> str:
    """The type that a description names: 'Channel major FP16 format where ...' -> 'fp16'."""
    found = (_OUR_NAMES.get(word.lower()) for word in _WORD.findall(text))
    return next((name for name in found if name), text)
