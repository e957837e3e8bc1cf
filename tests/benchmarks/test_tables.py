"""The report as text, and the table between the markers of README."""

from __future__ import annotations

import numpy as np
import pytest
from logoformer.benchmarks.accuracy import Accuracy
from logoformer.benchmarks.machine import read_machine
from logoformer.benchmarks.overhead import WrapperCost
from logoformer.benchmarks.peers import Skipped
from logoformer.benchmarks.report import Comparison, Report, Row, Settings, Subject
from logoformer.benchmarks.statistics import Ratio, Summary
from logoformer.benchmarks.tables import BEGIN, END, markdown, text, write_readme_table
from logoformer.errors import BadInputError


def make_report(samples=140, name="clip", note="Measured on the CPU.") -> Report:
    ms = np.linspace(4, 14, samples).reshape(20, -1)
    row = Row(name, "engine(clip)", "fp32", Summary.of(ms), (("preprocess", 0.125), ("clip", 4.5)), ())
    return Report(
        created="2026-01-02T03:04:05+00:00",
        machine=read_machine(),
        subject=Subject("face.bundle", "base", "fp32", "onnxruntime 1.2.3 CPU", {}),
        settings=Settings(2, 20, samples // 20, 2, 0.05, 10, 0, 8),
        rows=(row,),
        skipped=(Skipped("torch.compile", "no compiler"),),
        comparisons=(Comparison("stream", "clip", Ratio(0.31, 0.3, 0.32), 0.021),),
        accuracy=Accuracy(8, 1e-5, 2e-5, 1.0, 280, 0.0, 10, 1e-5),
        wrapper=WrapperCost(1000, 20.4, 30.0, 15.0, 25.0),
        harness_us=0.13,
        seconds=12.5,
        notes=(note,),
    )


def test_text_says_what_a_reader_needs():
    shown = text(make_report())
    for part in (
        "face.bundle (base, fp32) on onnxruntime 1.2.3 CPU",
        "20 rounds x 7 steps",
        "9.000 (",  # the median of 4..14
        "preprocess 0.125",
        "stream / clip  0.310  [0.300, 0.320]  A/A ±2.1 %",
        "skipped: torch.compile: no compiler",
        "engine(clip) p50 20 us",
        "note: Measured on the CPU.",
        "280 to clips",
    ):
        assert part in shown


@pytest.mark.parametrize("print_", [text, markdown])
@pytest.mark.parametrize(("samples", "needs"), [(60, {64, 130, 662}), (140, {662}), (680, set())])
def test_a_percentile_without_its_samples_is_not_printed(print_, samples, needs):
    shown = print_(make_report(samples))
    assert {n for n in (64, 130, 662) if f"(needs n={n})" in shown} == needs
    withheld = f"{np.percentile(np.linspace(4, 14, samples), 99):.2f}"
    assert (withheld in shown) == (662 not in needs)
    row = next(line for line in markdown(make_report(samples)).splitlines() if line.startswith("| clip |"))
    assert (row.split(" | ")[-1] == "(needs n=662) |") == (662 in needs)


def test_the_table_replaces_what_stands_between_the_markers(tmp_path):
    readme = tmp_path / "README.md"
    before, after = "# Title\r\nälter Text \n", "\n\ntail without newline\x0c"
    readme.write_bytes(f"{before}{BEGIN}\nold table\n{END}{after}".encode())
    write_readme_table(make_report(), readme)
    new = readme.read_bytes().decode()
    assert new.startswith(before + BEGIN)
    assert new.endswith(END + after)
    assert "old table" not in new
    assert new == f"{before}{BEGIN}\n{markdown(make_report())}{END}{after}"
    write_readme_table(make_report(), readme)
    assert readme.read_bytes().decode() == new


@pytest.mark.parametrize(
    "content", ["no markers", BEGIN, END, f"{END} {BEGIN}", f"{BEGIN} {BEGIN} {END}", f"{BEGIN} {END} {END}"]
)
def test_without_its_markers_a_readme_is_left_alone(tmp_path, content):
    readme = tmp_path / "README.md"
    readme.write_text(content)
    with pytest.raises(BadInputError, match="once each"):
        write_readme_table(make_report(), readme)
    assert readme.read_text() == content


def test_no_readme(tmp_path):
    with pytest.raises(BadInputError, match="cannot be read"):
        write_readme_table(make_report(), tmp_path / "README.md")


def test_names_cannot_break_the_table_or_leave_the_markers(tmp_path):
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


def test_terminal_text_obeys_nobody():
    assert "\x1b" not in text(make_report(name="evil\x1b[2J"))
