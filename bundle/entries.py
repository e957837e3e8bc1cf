"""Entries of a bundle's index: tensors, graphs and the stream's sizes, and the golden clips."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..clips import MAX_LABEL, can_be_shown
from ..errors import one_of
from .sealed import count, stored, typed

FORMAT = "logoformer-bundle"
SCHEMA_VERSION = 1
GRAPHS = ("clip", "frame", "temporal")
PRECISIONS = ("fp32", "fp16", "int8")
MIXED = "mixed"  # by name as if it were one more: of each graph the precision that the verdict on INT8 chose
DTYPES = ("uint8", "int32", "int64", "float16", "float32")
FILE = re.compile(r"(graphs|golden|calibration)/[A-Za-z0-9][A-Za-z0-9._+-]{0,120}")


@dataclass(frozen=True)
class TensorSpec:
    """One graph input or output.

    Attributes:
        name: as in the graph.
        dtype: numpy's name, such as 'uint8'.
        shape: static.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class GraphEntry:
    """One ONNX file of the bundle.

    Attributes:
        graph: 'clip', 'frame' or 'temporal'.
        precision: 'fp32', 'fp16' or 'int8'.
        batch: leading size of its input.
        file: path below the bundle.
        sha256: of the file.
        size: bytes.
        opset: of the default ONNX domain.
        inputs, outputs: in graph order.
        macs: multiply-accumulates by the precision of the operands ('fp32', 'fp16', 'int8').
    """

    graph: str
    precision: str
    batch: int
    file: str
    sha256: str
    size: int
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    macs: Mapping[str, int]


@dataclass(frozen=True)
class StreamSpec:
    """What the streaming pair needs to know.

    Attributes:
        slots: ring slots of one face.
        faces: faces that share the arena; the temporal graph's ring has slots * faces * grid**2 rows.
        frames: T.
        grid: side of one frame's token map.
        window: (f, h, w).
        embed_dim: d.
    """

    slots: int
    faces: int
    frames: int
    grid: int
    window: tuple[int, int, int]
    embed_dim: int

    @property
    def tokens_per_frame(self) -> int:
        """Rows that one frame fills: h * w."""
        return self.grid**2

    @property
    def rows(self) -> int:
        """Rows of the arena."""
        return self.slots * self.faces * self.tokens_per_frame


@dataclass(frozen=True)
class Golden:
    """Clips with the answers that the PyTorch model gave.

    Attributes:
        clips: uint8 `[G, T, S, S, 3]`, RGB.
        probabilities: float32 `[G, C]`.
    """

    clips: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.float32]


def named(value: Any, names: tuple[str, ...]) -> str:
    """One of some names.

    Raises:
        ValueError: anything else.
    """
    if value not in names:
        raise ValueError(f"{value!r:.80} is none of {one_of(names)}")
    return str(value)


def _tensors(items: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(typed(i["name"], str), named(i["dtype"], DTYPES), tuple(count(n) for n in i["shape"])) for i in items
    )


def graph_entry(entry: Mapping[str, Any]) -> GraphEntry:
    """Read one entry of `graphs` in the index.

    Raises:
        KeyError, TypeError, ValueError: a field is missing, of another type or out of range.
    """
    file, digest, size = stored(entry, FILE)
    return GraphEntry(
        graph=named(entry["graph"], GRAPHS),
        precision=named(entry["precision"], PRECISIONS),
        batch=count(entry["batch"]),
        file=file,
        sha256=digest,
        size=size,
        opset=count(entry["opset"]),
        inputs=_tensors(entry["inputs"]),
        outputs=_tensors(entry["outputs"]),
        macs={typed(name, str): typed(number, int) for name, number in entry["macs"].items()},
    )


def precision_entry(entry: Any) -> dict[str, Any]:
    """Read one entry of `precisions` in the index.

    Its fields are of the types that readers take for granted.

    Raises:
        TypeError: a field is of another type.
    """
    found = typed(entry, dict)
    for field, kind in (("verdict", str), ("reason", str), ("excluded", list), ("accuracy", dict)):
        typed(found.get(field, kind()), kind)
    for group in found.get("excluded", ()):
        typed(group, str)
    return found


def shown_labels(labels: Any) -> tuple[str, ...]:
    """The class names of an index: at least two, all different, each a line of text.

    Raises:
        TypeError, ValueError: others.
    """
    found = tuple(typed(label, str) for label in typed(labels, list))
    if len(found) < 2 or len(set(found)) != len(found):
        raise ValueError("fewer than two labels, or one twice")
    for label in found:
        if not can_be_shown(label):
            raise ValueError(f"the label {label!r:.80} is no line of text of at most {MAX_LABEL} characters")
    return found
