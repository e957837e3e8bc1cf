"""Every mode on a toy bundle: rows, checked answers, and faults that must end the run. Nothing asserts a time."""

from __future__ import annotations

import numpy as np
import pytest
from logoformer.benchmarks import bench as b
from logoformer.benchmarks.baselines import contract as p
from logoformer.benchmarks.load.first_answer import idle_gaps
from logoformer.benchmarks.report.readme import readme_table
from logoformer.benchmarks.report.records import MODES
from logoformer.benchmarks.report.report import read_report, write_report
from logoformer.benchmarks.report.terminal import report_text
from logoformer.engine.ring import Ring
from logoformer.engine.runtime import Runtime
from logoformer.errors import UsageError, VerificationError


def config(bundle, *mode, **changes):
    given = {"iterations": 20, "warmup": 2, "threads": 1, "others": (), "modes": mode, "roofline": False}
    given |= changes
    return b.BenchConfig(bundle.path, **given)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(b, "REST_S", 0.0)


@pytest.fixture(scope="module")
def report(toy):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(b, "REST_S", 0.0)
        patch.setattr(b, "idle_gaps", lambda step, **more: idle_gaps(step, (0.0, 0.01), 2))
        return b.bench(config(toy, *MODES, rate_hz=200.0, hop=2))


def test_each_mode_has_its_rows(report):
    found = {row.name: (row.mode, row.streams, row.hop) for row in report.rows}
    assert found == {
        p.CLIP: ("closed", 1, None),
        p.CLIP_AGAIN: ("closed", 1, None),
        p.STREAM: ("closed", 1, 1),
        p.STREAM_AGAIN: ("closed", 1, 1),
        "paced 200 Hz": ("paced", 1, 2),
        "2 streams": ("multi", 2, 2),
        "2 streams again": ("multi", 2, 2),
        "1 stream alone": ("multi", 1, 2),
        "offline": ("offline", 1, None),
    }
    assert {row.summary.n for row in report.rows} == {20}
    assert report.settings.modes == MODES
    assert len(report.cold.total_ms) == 5
    assert [gap.gap_s for gap in report.idle_gaps] == [0.0, 0.01]


def test_all_of_it_stands_on_the_cpu(report):
    assert {row.device for row in report.rows} == {"cpu"}
    assert {row.device_ms for row in report.rows} == {None}
    assert report.subject.device == "cpu"
    assert not any(name in ("upload", "download") for row in report.rows for name, _ in row.stages_p50_ms)


def test_every_mode_was_checked_while_it_was_timed(report):
    (a,) = report.accuracy
    assert a.timed_answers == 3 * 20 + 20  # three clip baselines of the closed loop, and offline: every answer
    assert a.stream_answers == 2 * 5 + 5 + (2 + 2 + 1) * 5  # closed, paced, and each face of multi: a sample
    assert a.timed_difference <= 1e-5
    assert a.stream_share <= 0.002


def test_multi_stands_beside_its_noise(report):
    pairs = {(c.numerator, c.denominator): c for c in report.comparisons}
    c = pairs["2 streams", "1 stream alone"]
    rows = report.row("2 streams").rounds(), report.row("1 stream alone").rounds()
    steps = np.sort(np.log(np.median(rows[0], axis=1) / np.median(rows[1], axis=1)))  # round by round
    cut = len(steps) // 10  # at each end: one stalled round may move a plain mean out of the interval
    assert c.ratio.value == pytest.approx(np.exp(steps[cut : len(steps) - cut].mean()))
    assert c.ratio.low <= c.ratio.value <= c.ratio.high
    assert c.noise == pairs["2 streams", "2 streams again"].ratio.noise
    assert report.row("2 streams").throughput_hz == pytest.approx(2e3 / rows[0].mean())


def test_paced_latency_begins_with_the_schedule(report):
    row = report.row("paced 200 Hz")
    at = np.asarray(row.at_s[0])
    assert np.diff(at) == pytest.approx(2 / 200.0, abs=2e-6)  # every second frame is answered
    assert row.pace.rate_hz == 200.0
    assert row.throughput_hz == pytest.approx(row.pace.achieved_hz / 2)
    assert row.pace.service.n == 20
    assert row.pace.service.mean_ms <= row.summary.mean_ms


def test_rows_share_the_clock_of_the_telemetry(report):
    for row in report.rows:
        times = np.asarray(row.at_s).reshape(-1)
        assert (times > 0).all() and (times < report.seconds).all()
    for series in report.telemetry.series:
        assert max(series.t_s) <= report.seconds + 1


def test_it_survives_its_file_and_is_shown(report, tmp_path):
    write_report(report, tmp_path / "report.json")
    again = read_report(tmp_path / "report.json")
    assert again == report
    shown = report_text(again)
    for part in (
        "paced 200 Hz: ",
        "cold start, median of 5",
        "after a pause",
        "2 streams / 1 stream alone",
        "unqualified",
    ):
        assert part in shown
    assert "offline" in readme_table(again)


def test_the_load_generator_adds_less_than_20_us(report):
    """Bar 2. Not a time of this machine's work but of two clock readings and a dictionary entry."""
    assert 0 < report.harness_us <= 20


# --------------------------------------------------------------------------------------------------------------- faults
@pytest.mark.parametrize("mode", ["paced", "multi"])
def test_a_stream_that_looks_at_other_frames_is_found(toy, monkeypatch, mode):
    real = Ring.pick
    monkeypatch.setattr(Ring, "pick", lambda self, ages: real(self, ages)[::-1])
    with pytest.raises(VerificationError, match="of the stream that was given while it was timed"):
        b.bench(config(toy, mode, rate_hz=500.0))


def test_faces_that_are_mixed_up_are_found(toy, monkeypatch):
    real = Runtime.step

    def mixed(self, frames):
        results = real(self, frames)
        return dict(zip(results, list(results.values())[::-1], strict=True))

    monkeypatch.setattr(Runtime, "step", mixed)
    with pytest.raises(VerificationError, match="of the stream"):
        b.bench(config(toy, "multi"))


def test_a_wrong_answer_among_many_workers_is_found(toy, monkeypatch):
    real = b.clip_baseline

    def tired(runtime, inputs, name, device):
        baseline = real(runtime, inputs, name, device)

        def answer(index):
            good = baseline.answer(index)
            return p.StepAnswer(good.probabilities[::-1].copy(), good.stages_ms) if index == 13 else good

        return p.Baseline(baseline.name, baseline.what, baseline.precision, True, answer, baseline.backend)

    monkeypatch.setattr(b, "clip_baseline", tired)
    with pytest.raises(VerificationError, match="to a clip that was given while it was timed"):
        b.bench(config(toy, "offline", threads=2))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"modes": ("fast",)}, "Unknown mode 'fast'"),
        ({"modes": ()}, "No mode"),
        ({"hop": 0}, "hop"),
        ({"rate_hz": 0.0}, "rate"),
        ({"rate_hz": float("nan")}, "rate"),
        ({"streams": 1}, "at least 2 streams"),
    ],
)
def test_a_wrong_call_is_refused(toy, wrong, said):
    with pytest.raises(UsageError, match=said):
        config(toy, "closed", **wrong)


def test_more_streams_than_the_arena_has_room_for(toy):
    with pytest.raises(UsageError, match="arena holds 2"):
        b.bench(config(toy, "multi", streams=3))
