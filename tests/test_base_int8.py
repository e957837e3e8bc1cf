"""INT8 at full size: the kernel plan, bytes, all GPUs, and the time that no test asserts."""

from pathlib import Path

import pytest
from logoformer.bundle import Bundle
from logoformer.engine.builder.bundle import build_bundle
from logoformer.engine.builder.proof import Proof
from logoformer.engine.describe import proofs
from logoformer.engine.machine.targets import RTX_SMS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("base_bundle")]
pytest.importorskip("tensorrt_rtx", reason="the kernel plan needs the extra 'rtx'")


@pytest.fixture(scope="module")
def found(base_int8: Path) -> dict[str, Proof]:
    return proofs(base_int8, precisions=["fp16", "int8"])


def test_the_plan_is_int8_and_fused(found: dict[str, Proof]):
    for name, proof in found.items():
        plan = proof.plan
        print(
            f"{name:<14} {len(plan.kernels)} kernels, {len(plan.with_role('requantize'))} re-quantize, "
            f"{len(plan.with_role('movement'))} movement, {plan.bytes / 1e6:.1f} MB, {proof.share:.2%}"
        )
        assert proof.holds and not plan.unread and not plan.unknown_types
        assert plan.typed_macs == plan.parsed_macs
    for graph in ("clip", "frame", "temporal"):
        assert found[f"{graph} int8"].share >= 0.95
    frame, temporal, clip = (found[f"{graph} int8"].plan for graph in ("frame", "temporal", "clip"))
    assert len(temporal.with_role("attention")) == len(clip.with_role("attention")) == 8
    assert len(temporal.kernels) <= 84 and len(temporal.with_role("requantize")) <= 25
    assert len(frame.kernels) <= 41
    for graph in ("frame", "temporal"):
        assert found[f"{graph} int8"].plan.bytes < found[f"{graph} fp16"].plan.bytes


def test_bytes_of_graphs_and_engines(base_int8: Path, tmp_path: Path):
    graphs = {"fp32": 0, "int8": 0}
    for entry in Bundle(base_int8).graphs:
        graphs[entry.precision] = graphs.get(entry.precision, 0) + entry.size
    report = build_bundle(base_int8, precisions=["fp32", "int8"], engines_dir=tmp_path / "engines")
    engines = {"fp32": 0, "int8": 0}
    for engine in report.engines:
        engines[engine.precision] += engine.size
    print(f"INT8/FP32: graphs {graphs['int8'] / graphs['fp32']:.4f}, engines {engines['int8'] / engines['fp32']:.4f}")
    assert graphs["int8"] <= 0.30 * graphs["fp32"]
    assert engines["int8"] <= 0.38 * engines["fp32"]
    by_graph = {engine.graph: engine for engine in report.engines if engine.precision == "int8"}
    assert by_graph["temporal"].compute_capabilities == RTX_SMS
    # Turing builds, but not in INT8: it is left out, not kept quiet.
    for graph in ("clip", "frame"):
        assert by_graph[graph].compute_capabilities == RTX_SMS[1:]
        assert set(report.left_out[by_graph[graph].file]) == {"sm75"}
        assert set(by_graph[graph].plan) == set(RTX_SMS)
