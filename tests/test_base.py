"""What passes on `tiny` is repeated at full size: parity, kernel plans, engine bytes, independent clients."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from logoformer.bundle import Bundle
from logoformer.engine.builder.bundle import build_bundle
from logoformer.engine.describe import proofs
from logoformer.engine.machine.environment import platform_name
from logoformer.engine.machine.targets import RTX_SMS
from logoformer.engine.trust.admit import Running, admit_engine, choose_engine
from logoformer.engine.trust.index import read_engine, read_index
from logoformer.engine.verify import verify
from logoformer.errors import RefusedError

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("base_bundle")]


def shares(bundle: Path, precision: str) -> dict[str, dict[str, float]]:
    return Bundle(bundle).manifest["precisions"][precision]["parity"]


@pytest.mark.parametrize(("size", "clips"), [("base", 32), ("wide", 8)])
def test_parity(size: str, clips: int, request: pytest.FixtureRequest):
    bundle = request.getfixturevalue(f"{size}_bundle")
    fp32, fp16 = shares(bundle, "fp32"), shares(bundle, "fp16")
    print(size, {k: v["share_of_clip_deviation"] for k, v in [*fp32.items(), *fp16.items()]})
    for found in (*fp32.values(), *fp16.values()):
        assert found["clips"] == clips and found["finite"]
    assert fp32["clip"]["share_of_clip_deviation"] <= 0.001 and fp32["pair"]["share_of_clip_deviation"] <= 0.001
    assert fp16["clip"]["share_of_clip_deviation"] <= 0.05 and fp16["pair"]["share_of_clip_deviation"] <= 0.05
    assert fp16["clip"]["evaluator"].startswith("rounding reference")


def test_golden_answers_differ_between_clips(base_bundle: Path):
    assert Bundle(base_bundle).golden().probabilities.std(0).mean() > 0.005


def test_verify(base_bundle: Path):
    report = verify(base_bundle, write=False)
    report.require()
    assert {row.verdict for row in report.rows if row.precision == "fp32"} == {"verified"}


def test_kernel_plan_of_fp16(base_bundle: Path):
    found = proofs(base_bundle, precisions=["fp16"], graphs=["frame", "temporal"], sm="sm86")
    temporal, frame = found["temporal fp16"].plan, found["frame fp16"].plan
    assert len(temporal.kernels) <= 75 and not temporal.with_role("sync")
    assert len(temporal.with_role("attention")) == 8 and not temporal.with_role("movement")
    assert len(frame.kernels) <= 26 and not frame.with_role("sync")
    # The tokens are written row by row; the kernel that does it also widened them before they were FP16.
    assert [kernel.outputs[0].name for kernel in frame.with_role("movement")] == ["tokens"]
    for plan in (temporal, frame):
        assert not plan.unread and not plan.unknown_types
        macs = plan.macs_by_precision
        assert macs["fp16"] / sum(macs.values()) > 0.999


def test_one_engine_for_all_gpus(base_bundle: Path, tmp_path: Path):
    report = build_bundle(base_bundle, engines_dir=tmp_path / "engines")
    bytes_of = {"fp16": 0, "fp32": 0}
    for entry in report.engines:
        assert len(read_engine(report.folder, entry)) == entry.size
        bytes_of[entry.precision] += entry.size
        if entry.precision == "fp16":
            assert entry.compute_capabilities == RTX_SMS
    print(f"engine bytes FP16/FP32 {bytes_of['fp16'] / bytes_of['fp32']:.3f}")
    assert bytes_of["fp16"] <= 0.58 * bytes_of["fp32"]
    assert {path.name for path in (tmp_path / "engines").iterdir()} >= {"index.json"}
    here = Running("rtx", report.engines[0].tensorrt_version, "sm86", platform_name())
    for graph in Bundle(base_bundle).graphs:
        entry = choose_engine(read_index(report.folder), graph, here)
        plan = admit_engine(report.folder, entry, here)
        assert len(plan) == entry.size
        with pytest.raises(RefusedError, match="running here sm87"):
            admit_engine(report.folder, entry, replace(here, compute_capability="sm87"))
        (report.folder / entry.file).write_bytes(plan[:-1] + bytes([plan[-1] ^ 1]))
        with pytest.raises(RefusedError, match="SHA-256 differs"):
            admit_engine(report.folder, entry, here)


# ------------------------------------------------------------------------------------------------ independent clients
@pytest.mark.parametrize("size", ["base", "tiny"])
def test_onnx_checker_takes_every_graph(size: str, request: pytest.FixtureRequest):
    bundle = Bundle(request.getfixturevalue("base_bundle" if size == "base" else "untrained_bundle"))
    for entry in bundle.graphs:
        onnx.checker.check_model(onnx.load_from_string(bundle.read_graph(entry)), full_check=True)


def polygraphy(*words: str, rtx: bool = False) -> str:
    code = "import sys; from polygraphy.tools._main import main; sys.argv[0] = 'polygraphy'; sys.exit(main())"
    env = {"POLYGRAPHY_USE_TENSORRT_RTX": "1"} if rtx else {}
    import os

    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("graph", ["clip", "frame", "temporal"])
def test_polygraphy_runs_and_inspects(untrained_bundle: Path, graph: str):
    bundle = Bundle(untrained_bundle)
    for precision in ("fp32", "fp16"):
        file = str(bundle.path / bundle.graph(graph, precision).file)
        assert graph != "clip" or "clip [dtype=uint8" in polygraphy("inspect", "model", file)
        ranges = ["--val-range", "order:[0,0]"] if graph == "temporal" else []
        assert "onnxrt" in polygraphy("run", file, "--onnxrt", *ranges)


@pytest.mark.parametrize("graph", ["clip", "frame", "temporal"])
def test_polygraphy_converts_with_rtx(base_bundle: Path, tmp_path: Path, graph: str):
    bundle = Bundle(base_bundle)
    engine = tmp_path / "polygraphy.engine"
    file = str(bundle.path / bundle.graph(graph, "fp16").file)
    polygraphy("convert", file, "--convert-to", "trt", "--compute-capabilities", "8.6", "-o", str(engine), rtx=True)
    assert engine.stat().st_size > 1_000_000


def test_the_hashes_of_two_exports_are_equal(base_bundle: Path, tmp_path: Path):
    from logoformer.bundle.files import sha256
    from logoformer.export.graphs import build_graph, example_inputs
    from logoformer.export.trace import to_bytes, trace
    from logoformer.model.networks.configs import PRESETS
    from logoformer.workflows.init import initialise

    model = initialise(PRESETS["base"])
    again = trace(build_graph("frame", model), example_inputs("frame", PRESETS["base"], 344), "tokens")
    assert sha256(to_bytes(again)) == Bundle(base_bundle).graph("frame", "fp32").sha256
    assert np.isfinite(Bundle(base_bundle).golden().probabilities).all()
