"""Parser of the kernel plan that TensorRT-RTX prints into its log.

With profiling verbosity DETAILED and one compute capability, one VERBOSE message of the build is `Layers:` and then one
line per kernel (seen with tensorrt-rtx 1.7.1; undocumented, so read tolerantly):

    Name: ..., LayerType: gemm, Inputs: [ { Name: ..., Dimensions: [256,512], Strides: [512,1], StrideOrder: [1,0],
    Datatype: Half, Format: ... }, ...], Constants: [...], Outputs: [...], TacticName: ..., StreamId: 0,
    Metadata: [ONNX Layer: a]<0x1F>[ONNX Layer: b]

Fields that are not known are passed over. A line that cannot be read is kept aside and counted, never dropped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .kernels import TYPES, Kernel, PlanTensor

_FIELD = re.compile(r"(?:^|, )([A-Z][A-Za-z]*):(?: |$)")
_ONNX_LAYER = re.compile(r"\[ONNX Layer: (.+)\](?:__\w+)?")  # '__gemm_from_conv1x1' and the like may follow


def parse_plan(messages: Iterable[str]) -> tuple[tuple[Kernel, ...], tuple[str, ...]]:
    """Find the kernels in the messages of a build.

    Args:
        messages: VERBOSE messages, in order; those that are no plan are passed over.

    Returns:
        The kernels in the order of execution, and the lines inside a plan that could not be read.
    """
    kernels: list[Kernel] = []
    unread: list[str] = []
    for message in messages:
        for line in _plan_lines(message):
            try:
                kernels.append(parse_kernel(line))
            except ValueError:
                unread.append(line)
    return tuple(kernels), tuple(unread)


def _plan_lines(message: str) -> list[str]:
    """The lines after 'Layers:' up to the empty line or the next heading."""
    lines = message.split("\n")
    if lines[0].strip() != "Layers:":
        return []
    end = next((i for i, line in enumerate(lines) if i and line.strip() in ("", "I/O Tensors:")), len(lines))
    return lines[1:end]


def parse_kernel(line: str) -> Kernel:
    """Parse one line of the plan.

    Raises:
        ValueError: no name or class, a tensor without dimensions, a list that does not end, or a number that is none.
    """
    fields = _split_fields(line.strip())
    if not fields.get("Name") or not fields.get("LayerType"):
        raise ValueError("a kernel without Name or LayerType")
    layers = [_ONNX_LAYER.fullmatch(part.strip()) for part in fields.get("Metadata", "").split("\x1f")]
    return Kernel(
        name=fields["Name"],
        kind=fields["LayerType"],
        inputs=_parse_tensors(fields.get("Inputs", "[]")),
        constants=_parse_tensors(fields.get("Constants", "[]")),
        outputs=_parse_tensors(fields.get("Outputs", "[]")),
        tactic=fields.get("TacticName", ""),
        stream=int(fields.get("StreamId", "0")),
        onnx_layers=tuple(match[1] for match in layers if match),
    )


def _split_fields(text: str) -> dict[str, str]:
    """Split 'Key: value, Key: value'; a value in brackets ends where they close."""
    fields: dict[str, str] = {}
    found = _FIELD.match(text)
    while found:
        start = found.end()
        after = _after_brackets(text, start) if text.startswith("[", start) and found.group(1) != "Metadata" else start
        following = _FIELD.search(text, after) if found.group(1) != "Metadata" else None  # the last one: names inside
        fields.setdefault(found.group(1), text[start : following.start() if following else len(text)].strip())
        found = following
    return fields


def _after_brackets(text: str, start: int) -> int:
    depth = 0
    for position in range(start, len(text)):
        if text[position] in "[{":
            depth += 1
        elif text[position] in "]}":
            depth -= 1
            if depth == 0:
                return position + 1
    raise ValueError("a list that does not end")


def _parse_tensors(text: str) -> tuple[PlanTensor, ...]:
    """Reads '[ { Name: a, ... }, { ... }]'."""
    tensors = []
    position = text.find("{")
    while position >= 0:
        end = _after_brackets(text, position)
        tensors.append(_parse_tensor(text[position + 1 : end - 1].strip()))
        position = text.find("{", end)
    return tuple(tensors)


def _parse_tensor(text: str) -> PlanTensor:
    fields = _split_fields(text)
    dtype = fields.get("Datatype", "")
    return PlanTensor(
        name=fields.get("Name", ""),
        shape=_parse_numbers(fields.get("Dimensions", "")),
        strides=_parse_numbers(fields.get("Strides", "[]")),
        dtype=TYPES[dtype][0] if dtype in TYPES else dtype,
        layout=fields.get("Format", ""),
    )


def _parse_numbers(text: str) -> tuple[int, ...]:
    """Reads '[1,512]'."""
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError(f"{text[:40]!r} is no list of numbers")
    numbers = tuple(int(number) for number in text[1:-1].split(",") if number.strip())
    if any(number < 0 for number in numbers):
        raise ValueError(f"{text[:40]!r} holds a negative number")
    return numbers
