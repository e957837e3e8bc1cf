"""The whole way of a benchmark on a card, on the doubles of TensorRT and CUDA.

What it times is the processor that plays the card: nobody's figure. Each stands under the double's name, and no report
of them can be printed, written or read.
"""

from __future__ import annotations

import functools
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from doubles.machine import Machine, machine
from logoformer.benchmarks import bench as b
from logoformer.benchmarks.baselines import contract as p
from logoformer.benchmarks.load import first_answer
from logoformer.benchmarks.matrix import bench_matrix
from logoformer.benchmarks.report.page import html, write_both
from logoformer.benchmarks.report.readme import readme_table, write_readme_table
from logoformer.benchmarks.report.records import CPU, DOUBLE
from logoformer.benchmarks.report.report import Report, read_report, write_report
from logoformer.benchmarks.report.terminal import report_text
from logoformer.benchmarks.sensors.find import Sensors
from logoformer.bundle import Bundle
from logoformer.bundle.files import dump_json
from logoformer.errors import RefusedError

NAME = f"{DOUBLE} of sm86"
CARD = Sensors((), {"GPU": NAME})
# A process of its own finds no double by itself.
CHILD = (
    "import time; entered = time.monotonic_ns(); from doubles.machine import machine; "
    "from logoformer.benchmarks.load.first_answer import child\n"
    "with machine({version!r}, {layer!r}): child(entered)"
)


@pytest.fixture(params=[("10.3", "cuda-python"), ("10.3", "pycuda"), ("rtx-1.7", "cuda-python")], ids="-".join)
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    version, layer = request.param
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(b, "REST_S", 0.0)
    monkeypatch.setattr(first_answer, "CODE", CHILD.format(version=version, layer=layer))
    with machine(version, layer) as found, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        yield found
        assert found.gpu.leaks() == {}


@pytest.fixture
def bundle(toy: Bundle, here: Machine, tmp_path: Path) -> Bundle:
    copy = Bundle(shutil.copytree(toy.path, tmp_path / "face.bundle"))
    here.plant_engines(copy)
    return copy


def config(here: Machine, bundle: Bundle, **more: object) -> b.BenchConfig:
    options = {"iterations": 20, "warmup": 1, "threads": 1, "roofline": False, "precision": "fp32", **more}
    return b.BenchConfig(bundle.path, backend=here.backend, **options)


def test_every_mode_and_every_figure_is_the_doubles(here, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(b, "cold_starts", functools.partial(first_answer.cold_starts, starts=1))
    modes = ("closed", "paced", "multi", "offline", "cold", "idle")
    others = (p.ORT, p.NAIVE, p.PER_FRAME)
    report = b.bench(config(here, bundle, modes=modes, others=others, rate_hz=200.0), sensors=CARD)
    assert report.subject.device == NAME and report.subject.backend.startswith(str(here.trt))
    assert {row.name for row in report.rows if row.device != NAME} == {p.ORT}
    assert report.row(p.ORT).device == CPU and report.row(p.ORT).device_ms is None
    timed = {row.name for row in report.rows if row.device_ms is not None}
    assert timed == {p.CLIP, p.CLIP_AGAIN, p.STREAM, p.STREAM_AGAIN}  # by the double's own events
    devices = {row.name: row.device for row in report.rows} | {p.CLIP_REPEATED: NAME}
    assert all(devices[c.numerator] == devices[c.denominator] for c in report.comparisons)
    assert {(c.numerator, c.denominator) for c in report.comparisons} >= {(p.STREAM, p.NAIVE)}
    assert report.cold is not None and report.idle_gaps and report.skipped == ()
    (accuracy,) = report.accuracy
    assert accuracy.timed_answers >= 100 and accuracy.stream_answers > 10
    assert not report.qualification.qualified
    refused(report, tmp_path, monkeypatch)


def refused(report: Report, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No way out, and no way back in."""
    readme = folder / "README.md"
    readme.write_text("<!-- bench:begin -->\n<!-- bench:end -->\n")
    ways = (
        Report.to_json, report_text, html, readme_table, lambda r: write_report(r, folder / "report.json"),
        lambda r: write_both(r, folder / "out"), lambda r: write_readme_table(r, readme),
    )  # fmt: skip
    for way in ways:
        with pytest.raises(RefusedError, match="a test's double, not of a card"):
            way(report)
    assert not (folder / "report.json").exists() and "ms" not in readme.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(Report, "require_measured", lambda self: None)
        (folder / "let out.json").write_bytes(dump_json(report.to_json()))
    with pytest.raises(RefusedError, match="a test's double"):
        read_report(folder / "let out.json")


def test_the_matrix_too(here, bundle):
    report = bench_matrix(config(here, bundle), sensors=CARD)
    assert {row.device for row in report.rows} == {NAME}
    with pytest.raises(RefusedError, match="a test's double"):
        report.to_json()


def test_without_a_name_for_the_double_nothing_is_timed(here, bundle, monkeypatch):
    monkeypatch.setattr(b, "run_closed", lambda *_, **__: pytest.fail("timing began"))
    with pytest.raises(Exception, match="shows none"):
        b.bench(config(here, bundle, others=()), sensors=Sensors((), {}))
