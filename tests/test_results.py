"""The committed results: README's tables are printed from them, and the ratios that they show are the bars'."""

from pathlib import Path

import pytest
from logoformer.benchmarks.report import read_report
from logoformer.benchmarks.tables import BEGIN, END, markdown
from logoformer.experiments import MARKERS
from logoformer.experiments import markdown as experiments_markdown
from logoformer.files import parse_json

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def between(begin: str, end: str) -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split(begin)[1].split(end)[0].lstrip("\n")


def test_the_cpu_table_is_that_of_the_report():
    assert between(BEGIN, END) == markdown(read_report(RESULTS / "cpu-base.json"))


def test_the_experiments_table_is_that_of_the_results():
    results = parse_json((RESULTS / "experiments.json").read_bytes(), "experiments.json")
    assert between(*MARKERS) == experiments_markdown(results)
    for run in results["runs"]:
        assert run["uar"]["forward"] >= 0.85 and run["stream_uar"] > run["naive_uar"]


def test_the_committed_ratios_are_those_that_the_design_promises():
    """Ratios of one interleaved run, as measured and committed; no time is taken here."""
    report = read_report(RESULTS / "cpu-base.json")
    ratios = {(c.numerator, c.denominator): c.ratio.value for c in report.comparisons}
    assert report.subject.preset == "base" and report.subject.precision == "fp32"
    assert ratios["clip", "torch"] <= 0.75
    assert ratios["stream", "clip"] <= 0.40
    assert report.wrapper.clip_p50_us <= 50 and report.wrapper.push_p50_us <= 50


@pytest.mark.parametrize("name", ["cpu-base.json", "experiments.json"])
def test_results_say_where_they_come_from(name: str):
    machine = parse_json((RESULTS / name).read_bytes(), name, max_bytes=16 << 20)["machine"]
    assert machine["packages"]["torch"] and machine["python"]


def test_the_evidence_of_bench_compare_is_quiet_on_one_program():
    """Whether the planted slowdown was found depends on the machine's noise, which stands beside it in the file."""
    found = parse_json((RESULTS / "compare.json").read_bytes(), "compare.json")
    assert found["pairs"] == len(found["quiet"]) == len(found["slowed"]) == 20
    assert found["false_alarms"] <= 1
