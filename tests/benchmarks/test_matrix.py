"""`bench --matrix`: every cell is there, in one run, and answers as the clip graph does."""

from __future__ import annotations

import pytest
from logoformer.benchmarks import bench as b
from logoformer.benchmarks import matrix as m
from logoformer.benchmarks.report.page import html
from logoformer.benchmarks.report.report import read_report, write_report
from logoformer.benchmarks.report.terminal import report_text
from logoformer.engine import Runtime
from logoformer.errors import UsageError, VerificationError


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    monkeypatch.setattr(b, "REST_S", 0.0)


def config(bundle, **changes):
    fields = {"iterations": 20, "warmup": 2, "threads": 1, "roofline": False, **changes}
    return b.BenchConfig(getattr(bundle, "path", bundle), **fields)


@pytest.fixture(scope="module")
def report(toy):
    return m.bench_matrix(config(toy))


def test_every_cell_is_there(report, toy):
    streams = [row for row in report.rows if row.hop is not None]
    assert {(row.hop, row.streams) for row in streams} == {(hop, n) for hop in m.HOPS for n in (1, toy.stream.faces)}
    assert [row.name for row in report.rows if row.hop is None] == ["clip fp32"]
    assert len({row.name for row in report.rows}) == len(report.rows) == 1 + 3 * 2
    assert {row.summary.n for row in report.rows} == {20}


def test_all_streams_are_counted(report):
    for row in report.rows:
        mean = sum(map(sum, row.latency_ms)) / row.summary.n
        assert row.throughput_hz == pytest.approx(row.streams * 1e3 / mean)


def test_answers_were_checked(report, toy):
    (accuracy,) = report.accuracy
    assert accuracy.timed_answers == 20
    assert accuracy.stream_answers == 3 * (1 + toy.stream.faces) * 5  # every face of each cell


def test_it_is_a_report_like_any_other(report, tmp_path):
    write_report(report, tmp_path / "matrix.json")
    assert read_report(tmp_path / "matrix.json") == report
    for row in report.rows:
        assert row.name in report_text(report) and row.name in html(report)
    assert "hop 8" in m.grid(report)


def test_progress_is_told(toy):
    seen = []
    m.bench_matrix(config(toy), lambda *call: seen.append(call))
    assert {stage for stage, _, _ in seen} == {"warm-up", "timing"}
    assert seen[-1][1] == seen[-1][2]


@pytest.mark.parametrize("hop", [1, 4])
def test_a_stream_that_looks_at_other_frames_is_found(toy, monkeypatch, hop):
    real = Runtime.step

    def late(self, frames):
        return real(self, {face: (frame[::-1] // 2, t) for face, (frame, t) in frames.items()})

    monkeypatch.setattr(Runtime, "step", late)
    monkeypatch.setattr(m, "HOPS", (hop,))
    with pytest.raises(VerificationError, match="of the stream that was given while it was timed"):
        m.bench_matrix(config(toy))


def test_precisions_are_those_that_were_accepted(untrained_bundle, toy):
    from logoformer.bundle import Bundle

    assert m.choose_precisions(Bundle(untrained_bundle), "verdict", "onnxruntime") == ("fp32", "fp16")
    assert m.choose_precisions(toy, "fp32", "onnxruntime") == ("fp32",)
    with pytest.raises(UsageError, match="no precision 'int8'"):
        m.choose_precisions(toy, "int8", "onnxruntime")
