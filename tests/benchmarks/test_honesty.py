"""What the benchmark may not do: time wrongly, answer from a cache, or name a GPU's figure without a GPU."""

from __future__ import annotations

import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from logoformer.benchmarks import bench as b
from logoformer.benchmarks.baselines import contract as p
from logoformer.benchmarks.baselines import trtexec
from logoformer.benchmarks.baselines.contract import Inputs
from logoformer.benchmarks.load.closed import LoadConfig
from logoformer.benchmarks.load.modes import run_closed
from logoformer.benchmarks.load.overhead import HollowSession, cache_check, count_runs
from logoformer.benchmarks.report.report import Report
from logoformer.benchmarks.sensors.find import Sensors, this_machine
from logoformer.benchmarks.sensors.nvml import open_nvml
from logoformer.benchmarks.statistics import Ratio
from logoformer.cli import main as cli
from logoformer.engine import Runtime, load
from logoformer.engine.sessions.contract import Backend
from logoformer.errors import MachineError, RefusedError, UsageError

NO_GPU = Sensors((), {})
CARD = Sensors((), {"GPU": "Example GPU"})


# ---------------------------------------------------------------------------------------------------------------- timer
class TimedSession(HollowSession):
    """Computes nothing, but takes the next of a list of delays on a clock of the test's own."""

    def __init__(self, entry, clock, delays):
        super().__init__(entry)
        self.clock, self.delays = clock, delays

    def run(self) -> None:
        self.clock[0] += round(next(self.delays) * 1e6)


@pytest.mark.parametrize("kind", ["gamma", "bimodal", "heavy tail"])
def test_a_known_distribution_is_reported_within_2_percent(toy, kind):
    """Bar 2: through the real runtime, stream, recording and rows; 1000 results of each."""
    rng, clock = np.random.default_rng(3), [0]
    draw = {
        "gamma": lambda: rng.gamma(9, 1.0),
        "bimodal": lambda: 5.0 + 15.0 * (rng.random() < 0.3) + rng.random() / 10,
        "heavy tail": lambda: 4.0 + rng.pareto(2.5),
    }[kind]
    given = {"clip": [], "frame": [], "temporal": []}

    def delays(graph):
        while True:
            given[graph].append(draw())
            yield given[graph][-1]

    def open_session(entry):
        return TimedSession(entry, clock, delays(entry.graph))

    inputs = Inputs.of(toy)
    with Runtime(toy, Backend("hollow CPU", "fp32", open_session)) as runtime:
        baselines = [p.clip_baseline(runtime, inputs, p.CLIP), p.stream_baseline(runtime, inputs, p.STREAM)]
        config = LoadConfig(rounds=20, block=50, settle=0, warmup=0)
        found, *_ = run_closed(baselines, config, 0, clock=lambda: clock[0])
    rows = {row.name: row for row in found}
    want = {
        p.CLIP: np.asarray(given["clip"]),
        p.STREAM: np.asarray(given["frame"]) + np.asarray(given["temporal"]),  # one of each for every push
    }
    for name, known in want.items():
        assert len(known) == 1000
        for percentile in (50.0, 99.0):
            reported = rows[name].summary.at(percentile).value_ms
            assert reported == pytest.approx(np.percentile(known, percentile), rel=0.02)
            assert reported == pytest.approx(np.percentile(known, percentile), rel=1e-4)  # the clock is exact here


def test_what_the_generator_adds_is_below_20_us():
    assert 0 < b.harness_us() <= 20


# ---------------------------------------------------------------------------------------------------------------- cache
def test_the_graph_runs_for_every_answer_to_the_same_clip(toy):
    inputs = Inputs.of(toy)
    with load(toy, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        assert count_runs(runtime, inputs, answers=7) == 7
        runtime(inputs.clip(0), color="rgb")  # and the runtime still works afterwards


def test_a_runtime_that_remembers_is_found(toy, monkeypatch):
    real = Runtime.__call__
    known = {}

    def remembering(self, clip, *, color=None):
        key = clip.tobytes()
        if key not in known:
            known[key] = real(self, clip, color=color)
        return known[key]

    monkeypatch.setattr(Runtime, "__call__", remembering)
    with load(toy, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        check = cache_check(runtime, Inputs.of(toy), Ratio(1.0, 0.99, 1.01), 0.02)
    assert (check.calls, check.answers, check.cached) == (1, 3, True)


@pytest.mark.parametrize(
    ("ratio", "noise", "cached"),
    [
        (Ratio(1.0, 0.98, 1.02), 0.02, False),
        (Ratio(0.95, 0.94, 0.96), 0.02, False),  # MLPerf allows 10 %
        (Ratio(0.5, 0.45, 0.55), 0.02, True),
        (Ratio(0.5, 0.3, 0.95), 0.02, False),  # too uncertain to accuse
        (Ratio(0.8, 0.78, 0.82), 0.30, False),  # within the run's own noise
    ],
)
def test_the_verdict_on_repeated_input(toy, ratio, noise, cached):
    with load(toy, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        assert cache_check(runtime, Inputs.of(toy), ratio, noise).cached is cached


def test_the_report_shows_the_check_beside_its_noise(toy, monkeypatch):
    monkeypatch.setattr(b, "REST_S", 0.0)
    report = b.bench(b.BenchConfig(toy.path, iterations=20, warmup=1, threads=1, others=()))
    assert (report.cache.calls, report.cache.answers) == (3, 3)
    again = {(c.numerator, c.denominator): c for c in report.comparisons}[p.CLIP, p.CLIP_AGAIN]
    assert report.cache.noise == again.ratio.noise


# --------------------------------------------------------------------------------------------- bar 4: no GPU, no figure
needs_no_gpu = pytest.mark.skipif(this_machine().gpu is not None, reason="this machine has a GPU")


@needs_no_gpu
@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt_rtx", "cuda", "onnxruntime-gpu"])
def test_no_gpu_backend_gives_a_figure(toy, backend, monkeypatch):
    monkeypatch.setattr(b, "run_closed", lambda *_, **__: pytest.fail("timing began"))
    with pytest.raises((MachineError, UsageError, RefusedError)):
        b.bench(b.BenchConfig(toy.path, backend=backend, others=()))


@needs_no_gpu
def test_a_double_of_a_gpu_backend_gives_no_figure(toy, monkeypatch):
    """A session that answers rightly and says that it is a GPU's: the machine shows none, so nothing is timed."""
    real = b.open_ours

    def disguised(*words):
        runtime = real(*words[:4], "onnxruntime")
        runtime.backend = "tensorrt 10.3.0 on sm87 by pycuda"
        return runtime

    monkeypatch.setattr(b, "open_ours", disguised)
    monkeypatch.setattr(b, "run_closed", lambda *_, **__: pytest.fail("timing began"))
    with pytest.raises(MachineError, match="shows none"):
        b.bench(b.BenchConfig(toy.path, others=()))


def test_the_cpu_provider_is_no_gpu_even_where_one_is(toy, monkeypatch):
    monkeypatch.setattr(b, "REST_S", 0.0)
    report = b.bench(b.BenchConfig(toy.path, iterations=20, warmup=1, threads=1, others=()), sensors=CARD)
    assert {row.device for row in report.rows} == {"cpu"}
    assert {row.device_ms for row in report.rows} == {None}


def test_no_report_carries_device_time_of_a_cpu(made):
    row = made.row()
    with pytest.raises(ValueError, match="ran on the CPU"):
        replace(row, device_ms=row.summary)
    data = made.report().to_json()
    data["rows"][0]["device_ms"] = data["rows"][0]["summary"]
    with pytest.raises(RefusedError):
        Report.from_json(data, "report.json")


@needs_no_gpu
def test_without_a_driver_nvml_gives_no_sensor():
    assert open_nvml() is None


# -------------------------------------------------------------------------------------------------------------- trtexec
LOG = (Path(__file__).parent / "data" / "trtexec-10.2.log").read_text()


def test_a_real_log_is_read():
    run = trtexec.parse(LOG, "clip", "trtexec --loadEngine=clip.engine")
    assert run.version == "10.2.0"
    assert run.throughput_hz == 130.298
    assert dict(run.latency_ms) == {
        "min": 5.38672, "max": 13.3664, "mean": 7.60628, "median": 7.16092,
        "p90": 10.2996, "p95": 10.8698, "p99": 12.9675,
    }  # fmt: skip
    assert dict(run.gpu_ms)["median"] == 7.14139


@pytest.mark.parametrize(
    "log",
    [
        "",
        LOG.replace("Throughput", "Speed"),
        LOG.replace("[I] GPU Compute Time", "[I] GPU Time"),
        LOG.replace(" ms", " us"),
        LOG.replace("[TensorRT v100200]", ""),
    ],
)
def test_another_output_is_not_guessed_at(log):
    with pytest.raises(ValueError):
        trtexec.parse(log, "clip", "trtexec")


@pytest.mark.parametrize(
    ("number", "version"), [(100300, "10.3.0"), (101602, "10.16.2"), (110401, "11.4.1"), (8601, "8.6.1")]
)
def test_versions_as_trtexec_prints_them(number, version):
    log = LOG.replace("v100200", f"v{number}")
    assert trtexec.parse(log, "clip", "trtexec").version == version


def test_the_command_means_the_same_on_10_and_11():
    ten = trtexec.trtexec_words("clip.engine", "10.3.0.30")
    eleven = trtexec.trtexec_words("clip.engine", "11.4.1.2")
    assert "--device=1" in trtexec.trtexec_words("clip.engine", "10.3.0.30", device=1)
    assert not any(word.startswith("--device") for word in ten)
    same = ["--warmUp=500", "--duration=10", "--percentile=50,90,95,99"]
    undone = ["--useCudaGraph", "--useSpinWait", "--noDataTransfers"]  # what 11.x does by itself
    assert ten == ["trtexec", "--loadEngine=clip.engine", *undone, *same]
    assert eleven == ["trtexec", "--loadEngine=clip.engine", *same]


def test_the_definitions_name_both_versions():
    words = {what: (ten, eleven) for what, _, ten, eleven in trtexec.DEFINITIONS}
    assert "H2D + GPU compute + D2H" in words["latency"][0] and "no data transfers" in words["latency"][1]
    assert words["CUDA graph"] == ("off (--useCudaGraph)", "on (--noCudaGraph undoes it)")
    assert "spin-wait" in words["waiting"][1]


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """`fake(script)`: an executable trtexec on PATH. It lives in this test only."""

    def make(script):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        path = folder / "trtexec"
        path.write_text(f"#!{sys.executable}\n{script}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder))
        return path

    return make


def test_where_it_is_looked_for(tmp_path, monkeypatch, fake):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert trtexec.find_trtexec(()) is None
    packaged = tmp_path / "src" / "trtexec"
    packaged.parent.mkdir()
    packaged.write_text("")
    assert trtexec.find_trtexec((tmp_path / "no", packaged)) == packaged
    assert trtexec.find_trtexec((packaged,)) == packaged
    assert trtexec.find_trtexec((packaged,)) != fake("") == trtexec.find_trtexec((packaged,))


def test_it_is_missing_here(toy, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(trtexec, "PLACES", (tmp_path / "trtexec",))
    monkeypatch.setattr(trtexec, "find_trtexec", lambda: None)
    runs, skipped = trtexec.compare_trtexec(toy, "fp32", CARD)
    assert runs == () and "neither on PATH nor at" in skipped[0].reason


def test_without_a_gpu_a_trtexec_that_prints_numbers_is_not_even_run(toy, fake, tmp_path):
    ran = tmp_path / "ran"
    fake(f"open({str(ran)!r}, 'w'); print({LOG!r})")
    runs, skipped = trtexec.compare_trtexec(toy, "fp32", NO_GPU)
    assert runs == () and skipped == (p.Skipped("trtexec", "this machine shows no GPU"),)
    assert not ran.exists()


@pytest.fixture
def built(make_toy, monkeypatch):
    """A toy bundle with a file that an index calls a TensorRT 10.3 engine."""
    from logoformer.bundle.files import sha256
    from logoformer.engine.trust.store import TrustStore

    bundle = make_toy()
    data = b"an engine"
    file = f"tensorrt-10.3.0-sm87/clip.fp32.b1.{sha256(data)[:8]}.engine"
    path = bundle.path / "engines" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    TrustStore().record_engine(sha256(data), bundle.graph("clip", "fp32").sha256, file)
    entry = SimpleNamespace(
        graph="clip", batch=1, precision="fp32", target="tensorrt-10.3.0-sm87", file=file, sha256=sha256(data),
        size=len(data), tensorrt_version="10.3.0.30", graph_sha256=bundle.graph("clip", "fp32").sha256,
    )  # fmt: skip
    monkeypatch.setattr(trtexec, "read_index", lambda folder: (entry,))
    return bundle, path


def test_where_there_is_a_card_it_runs_on_the_checked_bytes(built, fake):
    bundle, _ = built
    fake(
        "import sys, pathlib\n"
        "file = next(word.partition('=')[2] for word in sys.argv if word.startswith('--loadEngine='))\n"
        "assert pathlib.Path(file).read_bytes() == b'an engine'\n"
        "assert '--noDataTransfers' in sys.argv\n"
        f"print({LOG!r})"
    )
    (run,), skipped = trtexec.compare_trtexec(bundle, "fp32", CARD)
    assert skipped == ()
    assert run.throughput_hz == 130.298
    assert run.command.startswith("trtexec --loadEngine=tensorrt-10.3.0-sm87/clip.fp32.b1.")
    assert trtexec.compare_trtexec(bundle, "fp16", CARD)[1][0].reason.startswith("the bundle holds no TensorRT engine")


def test_a_failing_trtexec_is_skipped_with_its_last_line(built, fake):
    fake("import sys; print('loading'); print('Version tag does not match'); sys.exit(1)")
    runs, skipped = trtexec.compare_trtexec(built[0], "fp32", CARD)
    assert runs == ()
    assert skipped[0].reason == "it ended with 1: Version tag does not match"


def test_an_exchanged_engine_never_reaches_it(built, fake, tmp_path):
    bundle, path = built
    ran = tmp_path / "ran"
    fake(f"open({str(ran)!r}, 'w')")
    path.write_bytes(b"an enginE")
    with pytest.raises(RefusedError):
        trtexec.compare_trtexec(bundle, "fp32", CARD)
    assert not ran.exists()


@needs_no_gpu
def test_the_verb_says_what_is_missing(toy, capsys, monkeypatch):
    monkeypatch.setattr(b, "REST_S", 0.0)
    words = ["bench", str(toy.path), "--iterations", "20", "--warmup", "1", "--threads", "1", "--compare", "trtexec"]
    assert shutil.which("trtexec") is None
    assert cli.main([*words, "--mode", "paced", "--rate", "500"]) == 0
    out = capsys.readouterr().out
    assert "skipped: trtexec: it is neither on PATH nor at" in out
    assert "paced 500 Hz" in out


def test_an_engine_that_nobody_vouches_for_never_reaches_it(built, fake, tmp_path):
    from logoformer.engine.trust.store import TrustStore

    bundle, _ = built
    ran = tmp_path / "ran"
    fake(f"open({str(ran)!r}, 'w')")
    TrustStore().remove(trtexec.read_index(bundle.path)[0].sha256)
    with pytest.raises(RefusedError, match="trust"):
        trtexec.compare_trtexec(bundle, "fp32", CARD)
    assert not ran.exists()
