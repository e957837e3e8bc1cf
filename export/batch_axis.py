"""The axis of several faces, put into a finished graph for one.

Nodes, weights and precision stay; no face mixes with another. The data of one face lies in one piece, face after face,
and a tensor `[n, ...]` of the single graph has one of two shapes:

* *rows*, `[B*n, ...]`: for nodes that treat the places of axis 0 alike (windows, frames, a leading 1);
* *apart*, `[B, n, ...]`: for nodes that mix or move them, or that add a weight with an axis of its own to them.

A Reshape turns one into the other and moves nothing. Attention thus keeps four axes and its fused kernels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper, shape_inference

from ..bundle.onnx_graph import infer_onnx
from ..errors import VerificationError
from .trace import drop_unused_initializers

ROWS, APART = "rows", "apart"
SHARED = "ring"  # an input that all faces read
_OF_EACH = "order"  # an input that gets an axis of its own

Shape = tuple[int, ...]


def with_batch_axis(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The graph for several faces.

    Args:
        model: `frame` or `temporal` for one face, in any precision.
        batch: B.

    Returns:
        A new model. `frame`: `[B, S, S, 3]` -> `[B, n, c]`; `temporal`: ring `[R*n, c]` and order `[B, T*n]` ->
        `[B, C]`.

    Raises:
        VerificationError: a node of a kind, or on an axis, that is not known here.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    _Rewriter(made, batch).rewrite()
    return made


class _Rewriter:
    """The rewriting of one graph, in place.

    Args:
        model: for one face; becomes that for B.
        batch: B.
    """

    def __init__(self, model: onnx.ModelProto, batch: int) -> None:
        self.graph, self.batch = model.graph, batch
        self.model = model
        self.shapes: dict[str, Shape] = {name: tensor.shape for name, tensor in infer_onnx(model).tensors.items()}
        self.stored = {item.name: item for item in model.graph.initializer}
        self.readers = Counter(name for node in model.graph.node for name in node.input)
        self.forms: dict[str, str] = {}  # of what holds something for each face; all else is a weight
        self.turned: dict[tuple[str, str, Shape], str] = {}  # tensors in another form
        self.nodes: list[onnx.NodeProto] = []
        self.after: list[onnx.NodeProto] = []  # nodes that follow the one at hand

    def rewrite(self) -> None:
        graph = self.graph
        for value in graph.input:
            if value.name != SHARED:
                self.forms[value.name] = APART if value.name == _OF_EACH else ROWS
                _set_shape(value, self._shape(value.name))
        for node in graph.node:
            self._node(node)
        for value in graph.output:
            self._give(value)
        del graph.node[:]
        graph.node.extend(self.nodes)
        drop_unused_initializers(graph)
        del graph.value_info[:]
        inferred = shape_inference.infer_shapes(self.model, check_type=True, strict_mode=True, data_prop=True)
        weights = {item.name for item in graph.initializer}
        graph.value_info.extend(value for value in inferred.graph.value_info if value.name not in weights)

    def _node(self, node: onnx.NodeProto) -> None:
        if any(name in self.forms for name in node.input):
            rule = _RULES.get(node.op_type)
            if rule is None:
                raise _unknown(node, "an operator without a rule")
            made = onnx.NodeProto()
            made.CopyFrom(node)
            form = rule(self, made)
            self.forms.update(dict.fromkeys(made.output, form))
            node = made
        self.nodes += [node, *self.after]
        self.after.clear()

    def _give(self, value: onnx.ValueInfoProto) -> None:
        """An output of the graph is given as rows."""
        if self.forms.get(value.name) == APART:
            name = f"{value.name}.{APART}"
            for node in self.nodes:
                node.output[:] = [name if output == value.name else output for output in node.output]
                node.input[:] = [name if read == value.name else read for read in node.input]
            self.nodes.append(self._reshaped(name, value.name, self._rows(self.shapes[value.name])))
        _set_shape(value, self._rows(self.shapes[value.name]))

    # -------------------------------------------------------------------------------------------------------- tensors
    def _rows(self, shape: Shape) -> Shape:
        return self.batch * shape[0], *shape[1:]

    def _shape(self, name: str) -> Shape:
        """Of a tensor in the form that it has."""
        shape = self.shapes[name]
        return (self.batch, *shape) if self.forms[name] == APART else self._rows(shape)

    def turn(self, node: onnx.NodeProto, place: int, form: str, rank: int = 0) -> None:
        """Gives a node its input in a form; apart, with axes of length 1 up to a rank."""
        name = node.input[place]
        shape = self.shapes[name]
        wanted = (1,) * (rank - len(shape)) + shape
        if self.forms[name] == form and wanted == shape:
            return
        key = name, form, wanted
        if key not in self.turned:
            made = f"{name}.{form}" + (f".{len(wanted)}" if wanted != shape else "")
            size = (self.batch, *wanted) if form == APART else self._rows(wanted)
            self.nodes.append(self._reshaped(name, made, size))
            self.forms[made], self.shapes[made], self.turned[key] = form, wanted, made
        node.input[place] = self.turned[key]

    def _reshaped(self, given: str, made: str, shape: Shape) -> onnx.NodeProto:
        return helper.make_node("Reshape", [given, self._constant(f"{made}.shape", shape)], [made], f"{made}/Reshape")

    def _constant(self, name: str, values: Sequence[int] | npt.NDArray[np.generic]) -> str:
        array = np.asarray(values) if isinstance(values, np.ndarray) else np.asarray(values, np.int64)
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def replace(self, node: onnx.NodeProto, place: int, values: Sequence[int]) -> None:
        """Gives a node other numbers, in their old place where nothing else reads them."""
        name = node.input[place]
        if self.readers[name] == 1:
            self.stored[name].CopyFrom(numpy_helper.from_array(np.asarray(values, np.int64), name))
        else:
            node.input[place] = self._constant(f"{node.name}.{place}.b{self.batch}", values)

    def numbers(self, node: onnx.NodeProto, place: int) -> list[int]:
        """The numbers of a stored input."""
        if len(node.input) <= place or node.input[place] not in self.stored:
            raise _unknown(node, f"input {place} is not stored")
        return [int(n) for n in numpy_helper.to_array(self.stored[node.input[place]]).reshape(-1)]

    def repeat(self, node: onnx.NodeProto, place: int, form: str) -> None:
        """Gives a node a weight once for each face."""
        name = node.input[place]
        if name not in self.stored:
            raise _unknown(node, f"{name} is computed from weights")
        values = numpy_helper.to_array(self.stored[name])
        times = (self.batch, *[1] * (values.ndim - 1))
        copies = np.tile(values, times) if form == ROWS else np.tile(values[None], (self.batch, *[1] * values.ndim))
        key = name, form, values.shape
        if key not in self.turned:
            self.turned[key] = self._constant(f"{name}.b{self.batch}", copies)
        node.input[place] = self.turned[key]

    def rank(self, node: onnx.NodeProto, place: int = 0) -> int:
        return len(self.shapes[node.input[place]])

    def held(self, node: onnx.NodeProto) -> list[int]:
        """Places of the inputs that hold something for each face."""
        return [place for place, name in enumerate(node.input) if name in self.forms]

    def only_first(self, node: onnx.NodeProto) -> str:
        """The form of the first input, the others being weights."""
        if self.held(node) != [0]:
            raise _unknown(node, "an input that differs from face to face")
        return self.forms[node.input[0]]

    # ---------------------------------------------------------------------------------------------------------- rules
    def alike(self, node: onnx.NodeProto) -> str:
        """Element by element, with scalars at the most."""
        if any(self.shapes[name] != () for name in node.input[1:] if name):
            raise _unknown(node, "a scale for each channel of what is computed")
        return self.only_first(node)

    def along_rows(self, node: onnx.NodeProto) -> str:
        """Convolutions and pools: axis 0 is a batch already."""
        self.only_first(node)
        self.turn(node, 0, ROWS)
        return ROWS

    def normalised(self, node: onnx.NodeProto) -> str:
        """LayerNormalization and Softmax over the last axes."""
        self.only_first(node)
        rank, axis = self.rank(node), _attribute(node, "axis", -1)
        if axis % rank == 0:
            self.turn(node, 0, APART)
        form = self.forms[node.input[0]]
        if form == APART:
            _set_attribute(node, "axis", axis % rank - rank)
        return form

    def elementwise(self, node: onnx.NodeProto) -> str:
        """Two operands; weights and faces' tensors broadcast as numpy does."""
        out = self.shapes[node.output[0]]
        held = self.held(node)
        weights = [self.shapes[node.input[place]] for place in range(2) if place not in held]
        whole = all(self.rank(node, p) == len(out) and self.shapes[node.input[p]][0] == out[0] for p in held)
        plain = all(len(shape) < len(out) or shape[0] == 1 for shape in weights)
        forms = {self.forms[node.input[place]] for place in held}
        form = ROWS if whole and plain and forms != {APART} else APART
        for place in held:
            self.turn(node, place, form, len(out) if form == APART else 0)
        return form

    def product(self, node: onnx.NodeProto) -> str:
        """MatMul: of a face's tensor with a weight, or of two of a face."""
        held = self.held(node)
        ranks = [self.rank(node, place) for place in range(2)]
        if min(ranks) < 2:
            raise _unknown(node, "a product with a vector")
        if len(held) == 2:
            first = [self.shapes[node.input[place]][0] for place in range(2)]
            forms = {self.forms[name] for name in node.input}
            alike = ranks[0] == ranks[1] > 2 and first[0] == first[1]
            form = ROWS if alike and forms != {APART} else APART
        else:
            (place,) = held
            alike = ranks[1 - place] == 2 and ranks[place] > 2 - (place == 0)  # a weight on the left needs whole rows
            form = self.forms[node.input[place]] if alike else APART
        for place in held:
            self.turn(node, place, form, max(ranks) if form == APART else 0)
        return form

    def gemm(self, node: onnx.NodeProto) -> str:
        added = self.shapes[node.input[2]] if len(node.input) > 2 else ()
        if _attribute(node, "transA", 0) or (len(added) == 2 and added[0] != 1):
            raise _unknown(node, "a transposed operand or a sum row by row")
        return self.along_rows(node)

    def reshape(self, node: onnx.NodeProto) -> str:
        self.only_first(node)
        self.replace(node, 1, self._rows(self.shapes[node.output[0]]))
        return ROWS

    def squeezed(self, node: onnx.NodeProto) -> str:
        """Squeeze and Unsqueeze; on axis 0 they become a Reshape."""
        form = self.only_first(node)
        rank = max(self.rank(node), len(self.shapes[node.output[0]]))
        axes = [axis % rank for axis in self.numbers(node, 1)]
        if form == APART or 0 in axes:
            node.op_type = "Reshape"
            node.input[1] = self._constant(f"{node.name}.shape", self._rows(self.shapes[node.output[0]]))
        return ROWS

    def transpose(self, node: onnx.NodeProto) -> str:
        self.only_first(node)
        rank = self.rank(node)
        order = list(_attribute(node, "perm", list(range(rank))[::-1]))
        form = ROWS if order[0] == 0 else APART
        self.turn(node, 0, form)
        if form == APART:
            _set_attribute(node, "perm", [0, *(axis + 1 for axis in order)])
        return form

    def concat(self, node: onnx.NodeProto) -> str:
        axis = _attribute(node, "axis", 0) % self.rank(node)
        form = ROWS if axis else APART
        held = self.held(node)
        for place in range(len(node.input)):
            if place in held:
                self.turn(node, place, form)
            else:
                self.repeat(node, place, form)
        _set_attribute(node, "axis", axis if axis else 1)
        return form

    def cut(self, node: onnx.NodeProto) -> str:
        """Slice."""
        self.only_first(node)
        return self._over_axes(node, 3, self.numbers(node, 3))

    def reduced(self, node: onnx.NodeProto) -> str:
        """ReduceSum and ReduceMean.

        Over axis 0 they add along the first of two axes, faces side by side on the other: in this form ONNX Runtime
        adds in the order in which it adds for one face.
        """
        self.only_first(node)
        axes = [axis % self.rank(node) for axis in self.numbers(node, 1)]
        if axes != [0]:
            return self._over_axes(node, 1, axes)
        self.turn(node, 0, APART)
        given, out = node.input[0], node.output[0]
        (length, *rest), beside, flat = self.shapes[given], f"{node.name}.beside", f"{node.name}.flat"
        order = [1, 0, *range(2, len(rest) + 2)]
        self.nodes.append(helper.make_node("Transpose", [given], [beside], f"{beside}/Transpose", perm=order))
        self.nodes.append(self._reshaped(beside, flat, (length, self.batch * math.prod(rest))))
        node.input[0], node.output[0] = flat, f"{out}.sum"  # [1, B * ...], or without the 1
        self.after.append(self._reshaped(node.output[0], out, self._rows(self.shapes[out])))
        self.forms[out] = ROWS
        return ROWS

    def _over_axes(self, node: onnx.NodeProto, place: int, given: Sequence[int]) -> str:
        axes = [axis % self.rank(node) for axis in given]
        if 0 in axes:
            self.turn(node, 0, APART)
        form = self.forms[node.input[0]]
        if form == APART:
            self.replace(node, place, [axis + 1 for axis in axes])
        return form

    def gather(self, node: onnx.NodeProto) -> str:
        """Rows of the ring by each face's order, or some of a face's own by stored numbers."""
        axis = _attribute(node, "axis", 0) % self.rank(node)
        if self.held(node) == [1] and axis == 0:
            self.turn(node, 1, APART)
            return APART
        self.only_first(node)
        if axis == 0:
            self.turn(node, 0, APART)
        form = self.forms[node.input[0]]
        if form == APART:
            _set_attribute(node, "axis", axis + 1)
        return form


_RULES: dict[str, Callable[[_Rewriter, onnx.NodeProto], str]] = {
    "Add": _Rewriter.elementwise, "Cast": _Rewriter.alike, "Concat": _Rewriter.concat, "Conv": _Rewriter.along_rows,
    "DequantizeLinear": _Rewriter.alike, "Div": _Rewriter.elementwise, "Gather": _Rewriter.gather,
    "Gelu": _Rewriter.alike, "Gemm": _Rewriter.gemm, "Identity": _Rewriter.alike,
    "LayerNormalization": _Rewriter.normalised, "MatMul": _Rewriter.product, "MaxPool": _Rewriter.along_rows,
    "Mul": _Rewriter.elementwise, "QuantizeLinear": _Rewriter.alike, "ReduceMean": _Rewriter.reduced,
    "ReduceSum": _Rewriter.reduced, "Relu": _Rewriter.alike, "Reshape": _Rewriter.reshape, "Slice": _Rewriter.cut,
    "Softmax": _Rewriter.normalised, "Squeeze": _Rewriter.squeezed, "Sub": _Rewriter.elementwise,
    "Transpose": _Rewriter.transpose, "Unsqueeze": _Rewriter.squeezed,
}  # fmt: skip


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def _set_attribute(node: onnx.NodeProto, name: str, value: int | Sequence[int]) -> None:
    for item in [item for item in node.attribute if item.name == name]:
        node.attribute.remove(item)
    node.attribute.append(helper.make_attribute(name, value))


def _set_shape(value: onnx.ValueInfoProto, shape: Shape) -> None:
    axes = value.type.tensor_type.shape
    del axes.dim[:]
    for size in shape:
        axes.dim.add().dim_value = size


def _unknown(node: onnx.NodeProto, why: str) -> VerificationError:
    return VerificationError(
        f"{node.op_type} {node.name} cannot be given an axis for several faces: {why}.",
        cause="a graph that this program did not export, or a family of networks that is new",
    )
