"""The parser of the kernel plan, on recorded lines and on lines that hypothesis writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.engine.plan.kernels import TYPES, Kernel, PlanTensor
from logoformer.engine.plan.rtx_log import parse_kernel, parse_plan

RECORDED = Path(__file__).parent / "data" / "plan_rtx_1.7.1.txt"
UNIT = "\x1f"


def recorded() -> str:
    """The message, without the comment that names its source."""
    text = RECORDED.read_text()
    return text[text.index("Layers:") :]


@pytest.fixture(scope="module")
def kernels() -> tuple[Kernel, ...]:
    found, unread = parse_plan([recorded()])
    assert unread == ()
    return found


# ---------------------------------------------------------------------------------------------------------- recorded
ROLES = [
    ("__myl_CastTranConc_myl0_0", "conversion"),
    ("frame.trunk.conv1/Conv_U1_myl0_1", "convolution"),
    ("frame.trunk.maxpool/MaxPool_U3_myl0_2", "pooling"),
    ("__myl_FcAdd_myl0_22", "matmul"),
    ("__mye1508_myl0_7", "sync"),
    ("__mye1510_myl0_9", "sync"),
    ("temporal.blocks.0.local_attention.v/MatMul_U13+", "matmul"),
    ("_gemm_mha_v2_myl0_3", "attention"),
    ("__myl_FcAddAdd_myl0_17", "matmul"),
    ("_gemv_mha_v1_myl0_65", "attention"),
    ("__myl_AddMaxrSubExpSumDivCast_myl0_72", "elementwise"),
    ("temporal.blocks.0.local_attention/MatMul_U18_myl0_3", "matmul"),
    ("__myl_Tran_myl0_6", "movement"),
    ("frame.trunk.layer1.0.conv1/Conv_U92_myl0_4", "convolution"),
    ("__myl_MulCastAddReluMulMinMaxRounCast_myl0_2", "requantize"),
    ("__myl_Move_myl0_78", "movement"),
    ("temporal.blocks.3.global_attention.q/MatMul_U473_myl0_80", "matmul"),
]


def test_every_recorded_line_becomes_a_kernel_of_its_role(kernels: tuple[Kernel, ...]) -> None:
    assert len(kernels) == len(ROLES)  # the I/O tensors after the plan are none of it
    for kernel, (name, role) in zip(kernels, ROLES, strict=True):
        assert kernel.name.startswith(name)
        assert kernel.role == role


def test_precision_is_that_of_what_is_multiplied(kernels: tuple[Kernel, ...]) -> None:
    found = {
        kernel.name: kernel.precision for kernel in kernels if kernel.role in ("matmul", "convolution", "attention")
    }
    assert found.pop("temporal.blocks.0.local_attention/MatMul_U18_myl0_3") == "fp32"
    assert found.pop("frame.trunk.layer1.0.conv1/Conv_U92_myl0_4") == "int8"  # its scales and its output are FP32
    assert found.pop("temporal.blocks.3.global_attention.q/MatMul_U473_myl0_80") == "int8"
    assert set(found.values()) == {"fp16"}  # alpha and beta of a GEMM are FP32 constants


def test_a_gemm_line_in_full(kernels: tuple[Kernel, ...]) -> None:
    gemm = kernels[6]
    assert (gemm.kind, gemm.stream, gemm.tactic) == ("gemm", 0, "__myelin_CASK_STUB")
    block = "temporal.blocks.0.local_attention"
    assert gemm.onnx_layers == (f"{block}.v/MatMul", f"{block}.k/MatMul", f"{block}.q/MatMul")
    assert gemm.named_after == gemm.onnx_layers
    assert [tensor.shape for tensor in gemm.tensors] == [(256, 512), (3, 512, 512), (1,), (1,), (3, 256, 512)]
    assert [tensor.dtype for tensor in gemm.tensors] == ["fp16", "fp16", "fp32", "fp32", "fp16"]
    assert gemm.inputs[0].strides == (512, 1)
    assert gemm.inputs[0].layout == "(Linear) Row major linear format"
    assert gemm.bytes == 2 * (256 * 512 + 3 * 512 * 512 + 3 * 256 * 512) + 4 + 4


def test_a_note_after_the_onnx_layer_is_passed_over(kernels: tuple[Kernel, ...]) -> None:
    assert "__gemm_from_conv1x1" in recorded()
    assert kernels[3].onnx_layers == ("frame.project/Conv",)


def test_the_syllables_of_a_generated_kernel(kernels: tuple[Kernel, ...]) -> None:
    assert kernels[10].operations == ("Add", "Maxr", "Sub", "Exp", "Sum", "Div", "Cast")
    assert kernels[6].operations == ()
    assert kernels[5].stream == 1


# ------------------------------------------------------------------------------------------------------------- roles
def make(name: str, kind: str = "kgen", *, inputs: str = "fp16", outputs: str = "fp16", constants: str = "") -> Kernel:
    def tensors(types: str) -> tuple[PlanTensor, ...]:
        return tuple(PlanTensor("t", (4 + i,), (1,), dtype, "") for i, dtype in enumerate(types.split()))

    return Kernel(name, kind, tensors(inputs), tensors(constants), tensors(outputs), "", 0, ())


@pytest.mark.parametrize(
    ("kernel", "role"),
    [
        (make("__myl_ReshTranMoveConcSlicGath_myl0_0"), "movement"),
        (make("__myl_ReshEtc_myl0_0"), "elementwise"),  # what was cut off may compute
        (make("__myl_ReshMulTran_myl0_0"), "elementwise"),
        (make("__myl_TranCast_myl0_0"), "conversion"),
        (make("__myl_MulCast_myl0_0", outputs="fp8"), "requantize"),
        (make("__myl_Move_myl0_0", inputs="int8", outputs="int8"), "movement"),
        (make("__myl_Cast_myl0_0", outputs="int8"), "conversion"),
        (make("x_gemm_mha_v2_myl0_0", "gemm"), "matmul"),  # a layer of that name is no fused attention
        (make("strange", "new_class"), "other"),
    ],
)
def test_roles_at_the_edges(kernel: Kernel, role: str) -> None:
    assert kernel.role == role


@pytest.mark.parametrize(
    ("kernel", "precision"),
    [
        (make("g", "gemm", inputs="fp32 fp16", constants="fp16"), "fp16"),  # an FP32 residual
        (make("g", "gemm", inputs="fp16 fp32", constants="fp16 fp32"), "fp32"),  # the larger constant is the weights
        (make("g", "gemm", inputs="fp16", constants="int8"), "fp16"),  # weights only stored as INT8
        (make("g", "gemm", inputs="fp16 int32"), "fp16"),  # indices are not multiplied
        (make("g", "gemm", inputs="fp32 fp16"), "unclear"),
        (make("g", "gemm", inputs="int32"), "unclear"),
        (make("g", "gemm", inputs=""), "unclear"),
    ],
)
def test_precision_is_not_guessed(kernel: Kernel, precision: str) -> None:
    assert kernel.precision == precision


@pytest.mark.parametrize(
    ("shape", "strides", "dtype", "size"),
    [
        ((2, 3), (3, 1), "fp32", 24),
        ((2, 3), (0, 1), "fp32", 12),  # the first axis repeats the same three
        ((3,), (1,), "int4", 2),
        ((), (), "fp16", 2),
        ((2, 3), (), "fp16", 12),  # strides not printed
        ((0, 3), (3, 1), "fp16", 0),
        ((2, 3), (3, 1), "Complex", 0),
    ],
)
def test_bytes_of_a_tensor(shape: tuple[int, ...], strides: tuple[int, ...], dtype: str, size: int) -> None:
    assert PlanTensor("t", shape, strides, dtype, "").bytes == size


# ------------------------------------------------------------------------------------------------------------- lines
def test_unknown_fields_are_passed_over() -> None:
    line = (
        "Name: a, LayerType: gemm, Novelty: [ { Deep: [1,2] }], Inputs: [ { Name: x, Dimensions: [2,3], Color: red, "
        "Datatype: Half, Format: (Linear) a }], Outputs: [], Other: 7, StreamId: 3"
    )
    kernel = parse_kernel(line)
    assert (kernel.name, kernel.kind, kernel.stream) == ("a", "gemm", 3)
    assert kernel.inputs == (PlanTensor("x", (2, 3), (), "fp16", "(Linear) a"),)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "Name: , LayerType: gemm",
        "Name: a, Inputs: []",
        "Name: a, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [2,3]",
        "Name: a, LayerType: gemm, Inputs: [ { Name: x, Datatype: Half }]",
        "Name: a, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [2,q], Datatype: Half }]",
        "Name: a, LayerType: gemm, Inputs: [ { Name: x, Dimensions: [2,-1], Datatype: Half }]",
        "Name: a, LayerType: gemm, StreamId: two",
    ],
)
def test_a_line_that_cannot_be_read_is_kept_aside(line: str) -> None:
    with pytest.raises(ValueError):
        parse_kernel(line)
    found, unread = parse_plan([f"Layers:\nName: good, LayerType: gemm\n{line or ' '}x\nName: also, LayerType: wait"])
    assert [kernel.name for kernel in found] == ["good", "also"]
    assert len(unread) == 1


def test_only_the_plan_is_read_and_it_ends_at_the_empty_line() -> None:
    found, unread = parse_plan(
        [
            "Name: no, LayerType: gemm",
            "Layers:\nName: yes, LayerType: gemm\n\nName: no, LayerType: gemm",
            "No Layers:\nx",
        ]
    )
    assert [kernel.name for kernel in found] == ["yes"]
    assert unread == ()


# -------------------------------------------------------------------------------------------------------- properties
WORDS = st.text(st.sampled_from("abcXYZ_0123456789./+-"), min_size=1, max_size=12)
NUMBERS = st.lists(st.integers(0, 1 << 20), max_size=5).map(tuple)
TENSORS = st.builds(
    PlanTensor,
    name=WORDS,
    shape=NUMBERS,
    strides=NUMBERS,
    dtype=st.sampled_from([name for name, _ in TYPES.values()]),
    layout=WORDS,
)
KERNELS = st.builds(
    Kernel,
    name=WORDS,
    kind=WORDS,
    inputs=st.lists(TENSORS, max_size=3).map(tuple),
    constants=st.lists(TENSORS, max_size=2).map(tuple),
    outputs=st.lists(TENSORS, max_size=2).map(tuple),
    tactic=WORDS | st.just(""),
    stream=st.integers(0, 9),
    onnx_layers=st.lists(WORDS | st.sampled_from(["a[0]", "b]", "x: y, Z: w"]), max_size=3).map(tuple),
)


def render(kernel: Kernel) -> str:
    """Writes a kernel as TensorRT-RTX does."""
    words = {name: word for word, (name, _) in TYPES.items()}

    def numbers(values: tuple[int, ...]) -> str:
        return "[" + ",".join(map(str, values)) + "]"

    def tensors(values: tuple[PlanTensor, ...]) -> str:
        shown = (
            f"{{ Name: {t.name}, Dimensions: {numbers(t.shape)}, Strides: {numbers(t.strides)}, StrideOrder: [0], "
            f"Datatype: {words[t.dtype]}, Format: {t.layout} }}"
            for t in values
        )
        return "[ " + ", ".join(shown) + "]" if values else "[]"

    return (
        f"Name: {kernel.name}, LayerType: {kernel.kind}, Inputs: {tensors(kernel.inputs)}, "
        f"Constants: {tensors(kernel.constants)}, Outputs: {tensors(kernel.outputs)}, TacticName: {kernel.tactic}, "
        f"StreamId: {kernel.stream}, Metadata: " + UNIT.join(f"[ONNX Layer: {name}]" for name in kernel.onnx_layers)
    )


@settings(max_examples=200, deadline=None)
@given(KERNELS)
def test_what_is_written_is_read_back(kernel: Kernel) -> None:
    assert parse_kernel(render(kernel)) == kernel


@settings(max_examples=200, deadline=None)
@given(st.lists(KERNELS, max_size=4), st.data())
def test_damage_never_raises_and_no_line_is_lost(kernels: list[Kernel], data: st.DataObject) -> None:
    lines = [render(kernel) for kernel in kernels]
    for index, line in enumerate(lines):
        start = data.draw(st.integers(0, len(line)))
        noise = data.draw(st.text(st.sampled_from("[]{},: \x1fNab1"), max_size=6))
        lines[index] = "N" + line[:start] + noise + line[start + data.draw(st.integers(0, 20)) :]
    found, unread = parse_plan(["Layers:\n" + "\n".join(lines)])
    assert len(found) + len(unread) == len(lines)
    for kernel in found:
        assert kernel.role
        assert kernel.precision
        assert kernel.bytes >= 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=80), max_size=3))
def test_any_text_is_read_without_raising(messages: list[str]) -> None:
    parse_plan(messages)
    parse_plan([f"Layers:\n{message}" for message in messages])


def test_a_generated_convolution_is_one() -> None:
    """TensorRT-RTX generates some of them where casts stand around (seen on an FP16 graph with FP32 convolutions)."""
    assert Kernel("__myl_CorrCastRelu_myl0_5", "kgen", (), (), (), "", 0, ()).role == "convolution"
