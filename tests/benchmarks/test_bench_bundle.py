"""The run on a real bundle: real graphs, real streaming, torch beside it."""

from __future__ import annotations

import pytest
from logoformer.benchmarks.baselines import contract as p
from logoformer.benchmarks.bench import BenchConfig, bench
from logoformer.benchmarks.report.terminal import report_text

SAMPLES = {"iterations": 20, "warmup": 2, "threads": 1, "roofline": False}


def test_fp32_beside_onnxruntime_and_torch(untrained_bundle):
    report = bench(BenchConfig(untrained_bundle, others=(p.ORT, p.EAGER), precision="fp32", **SAMPLES))
    assert [row.name for row in report.rows] == [p.CLIP, p.CLIP_AGAIN, p.STREAM, p.STREAM_AGAIN, p.ORT, p.EAGER]
    assert {row.summary.n for row in report.rows} == {20}
    assert report.accuracy[0].agreement == 1
    assert max(report.accuracy[0].clip_share, report.accuracy[0].pair_share) <= 0.001
    assert report.accuracy[0].stream_share <= 0.002
    assert "stream / clip" in report_text(report)


def test_fp16_says_that_torch_runs_otherwise(untrained_bundle):
    report = bench(BenchConfig(untrained_bundle, others=(p.EAGER,), precision="fp16", **SAMPLES))
    assert {row.name: row.precision for row in report.rows}[p.STREAM] == "fp16"
    assert report.row(p.EAGER).precision == "fp32"
    assert any("mixes two causes" in note for note in report.notes)


@pytest.mark.slow
def test_torch_compile_takes_part_or_says_why(untrained_bundle):
    report = bench(BenchConfig(untrained_bundle, others=(p.COMPILED,), precision="fp32", **SAMPLES))
    reasons = {item.name: item.reason for item in report.skipped}
    assert (report.row(p.COMPILED) is None) == (p.COMPILED in reasons)
    assert reasons.get(p.COMPILED, "") in report_text(report)
