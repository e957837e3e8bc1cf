"""The report as text, and the table between the markers of README."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from logoformer.benchmarks.report.readme import BEGIN, END, readme_table, write_readme_table
from logoformer.benchmarks.report.records import Qualification
from logoformer.benchmarks.report.terminal import report_text
from logoformer.errors import BadInputError, RefusedError


@pytest.fixture
def make_report(made):
    """A report of one row whose latencies go from 4 to 14 ms."""

    def make(samples=140, name="clip", note="Measured on the CPU.", **changes):
        ms = np.linspace(4, 14, samples).reshape(20, -1)
        row = made.row(name, ms, **changes)
        report = made.report(rows=(row,), notes=(note,))
        return replace(report, settings=replace(report.settings, block=samples // 20))

    return make


def test_text_says_what_a_reader_needs(make_report):
    shown = report_text(make_report())
    for part in (
        "face.bundle (base, fp32) on onnxruntime 1.2.3 CPU",
        "20 rounds x 7 steps interleaved",
        "9.000 (",  # the median of 4..14
        "preprocess 0.125",
        "stream / clip  0.310  [0.300, 0.320]  A/A ±2.1 %",
        "skipped: torch.compile: RuntimeError: no compiler",
        "runtime(clip) p50 20 us",
        "worker p50 61 us, p95 90 us",
        "note: Measured on the CPU.",
        "280 to clips",
    ):
        assert part in shown


@pytest.mark.parametrize("print_", [report_text, readme_table])
@pytest.mark.parametrize(("samples", "needs"), [(60, {64, 130, 662}), (140, {662}), (680, set())])
def test_a_percentile_without_its_samples_is_not_printed(print_, samples, needs, make_report):
    shown = print_(make_report(samples))
    assert {n for n in (64, 130, 662) if f"(needs n={n})" in shown} == needs
    withheld = f"{np.percentile(np.linspace(4, 14, samples), 99):.2f}"
    assert (withheld in shown) == (662 not in needs)
    row = next(line for line in readme_table(make_report(samples)).splitlines() if line.startswith("| clip |"))
    assert (row.split(" | ")[-1] == "(needs n=662) |") == (662 in needs)


def test_a_worker_that_was_not_measured_is_not_spoken_of(make_report):
    report = make_report()
    assert "`stream.push` 15 µs, worker 61 µs; of the load" in readme_table(report)
    old = replace(report, wrapper=replace(report.wrapper, worker_p50_us=None, worker_p95_us=None))
    assert "`stream.push` 15 µs; of the load" in readme_table(old)
    assert "worker" not in report_text(old)


def test_the_table_replaces_what_stands_between_the_markers(tmp_path, make_report):
    readme = tmp_path / "README.md"
    before, after = "# Title\r\nälter Text \n", "\n\ntail without newline\x0c"
    readme.write_bytes(f"{before}{BEGIN}\nold table\n{END}{after}".encode())
    write_readme_table(make_report(), readme)
    new = readme.read_bytes().decode()
    assert new.startswith(before + BEGIN)
    assert new.endswith(END + after)
    assert "old table" not in new
    assert new == f"{before}{BEGIN}\n{readme_table(make_report())}{END}{after}"
    write_readme_table(make_report(), readme)
    assert readme.read_bytes().decode() == new


@pytest.mark.parametrize(
    "content", ["no markers", BEGIN, END, f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}", f"{BEGIN} {END} {END}"]
)
def test_without_its_markers_a_readme_is_left_alone(tmp_path, content, make_report):
    readme = tmp_path / "README.md"
    readme.write_text(content)
    with pytest.raises(BadInputError, match="once each"):
        write_readme_table(make_report(), readme)
    assert readme.read_text() == content


def test_no_readme(tmp_path, make_report):
    with pytest.raises(BadInputError, match="cannot be read"):
        write_readme_table(make_report(), tmp_path / "README.md")


def test_names_cannot_break_the_table_or_leave_the_markers(tmp_path, make_report):
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}{END}\nmine")
    hostile = make_report(name=f"a | b\n| c {END}", note=f"{END} x\n{BEGIN}")
    write_readme_table(hostile, readme)
    new = readme.read_text()
    assert new.count(BEGIN) == new.count(END) == 1
    assert new.endswith(f"{END}\nmine")
    assert "a \\| b \\| c " in new
    write_readme_table(make_report(), readme)  # still one pair of markers
    assert readme.read_text().endswith(f"{END}\nmine")


def test_no_table_is_made_of_an_unqualified_gpu_run(tmp_path, make_report):
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\n{END}")
    throttled = Qualification(False, ("gpu: throttled in 3 of 40 samples",), ())
    on_gpu = replace(make_report(device="Example GPU"), qualification=throttled)
    with pytest.raises(RefusedError, match=r"unqualified: gpu: throttled.*'clip'"):
        write_readme_table(on_gpu, readme)
    assert readme.read_text() == f"{BEGIN}\n{END}"
    write_readme_table(replace(on_gpu, qualification=Qualification(True, (), ("clocks",))), readme)
    assert "This run is qualified" in readme.read_text()
    # A CPU's table is written with its reasons beside it.
    write_readme_table(replace(make_report(), qualification=throttled), readme)
    assert "unqualified: gpu: throttled in 3 of 40 samples" in readme.read_text()


def test_a_cache_is_shouted_about(make_report):
    report = make_report()
    assert "3 runs of the graph for 3 answers" in report_text(report)
    assert "CACHE" not in report_text(report)
    assert "FROM A CACHE" in report_text(replace(report, cache=replace(report.cache, cached=True)))


def test_terminal_text_obeys_nobody(make_report):
    assert "\x1b" not in report_text(make_report(name="evil\x1b[2J"))
