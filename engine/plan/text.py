"""Reads the kernel plan that TensorRT-RTX prints: text in, `Kernel` out.

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
from dataclasses import dataclass

# The plan's word for a type -> our word, bits.
TYPES = {
    "Float": ("fp32", 32),
    "Half": ("fp16", 16),
    "BFloat16": ("bf16", 16),
    "FP8": ("fp8", 8),
    "FP4": ("fp4", 4),
    "Int4": ("int4", 4),
    "Int8": ("int8", 8),
    "UInt8": ("uint8", 8),
    "Bool": ("bool", 8),
    "Int32": ("int32", 32),
    "Int64": ("int64", 64),
}
ARITHMETIC = {"fp32", "fp16", "bf16", "fp8", "fp4", "int4", "int8"}  # what multiply-accumulates are done in
_QUANTIZED = {"fp8", "fp4", "int4", "int8"}

_MOVES = {"Resh", "Tran", "Move", "Conc", "Slic", "Gath"}
_ATTENTION = re.compile(r"_ge(?:mm|mv)_mha_v\d")
_GENERATED = re.compile(r"__myl_((?:[A-Z][a-z0-9]*)+)")
_KINDS = {"signal": "sync", "wait": "sync", "gemm": "matmul", "correlation": "convolution", "maxpool": "pooling"}
COMPUTE_ROLES = ("attention", "convolution", "matmul")

_FIELD = re.compile(r"(?:^|, )([A-Z][A-Za-z]*):(?: |$)")
_ONNX_LAYER = re.compile(r"\[ONNX Layer: (.+)\](?:__\w+)?")  # '__gemm_from_conv1x1' and the like may follow
_NAMED_AFTER = re.compile(r"(.+?)(?:_U\d+)?")
_NUMBERING = re.compile(r"_myl\d+_\d+$")


@dataclass(frozen=True)
class PlanTensor:
    """A tensor as a kernel sees it.

    Attributes:
        name: the compiler's name.
        shape: as viewed by this kernel.
        strides: in elements, one per axis; 0 where an axis is repeated.
        dtype: 'fp16', 'int8', ... or the plan's own word when it is not known here.
        layout: the compiler's words.
    """

    name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    layout: str

    @property
    def bytes(self) -> int:
        """Bytes that its elements take; 0 when the type is not known (`KernelPlan.unknown_types` names it)."""
        bits = next((bits for name, bits in TYPES.values() if name == self.dtype), 0)
        strides = self.strides if len(self.strides) == len(self.shape) else (1,) * len(self.shape)
        elements = 1
        for size, stride in zip(self.shape, strides, strict=True):
            elements *= size if stride else 1
        return (elements * bits + 7) // 8


@dataclass(frozen=True)
class Kernel:
    """One line of the plan.

    Attributes:
        name: the compiler's name.
        kind: the compiler's class: 'kgen' (generated), 'gemm', 'runtime_fusion', 'correlation' (a convolution),
            'maxpool', 'signal', 'wait', ...
        inputs, constants, outputs: tensors read from memory, weights and scales, tensors written.
        tactic: the kernel chosen; empty when that is left to run time.
        stream: number of its stream.
        onnx_layers: ONNX nodes that it does a part of.
    """

    name: str
    kind: str
    inputs: tuple[PlanTensor, ...]
    constants: tuple[PlanTensor, ...]
    outputs: tuple[PlanTensor, ...]
    tactic: str
    stream: int
    onnx_layers: tuple[str, ...]

    @property
    def tensors(self) -> tuple[PlanTensor, ...]:
        """Everything that it touches."""
        return (*self.inputs, *self.constants, *self.outputs)

    @property
    def bytes(self) -> int:
        """Bytes touched: each tensor once, whole (a gather's source too), caches not thought of."""
        return sum(tensor.bytes for tensor in self.tensors)

    @property
    def operations(self) -> tuple[str, ...]:
        """What a generated kernel does, in the compiler's syllables: ('Cast', 'Tran', 'Conc'); 'Etc' where it cut."""
        found = _GENERATED.match(self.name)
        return tuple(re.findall(r"[A-Z][a-z0-9]*", found.group(1))) if found else ()

    @property
    def named_after(self) -> tuple[str, ...]:
        """The ONNX nodes in its name: 'q/MatMul_U17+k/MatMul_U15_myl0_2' is named after two."""
        parts = _NUMBERING.sub("", self.name).split("+")
        return tuple(found.group(1) for part in parts if (found := _NAMED_AFTER.fullmatch(part)))

    @property
    def role(self) -> str:
        """What it is for, judged by name, class and types.

        'sync'          waits for or wakes another stream
        'attention'     a fused attention: both products and the softmax
        'convolution', 'matmul', 'pooling'
        'movement'      moves data and computes nothing
        'conversion'    moves data and changes its type
        'requantize'    generated, and writes a quantized type
        'elementwise'   any other generated kernel: sums, norms, softmax, activations
        'other'         of a class not seen before
        """
        if self.kind in _KINDS:
            return _KINDS[self.kind]
        if _ATTENTION.match(self.name) or _ATTENTION.match(self.tactic):
            return "attention"
        operations = set(self.operations)
        if "Fc" in operations:
            return "matmul"
        if "Corr" in operations:
            return "convolution"
        if operations and operations <= _MOVES:
            return "movement"
        if operations and operations <= {*_MOVES, "Cast"}:
            return "conversion"
        if self.kind not in ("kgen", "runtime_fusion"):
            return "other"
        return "requantize" if any(tensor.dtype in _QUANTIZED for tensor in self.outputs) else "elementwise"

    @property
    def precision(self) -> str:
        """The type of what is multiplied, or 'unclear'.

        Operands stand among residuals and scales of other types. The largest constant is the weights; where an input
        has the weights' type, that is it. Without such an input (products of activations, or weights that are only
        stored small) all inputs must agree.
        """
        inputs = {tensor.dtype for tensor in self.inputs} & ARITHMETIC
        weights = max(self.constants, key=lambda tensor: tensor.bytes, default=None)
        if weights is not None and weights.dtype in inputs:
            return weights.dtype
        return inputs.pop() if len(inputs) == 1 else "unclear"


def parse_plan(messages: Iterable[str]) -> tuple[tuple[Kernel, ...], tuple[str, ...]]:
    """Finds the kernels in the messages of a build.

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
    """Reads one line.

    Raises:
        ValueError: no name or class, a tensor without dimensions, a list that does not end, or a number that is none.
    """
    fields = _split_fields(line.strip())
    if not fields.get("Name") or not fields.get("LayerType"):
        raise ValueError("a kernel without Name or LayerType")
    return Kernel(
        name=fields["Name"],
        kind=fields["LayerType"],
        inputs=_parse_tensors(fields.get("Inputs", "[]")),
        constants=_parse_tensors(fields.get("Constants", "[]")),
        outputs=_parse_tensors(fields.get("Outputs", "[]")),
        tactic=fields.get("TacticName", ""),
        stream=int(fields.get("StreamId", "0")),
        onnx_layers=_parse_metadata(fields.get("Metadata", "")),
    )


def _parse_metadata(text: str) -> tuple[str, ...]:
    """Reads '[ONNX Layer: a]<0x1F>[ONNX Layer: b]'; entries of another kind are passed over."""
    found = (_ONNX_LAYER.fullmatch(part.strip()) for part in text.split("\x1f"))
    return tuple(match.group(1) for match in found if match)


def _split_fields(text: str) -> dict[str, str]:
    """Cuts 'Key: value, Key: value'; a value that begins with a bracket reaches to where its brackets close."""
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
