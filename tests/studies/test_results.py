"""The committed results: docs/benchmarks.md is printed from them, and the ratios that they show are the bars'."""

from pathlib import Path

import pytest
from logoformer.benchmarks.report.readme import BEGIN, END, readme_table
from logoformer.benchmarks.report.report import read_report
from logoformer.bundle.files import parse_json
from logoformer.studies.compare_evidence import page_table
from logoformer.studies.compiled.plans import int8_text, plans_table
from logoformer.studies.experiments import experiments_table

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def between(begin: str, end: str) -> str:
    text = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    return text.split(begin)[1].split(end)[0].lstrip("\n")


def test_the_cpu_table_is_that_of_the_report():
    assert between(BEGIN, END) == readme_table(read_report(RESULTS / "cpu-base.json"))


def test_the_experiments_table_is_that_of_the_results():
    results = parse_json((RESULTS / "experiments.json").read_bytes(), "experiments.json")
    assert between("<!-- experiments:begin -->", "<!-- experiments:end -->") == experiments_table(results)
    for run in results["runs"]:
        assert run["uar"]["forward"] >= 0.85 and run["stream_uar"] > run["naive_uar"]


def test_the_plans_are_those_of_the_results_and_hold_what_was_promised():
    found = parse_json((RESULTS / "plans.json").read_bytes(), "plans.json")
    int8 = parse_json((RESULTS / "int8.json").read_bytes(), "int8.json")
    assert between("<!-- plans:begin -->", "<!-- plans:end -->") == plans_table(found)
    assert between("<!-- int8:begin -->", "<!-- int8:end -->") == int8_text(int8)
    plans = found["plans"]
    assert plans["frame fp16"]["kernels"] <= 26 and plans["temporal fp16"]["kernels"] <= 75
    assert plans["temporal fp16"]["fused_attentions"] == found["attentions"] == 8
    assert plans["frame fp16"]["movement"] <= 1  # the tokens, row by row
    assert plans["temporal fp16"]["movement"] == 0


def test_the_committed_ratios_are_those_that_the_design_promises():
    """Ratios of one interleaved run, as measured and committed; no time is taken here."""
    report = read_report(RESULTS / "cpu-base.json")
    ratios = {(c.numerator, c.denominator): c.ratio for c in report.comparisons}
    assert report.subject.preset == "base" and report.subject.precision == "fp32"
    # 1.3 times torch's speed was the aim; how far it can be reached is the CPU's business.
    assert ratios["clip", "torch"].value <= 0.85 and ratios["clip", "torch"].high < 1
    assert ratios["clip", "onnxruntime"].low <= 1 <= ratios["clip", "onnxruntime"].high
    assert ratios["stream", "naive re-run"].high <= 0.40  # 2.5 times
    assert report.wrapper.clip_p50_us <= 50 and report.wrapper.push_p50_us <= 50
    assert report.wrapper.worker_p50_us is not None and report.wrapper.worker_p50_us <= 200


@pytest.mark.parametrize("name", ["cpu-base.json", "experiments.json", "training.json"])
def test_results_say_where_they_come_from(name: str):
    machine = parse_json((RESULTS / name).read_bytes(), name, max_bytes=16 << 20)["machine"]
    assert machine["packages"]["torch"] and machine["python"]


def test_reading_clips_and_sams_step_cost_what_was_promised():
    """Measured by `python -m logoformer.studies.training` and committed; no time is taken here."""
    r = parse_json((RESULTS / "training.json").read_bytes(), "training.json")
    read = r["loading"]["stored"]["112"]
    assert (read["frames"], read["size"], read["stored"].keys(), read["augment"]) == (16, 112, {"112 x 112"}, "crop")
    assert read["clips_per_cpu_s"] >= 100
    assert r["loading"]["stored"]["224"]["stored"].keys() == {"224 x 224"}
    for name in ("tiny", "base"):
        assert r["sam"][name]["ratio"]["value"] <= 2.15 and r["sam"][name]["cpu_ratio"]["value"] <= 2.15


def test_bench_compare_is_quiet_on_one_program_and_finds_planted_slowdowns():
    """Measured by `python -m logoformer.studies.compare_evidence` and committed; no time is taken here."""
    if not (RESULTS / "compare.json").exists():
        pytest.skip("no run on an idle machine is committed yet: python -m logoformer.studies.compare_evidence BUNDLE")
    found = parse_json((RESULTS / "compare.json").read_bytes(), "compare.json")
    assert found["pairs"] == 20 and found["idle"]["load_1min"] < 0.5 and found["idle"]["others_cpu_share"] <= 0.05
    one = found["one_run"]
    assert {share: len(changes) for share, changes in one["changes"].items()} == {"0": 20, "0.02": 20, "0.05": 20}
    for share, count in {"0": one["false_alarms"], **one["found"]}.items():
        assert count == sum(change["median"]["low"] > 1 + found["margin"] for change in one["changes"][share])
    assert one["false_alarms"] <= 1 and one["found"]["0.05"] >= 19 and one["found"]["0.02"] >= 15
    assert between("<!-- compare:begin -->", "<!-- compare:end -->") == page_table(found)
    # Two runs apart in time drift, 2 of 20 by more than the margin; so the verb runs two bundles in one.
    assert found["two_runs"]["false_alarms"] <= 2


def test_int8_keeps_what_was_promised():
    r = parse_json((RESULTS / "int8.json").read_bytes(), "int8.json")
    assert all(entry["machine"]["packages"]["torch"] and entry["command"] and entry["seeds"] for entry in r.values())
    tiny = r["accuracy_tiny"]
    assert tiny["source"]["clips"] >= 4000
    assert tiny["fp16"]["bound"] <= 0.002 and tiny["fp16"]["agreement"] >= 0.99
    assert tiny["int8"]["bound"] <= 0.005 and tiny["int8"]["agreement"] >= 0.97
    for name in ("outlier_trained_tiny", "outlier_untrained_tiny"):
        found = r[name]
        assert found["sensitivity"][0]["group"] == "block0.ffn"
        for mended in ("after_exclusion", "after_smoothing"):
            assert found[mended]["rms_share"] <= 0.10 and found[mended]["agreement"] >= 0.97
        smooth, before = found["after_smoothing"]["rms_share"], found["before"]["rms_share"]
        assert abs(smooth - before) < 0.1 * before < found["broken"]["rms_share"] - before
    # The trained network hardly needs its first FFN: the outlier costs it half as much again, within the budget.
    assert r["outlier_untrained_tiny"]["excluded"] == ["block0.ffn"] and r["outlier_trained_tiny"]["excluded"] == []
    assert r["outlier_untrained_tiny"]["broken"]["agreement"] < 0.5
    assert r["qat_outlier_untrained_tiny"]["recovered"] >= 0.5
    base, less = r["base"], r["base_with_exclusions"]
    assert base["fp16"]["max_share"] <= 0.05 and base["int8"]["rms_share"] <= 0.25
    assert base["int8"]["max_share"] < base["int8_nearest_step"]["max_share"], "compensated rounding pays"
    assert less["excluded"] and less["int8"]["max_share"] <= 0.25
