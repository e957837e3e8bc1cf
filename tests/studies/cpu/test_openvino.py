"""The study of INT8 on a CPU: what it times is what it judges, and the committed file says all of it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from logoformer.benchmarks.load.closed import LoadConfig
from logoformer.bundle import Bundle
from logoformer.cli.terminal import Bar
from logoformer.studies.cpu import openvino as study

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_it_times_and_judges_the_same_graphs(int8_bundle: Path):
    pytest.importorskip("openvino", reason="OpenVINO is not installed (the extra 'openvino')")
    bundle = Bundle(int8_bundle)
    with contextlib.ExitStack() as closing:
        opened = study.baselines(bundle, closing)
        run = study.timed(opened, LoadConfig(rounds=20, block=1, settle=0, warmup=1), Bar())
        programs = {one.name: (one.backend.split()[0], one.precision) for one in opened}
    assert programs == {
        study.ORT_FP32: ("onnxruntime", "fp32"), study.OV_INT8: ("openvino", "int8"),
        study.OV_INT8_STREAM: ("openvino", "int8"), study.AUTO_FP32: ("openvino", "fp32"),
        study.OPENVINO: ("openvino", "fp32"), study.EAGER: ("torch", "fp32"),
    }  # fmt: skip
    assert [(r["numerator"], r["denominator"], r["promised"]) for r in run["ratios"]] == list(study.PROMISED)
    for row in run["ratios"]:
        assert row["holds"] == (row["ratio"]["value"] <= row["promised"])
        assert row["ratio"]["low"] <= row["ratio"]["value"] <= row["ratio"]["high"]
    judged = study.gate_on_openvino(bundle, 14, Bar())
    assert judged["clips"] == 14 and judged["verdict"] == "insufficient clips" and 0 < judged["rms_share"] < 0.5
    assert judged["evaluator"].startswith("openvino") and judged["against"].startswith("onnxruntime")
    assert study.artifact(bundle, "untrained")["graphs"]["clip int8"] == bundle.graph("clip", "int8").sha256


def test_the_committed_run_says_with_what_and_where():
    path = ROOT / study.RESULTS
    if not path.exists():
        pytest.skip(f"not measured yet: {study.COMMAND}")
    found = json.loads(path.read_text("utf-8"))
    assert found["command"].startswith(study.COMMAND) and found["machine"]["cpu"] and found["threads"] == study.THREADS
    assert [(r["numerator"], r["denominator"], r["promised"]) for r in found["ratios"]] == list(study.PROMISED)
    assert found["artifact"]["preset"] == "base" and len(found["artifact"]["graphs"]) == 6
    assert min(found["artifact"]["int8_macs"].values()) >= 0.95
    assert found["accuracy"]["clips"] >= 700 and found["accuracy"]["reason"]
    assert all(row["holds"] == (row["ratio"]["value"] <= row["promised"]) for row in found["ratios"])
