"""The X-ray: figures from recorded lines, and real builds by TensorRT-RTX, which needs no GPU."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from logoformer.engine.builder import proof as module
from logoformer.engine.builder.compile import BuildOptions
from logoformer.engine.builder.proof import xray
from logoformer.engine.machine.log import BuildLog
from logoformer.engine.plan.kernels import Kernel, KernelPlan, PlanTensor
from logoformer.engine.plan.macs import place_macs
from logoformer.engine.plan.rtx_log import parse_plan
from logoformer.errors import BadInputError, RefusedError, UsageError, VerificationError

RECORDED = Path(__file__).parents[1] / "plan" / "data" / "plan_rtx_1.7.1.txt"
BLOCK = "temporal.blocks.0.local_attention"


@pytest.fixture(scope="module")
def plan() -> KernelPlan:
    """A plan of the recorded lines, with the multiply-accumulates of some of their nodes."""
    text = RECORDED.read_text()
    steps, unread = parse_plan([text[text.index("Layers:") :]])
    macs = {f"{BLOCK}.{x}/MatMul": 256 * 512 * 512 for x in "qkv"} | {"frame.project/Conv": 16 * 512 * 512, "head": 7}
    placed, unplaced = place_macs(steps, macs)
    return KernelPlan("sm86", "TensorRT-RTX 1.7.1.116", steps, tuple(placed), unplaced, unread)


# ---------------------------------------------------------------------------------------------------------- recorded
def test_synchronisation_is_no_kernel(plan: KernelPlan) -> None:
    assert len(plan.steps) == 17
    assert [step.kind for step in plan.with_role("sync")] == ["signal", "wait"]
    assert len(plan.kernels) == 15
    assert sum(plan.roles.values()) == 15


def test_counts_of_the_recorded_plan(plan: KernelPlan) -> None:
    assert [kernel.name for kernel in plan.with_role("attention")] == ["_gemm_mha_v2_myl0_3", "_gemv_mha_v1_myl0_65"]
    assert [kernel.name for kernel in plan.with_role("movement")] == ["__myl_Tran_myl0_6", "__myl_Move_myl0_78"]
    assert [kernel.name for kernel in plan.with_role("requantize")] == ["__myl_MulCastAddReluMulMinMaxRounCast_myl0_2"]
    assert plan.kernels_by_precision == {"fp16": 6, "fp32": 1, "int8": 2}


def test_bytes_add_up_by_type(plan: KernelPlan) -> None:
    assert plan.bytes == sum(kernel.bytes for kernel in plan.kernels) == sum(plan.bytes_by_type.values())
    assert plan.bytes_by_type["uint8"] == 112 * 112 * 3
    assert plan.unknown_types == ()


def test_macs_go_to_their_kernels_and_the_rest_is_named(plan: KernelPlan) -> None:
    assert plan.macs[6] == 3 * 256 * 512 * 512  # one kernel for q, k and v
    assert plan.macs[3] == 16 * 512 * 512  # a 1x1 convolution that became a GEMM
    assert plan.macs_by_precision == {"fp16": 3 * 256 * 512 * 512 + 16 * 512 * 512}
    assert plan.unplaced_macs == {"head": 7}


def test_the_summary_is_json_and_holds_every_figure(plan: KernelPlan) -> None:
    summary = json.loads(json.dumps(plan.summary(), allow_nan=False))
    assert summary == plan.summary()
    assert (summary["kernels"], summary["sync"], summary["fused_attentions"], summary["movement"]) == (15, 2, 2, 2)
    assert summary["macs_unplaced"] == {"head": 7}
    assert summary["unread_lines"] == 0


def test_the_table_has_a_line_for_every_step_and_escapes_names(plan: KernelPlan) -> None:
    lines = plan.table().split("\n")
    assert len(lines[lines.index("") + 2 :]) == len(plan.steps)
    assert "not run" in lines[0]
    assert "NOT READ" not in plan.table()
    evil = Kernel("evil\x1b[2J", "kgen", (), (), (), "", 0, ("a\x07",))
    shown = KernelPlan("sm86", "c", (evil,), (0,), {"n\x1b": 1}, ("x",)).table()
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "NOT READ           1 lines" in shown


def test_a_type_that_is_not_known_is_named(plan: KernelPlan) -> None:
    odd = Kernel("odd", "kgen", (PlanTensor("t", (4,), (1,), "Float8", ""),), (), (), "", 0, ())
    made = KernelPlan("sm86", "c", (odd,), (0,), {}, ())
    assert made.unknown_types == ("Float8",)
    assert "Float8" in made.table()


# -------------------------------------------------------------------------------------------------------------- macs
def kernel(name: str, kind: str, dtype: str, *layers: str) -> Kernel:
    return Kernel(name, kind, (PlanTensor("x", (4,), (1,), dtype, ""),), (), (), "", 0, layers)


def mixed(name: str, dtype: str, other: str, *layers: str) -> Kernel:
    return replace(kernel(name, "kgen", dtype, *layers), outputs=(PlanTensor("y", (4,), (1,), other, ""),))


@pytest.mark.parametrize(
    ("kernels", "placed", "left"),
    [
        ([kernel("q_U1_myl0_0", "gemm", "int8", "q"), kernel("_gemv_mha_v1_myl0_1", "kgen", "fp16", "q")], [5, 0], {}),
        ([kernel("s_U1_myl0_0", "gemm", "fp16", "q"), kernel("t_U1_myl0_1", "gemm", "fp16", "q")], [5, 0], {}),
        ([kernel("s_U1_myl0_0", "gemm", "fp16", "q"), kernel("t_U1_myl0_1", "gemm", "int8", "q")], [0, 0], {"q": 5}),
        ([kernel("__myl_AddMulSum_myl0_0", "kgen", "fp16", "q")], [5], {}),
        ([kernel("__myl_MulAddSum_myl0_0", "kgen", "fp16", "q")], [0], {"q": 5}),
        ([mixed("__myl_MulSum_myl0_0", "fp16", "fp32", "q")], [0], {"q": 5}),
        ([kernel("__myl_Tran_myl0_0", "kgen", "fp16", "q"), kernel("g", "gemm", "fp16", "q")], [0, 5], {}),
        ([], [], {"q": 5}),
    ],
    ids=[
        "named after it",
        "one precision",
        "two precisions",
        "generated product",
        "generated, no product",
        "generated product of two types",
        "a neighbour lists it",
        "nowhere",
    ],
)
def test_where_macs_are_placed(kernels: list[Kernel], placed: list[int], left: dict[str, int]) -> None:
    assert place_macs(kernels, {"q": 5}) == (placed, left)


def test_macs_are_summed_by_the_precision_of_their_kernel() -> None:
    kernels = (kernel("a", "gemm", "fp16"), kernel("b", "gemm", "int8"), kernel("c", "gemm", "fp16"))
    for macs, sums in (((3, 4, 5), {"fp16": 8, "int8": 4}), ((0, 0, 0), {})):
        assert KernelPlan("sm86", "a compiler", kernels, macs, {}, ()).macs_by_precision == sums


# ------------------------------------------------------------------------------------------------------- real builds
def test_fp16_attention_is_one_kernel(
    rtx: object, small_onnx: Callable[..., bytes], small_macs: dict[str, int]
) -> None:
    plan = xray(small_onnx("fp16"), "sm86")
    assert plan.unread == ()
    assert plan.unknown_types == ()
    (attention,) = plan.with_role("attention")
    assert plan.macs[plan.steps.index(attention)] == small_macs["scores/MatMul"] + small_macs["mix/MatMul"]
    assert plan.macs_by_precision == {"fp16": sum(small_macs.values())}
    assert plan.unplaced_macs == {}
    assert plan.with_role("sync") == ()  # no auxiliary streams unless asked for
    assert plan.sm == "sm86"
    assert plan.compiler.startswith("TensorRT-RTX 1.")


def test_fp32_is_seen_as_fp32(rtx: object, small_onnx: Callable[..., bytes], small_macs: dict[str, int]) -> None:
    plan = xray(small_onnx("fp32"), "sm86")
    assert plan.macs_by_precision == {"fp32": sum(small_macs.values())}
    assert "fp16" not in plan.bytes_by_type
    assert set(plan.kernels_by_precision) == {"fp32"}


def test_network_macs_agree_with_a_count_by_hand(
    rtx: object, small_onnx: Callable[..., bytes], small_macs: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[dict[str, tuple[int, str]]] = []
    real = module.network_macs
    monkeypatch.setattr(module, "network_macs", lambda *args: counted.append(real(*args)) or counted[-1])
    xray(small_onnx("fp16"), "sm89")
    assert counted == [{name: (macs, "fp16") for name, macs in small_macs.items()}]


def test_options_reach_the_build(rtx: object, small_onnx: Callable[..., bytes]) -> None:
    options = BuildOptions(compute_capabilities=("sm75",), max_aux_streams=2)
    assert xray(small_onnx("fp16"), "sm80", options).sm == "sm80"


def test_what_xray_refuses(rtx: object, small_onnx: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="sm87"):
        xray(small_onnx("fp16"), "sm87")
    with pytest.raises(RefusedError, match="outside the file"):
        xray(small_onnx("fp16", external=True))
    with pytest.raises(BadInputError, match="no output"):
        xray(b"\x3a\x02\x12\x00")  # a graph with an empty name and nothing in it
    monkeypatch.setattr(module, "parse_plan", lambda messages: ((), ("odd line",)))
    with pytest.raises(VerificationError, match="no kernel plan") as caught:
        xray(small_onnx("fp16"))
    assert caught.value.log == ("odd line",)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_inside_tensorrts_logger_ends_the_compile(
    number: signal.Signals, rtx: object, small_onnx: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """Its bindings print what a handler raises there, and go on."""
    heard: list[str] = []
    add = BuildLog.add

    def adding(log: BuildLog, severity: str, message: str) -> None:
        add(log, severity, message)
        heard.append(message)
        if len(heard) == 1:
            signal.raise_signal(number)

    monkeypatch.setattr(BuildLog, "add", adding)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            xray(small_onnx("fp16"))
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert not any(message.startswith("Layers:") for message in heard)  # it stopped, and did not end
    assert "Exception caught" not in "".join(capfd.readouterr())
