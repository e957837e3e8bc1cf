"""ONNX's wire format, read far enough to refuse tensors that are stored in other files.

An ONNX tensor may say "my data lies in that file". Runtimes disagree about what to do then: TensorRT-RTX opens the path
below the *current directory* even when it is given bytes. So the question is settled here, on the bytes, before a
runtime sees them, and without the onnx package, which a device need not have.

Field numbers are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3); the encoding is
https://protobuf.dev/programming-guides/encoding. Anything that two parsers could read differently is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import RefusedError

MAX_DEPTH = 64  # messages inside each other; protobuf's own parsers stop at 100
MAX_FIELDS = 5_000_000  # read one by one, in Python: some seconds; an exported model has some ten thousand

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_TENSOR = "TensorProto"
_NAME, _EXTERNAL_DATA, _DATA_LOCATION = 8, 13, 14  # fields of TensorProto

# Every way from the model to a tensor: message -> field number -> the message inside.
CHILDREN: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: _TENSOR, 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: _TENSOR,
        6: "GraphProto",
        10: _TENSOR,
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: _TENSOR, 2: _TENSOR},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    _TENSOR: {},
}


@dataclass(frozen=True)
class _Message:
    """A message on the wire: its kind, where its bytes begin and end, and how deep it lies."""

    kind: str
    start: int
    end: int
    depth: int


class MalformedError(Exception):
    """The bytes are not protobuf that every parser reads alike."""


def refuse_external(onnx: bytes, shown: str) -> None:
    """Refuses an ONNX file that names data outside itself, or that is no clean protobuf.

    Raises:
        RefusedError: a tensor with EXTERNAL data anywhere (initializers, sparse ones, attributes, subgraphs, functions,
            training graphs), malformed bytes, nesting deeper than `MAX_DEPTH`, more than `MAX_FIELDS` fields, or no
            graph at all.
    """
    try:
        _walk(onnx, shown)
    except MalformedError as error:
        raise RefusedError(
            f"{shown} is not an ONNX file that can be trusted: {error}.",
            cause="a damaged or hostile file, or a file of another format",
        ) from error


def _walk(data: bytes, shown: str) -> None:
    waiting = [_Message("ModelProto", 0, len(data), 0)]  # a list, not recursion: depth is the file's choice
    budget = MAX_FIELDS
    graphs = 0
    while waiting:
        message = waiting.pop()
        graphs += message.kind == "GraphProto"
        if message.depth > MAX_DEPTH:
            raise MalformedError(f"nested deeper than {MAX_DEPTH} messages")
        children = CHILDREN[message.kind]
        for number, wire_type, value, end in fields(data, message.start, message.end):
            budget -= 1
            if budget < 0:
                raise MalformedError(f"more than {MAX_FIELDS} fields")
            if number in children:
                if wire_type != _LENGTH:
                    raise MalformedError(f"{message.kind} field {number} has wire type {wire_type}, not {_LENGTH}")
                waiting.append(_Message(children[number], value, end, message.depth + 1))
            elif message.kind == _TENSOR and number in (_EXTERNAL_DATA, _DATA_LOCATION):
                _refuse_if_external(data, message, number, wire_type, value, shown)
    if not graphs:
        raise MalformedError("there is no graph in it")


def _refuse_if_external(data: bytes, tensor: _Message, number: int, wire_type: int, value: int, shown: str) -> None:
    expected = _VARINT if number == _DATA_LOCATION else _LENGTH
    if wire_type != expected:
        raise MalformedError(f"{_TENSOR} field {number} has wire type {wire_type}, not {expected}")
    if number == _DATA_LOCATION and value == 0:  # DEFAULT
        return
    raise RefusedError(
        f"{shown}: the data of tensor {_tensor_name(data, tensor)!r} lies outside the file.",
        cause="a model saved with external data, or a file made to read another one",
        next="save it as one file: torch.onnx.export(..., external_data=False)",
    )


def _tensor_name(data: bytes, tensor: _Message) -> str:
    name = b""
    try:
        for number, wire_type, value, end in fields(data, tensor.start, tensor.end):
            if (number, wire_type) == (_NAME, _LENGTH):
                name = data[value:end]
    except MalformedError:  # what follows the external data is broken too; the refusal names what it has
        pass
    return name[:200].decode("utf-8", "backslashreplace")


def fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields between two places of the bytes.

    Yields:
        (number, wire type, value, end): for a length-delimited field, value and end are where its bytes begin and end;
        for a varint, value is the number; for fixed ones value means nothing.
    """
    while position < end:
        tag, position = varint(data, position, end)
        number, wire_type = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:
            raise MalformedError(f"field number {number}")
        value = position
        if wire_type == _VARINT:
            value, position = varint(data, position, end)
        elif wire_type == _LENGTH:
            length, value = varint(data, position, end)
            position = value + length
        elif wire_type == _FIXED64:
            position += 8
        elif wire_type == _FIXED32:
            position += 4
        else:  # groups: gone since proto2, and parsers differ on them
            raise MalformedError(f"wire type {wire_type}")
        if position > end:
            raise MalformedError(f"field {number} ends {position - end} bytes after its message")
        yield number, wire_type, value, position


def varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A base-128 number and the place after it."""
    value = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, position
        shift += 7
        if shift == 70:
            break
    raise MalformedError("a number that does not end")
