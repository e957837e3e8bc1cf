"""One run end to end on a toy bundle, and the faults that must end it. Nothing asserts how long anything took."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from logoformer.benchmarks import bench as b
from logoformer.benchmarks.baselines import contract as p
from logoformer.benchmarks.report.report import read_report, write_report
from logoformer.benchmarks.report.terminal import report_text
from logoformer.benchmarks.statistics import Summary, ratio
from logoformer.cli.main import make_parser
from logoformer.engine.ring import Ring
from logoformer.errors import BadInputError, UsageError, VerificationError

OURS = [p.CLIP, p.CLIP_AGAIN, p.STREAM, p.STREAM_AGAIN]


def config(bundle, **changes):
    return b.BenchConfig(
        bundle.path, **{"iterations": 20, "warmup": 2, "threads": 1, "others": (), "roofline": False, **changes}
    )


@pytest.fixture(scope="module")
def report(toy):
    return b.bench(config(toy, iterations=61, others=(p.ORT,)))


@pytest.fixture(autouse=True)
def no_rest(monkeypatch):
    monkeypatch.setattr(b, "REST_S", 0.0)


def test_every_baseline_has_the_same_number_of_samples(report):
    assert [row.name for row in report.rows] == [*OURS, p.ORT]
    assert {row.summary.n for row in report.rows} == {80}  # 61 rounded up to 40 rounds of 2
    assert {row.rounds().shape for row in report.rows} == {(40, 2)}
    for row in report.rows:
        assert row.summary == Summary.of(row.rounds().reshape(-1))
        assert [found.percentile for found in row.summary.percentiles] == [50, 90]


def test_stages_are_split(report):
    assert [name for name, _ in report.row(p.CLIP).stages_p50_ms] == ["preprocess", "clip", "postprocess"]
    assert [name for name, _ in report.row(p.STREAM).stages_p50_ms] == [
        "preprocess",
        "frame",
        "temporal",
        "postprocess",
    ]
    assert report.row(p.ORT).stages_p50_ms == ()
    assert all(ms > 0 for row in report.rows for _, ms in row.stages_p50_ms)


def test_every_ratio_stands_beside_its_noise(report):
    pairs = {(c.numerator, c.denominator): c for c in report.comparisons}
    assert set(pairs) == {
        (p.CLIP, p.ORT),
        (p.STREAM, p.CLIP),
        (p.CLIP, p.CLIP_AGAIN),
        (p.STREAM, p.STREAM_AGAIN),
    }
    for (numerator, _), c in pairs.items():
        again = pairs[numerator, f"{numerator} again"]
        assert c.noise == again.ratio.noise
        rows = (report.row(c.numerator).rounds(), report.row(c.denominator).rounds())
        assert c.ratio == ratio(*rows)


def test_answers_were_checked_before_and_while_timing(report, toy):
    (a,) = report.accuracy
    assert a.precision == "fp32"
    assert a.graphs == dict(report.subject.graphs)
    assert a.golden_clips == len(toy.golden().clips)
    assert (a.clip_share, a.pair_share) == pytest.approx((0, 0), abs=1e-3)
    assert a.agreement == 1
    assert a.timed_answers == 4 * 80  # clip, again, repeated, plain onnxruntime: every timed answer
    assert a.stream_answers == 2 * 5


def test_what_was_timed_is_named(report, toy):
    assert report.subject.bundle == "toy.bundle"
    assert report.subject.preset == "tiny"
    assert report.subject.graphs["frame"] == toy.graph("frame", "fp32").sha256
    assert report.settings.threads == 1
    assert report.settings.rest_s > 0
    assert report.wrapper.n == 1000
    assert report.harness_us > 0


def test_no_gpu_figure_can_come_out(report):
    assert report.subject.backend.endswith("CPU")
    assert "Nothing here says how fast a GPU would be." in report.notes[0]


def test_it_survives_its_file(report, tmp_path):
    write_report(report, tmp_path / "report.json")
    again = read_report(tmp_path / "report.json")
    assert again == report
    assert report_text(again) == report_text(report)


def test_progress_is_told(toy):
    seen = []
    b.bench(config(toy, others=(p.ORT,)), lambda *call: seen.append(call))
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages == ["opening onnxruntime", "warm-up", "timing"]
    assert all(0 <= done <= total for _, done, total in seen)
    assert seen[-1][1] == seen[-1][2]


def test_torch_is_named_as_other_weights(toy):
    pytest.importorskip("torch")
    report = b.bench(config(toy, others=(p.EAGER,)))
    assert report.row(p.EAGER).summary.n == 20
    assert any("random weights" in note for note in report.notes)
    assert (p.CLIP, p.EAGER) in {(c.numerator, c.denominator) for c in report.comparisons}


# --------------------------------------------------------------------------------------------------------------- faults
@pytest.mark.parametrize(
    ("fault", "blamed"),
    [({"golden_seed": 9}, "The clip graph"), ({"temporal_seed": 9}, "The pair"), ({"clip_seed": 9}, "The clip graph")],
)
def test_a_wrong_answer_is_not_timed(make_toy, fault, blamed, monkeypatch):
    monkeypatch.setattr(b, "run_closed", lambda *_, **__: pytest.fail("timing began"))
    with pytest.raises(VerificationError, match=f"{blamed}.*not worth timing"):
        b.bench(config(make_toy(**fault)))


def test_an_answer_that_changes_under_load_is_found(toy, monkeypatch):
    real = b.clip_baseline

    def tired(runtime, inputs, name, *more):
        baseline = real(runtime, inputs, name, *more)

        def answer(index):
            good = baseline.answer(index)
            return p.StepAnswer(good.probabilities[::-1].copy(), good.stages_ms) if index == 40 else good

        return replace(baseline, answer=answer)

    monkeypatch.setattr(b, "clip_baseline", tired)
    with pytest.raises(VerificationError, match="to a clip that was given while it was timed"):
        b.bench(config(toy))


def test_an_answer_from_a_cache_is_found(toy, monkeypatch):
    real = b.clip_baseline

    def caching(runtime, inputs, name, *more):
        baseline = real(runtime, inputs, name, *more)
        kept = baseline.answer(0)
        return replace(baseline, answer=lambda index: kept)

    monkeypatch.setattr(b, "clip_baseline", caching)
    with pytest.raises(VerificationError, match="a cache"):
        b.bench(config(toy))


def test_a_stream_that_looks_at_other_frames_is_found(toy, monkeypatch):
    real = Ring.pick
    monkeypatch.setattr(Ring, "pick", lambda self, ages: real(self, ages)[::-1])
    with pytest.raises(VerificationError, match="of the stream that was given while it was timed"):
        b.bench(config(toy))


def test_a_nan_answer_is_no_small_difference(toy, monkeypatch):
    real = b.clip_baseline

    def broken(runtime, inputs, name, *more):
        baseline = real(runtime, inputs, name, *more)

        def answer(index):
            return p.StepAnswer(np.full(7, np.nan, np.float32), baseline.answer(index).stages_ms)

        return replace(baseline, answer=answer)

    monkeypatch.setattr(b, "clip_baseline", broken)
    with pytest.raises(VerificationError, match="to a clip"):
        b.bench(config(toy))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"iterations": 19}, "too few"),
        ({"warmup": -1}, "warmup"),
        ({"threads": 0}, "threads"),
        ({"others": ("tvm",)}, "tvm"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_runs(toy, wrong, said):
    with pytest.raises(UsageError, match=said):
        config(toy, **wrong)


def test_no_bundle(tmp_path):
    with pytest.raises(BadInputError, match="no bundle"):
        b.bench(b.BenchConfig(tmp_path / "nothing"))


def test_a_busy_machine_is_noted(monkeypatch, toy):
    machine = b.read_machine()
    monkeypatch.setattr(b, "read_machine", lambda: replace(machine, load_1min=9.0, usable_cpus=2))
    assert any("load average was 9.00" in note for note in b.bench(config(toy)).notes)
    monkeypatch.setattr(b, "read_machine", lambda: replace(machine, load_1min=0.1, usable_cpus=2))
    assert not any("load average" in note for note in b.bench(config(toy)).notes)


def test_it_is_imported_without_torch():
    code = (
        "import sys; from logoformer.benchmarks import bench; from logoformer.benchmarks.report import terminal; "
        "sys.exit(bool({'torch', 'onnx', 'cv2', 'onnxruntime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"threads": None, "others": p.OTHERS},
        {"modes": ("paced", "multi"), "rate_hz": 12.5, "hop": 2, "streams": 3},
        {"iterations": 61, "trtexec": True, "seed": 4, "precision": "fp32", "backend": "auto", "others": (p.ORT,)},
    ],
)  # fmt: skip
def test_the_command_of_a_report_is_that_of_its_settings(toy, changes, monkeypatch):
    asked = config(toy, roofline=True, **changes)
    words = asked.command().split()
    assert words[:3] == ["logoformer", "bench", toy.path.name] and asked.command(matrix=True).split()[3] == "--matrix"
    seen = []
    monkeypatch.setattr(b, "bench", lambda given, _bar: seen.append(given) or 1 / 0)
    given = make_parser().parse_args(["bench", str(toy.path), *words[3:]])
    with pytest.raises(ZeroDivisionError):
        given.handler(given, None)
    assert seen == [asked]
