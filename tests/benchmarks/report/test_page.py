"""The page as text: one file, nothing to load, every text escaped, every picture with its table."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.benchmarks.report import svg
from logoformer.benchmarks.report.figures import histogram_figure, side_by_side_figure, stages_figure, time_figure
from logoformer.benchmarks.report.page import html, page_figures, write_both
from logoformer.benchmarks.report.records import Series
from logoformer.benchmarks.report.report import read_report
from logoformer.errors import MachineError

VOID = {"meta", "rect", "line", "path", "circle"}


class Checker(HTMLParser):
    """Collects tags, attributes and text, and whether elements close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.open, self.text, self.wrong = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID or not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)
        if tag == "meta":
            self.open.pop()

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.text.append(data)


def test_it_is_one_file_that_loads_nothing(made):
    page = Checker(html(made.report()))
    assert page.open == [] and page.wrong == []
    assert not {"script", "img", "link", "iframe", "object", "form", "a", "image", "use"} & set(page.tags)
    names = [name for name, _ in page.attributes]
    assert not [name for name in names if name.startswith("on") or name in ("src", "href", "style", "xlink:href")]
    style = re.search(r"<style>(.*?)</style>", html(made.report()), re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style
    assert ("http-equiv", "Content-Security-Policy") in page.attributes
    assert ("lang", "en") in page.attributes
    assert "prefers-color-scheme: dark" in style


def test_every_picture_has_a_name_a_description_and_a_table(made):
    report = made.report()
    text = html(report)
    page = Checker(text)
    shown = list(page_figures(report))
    assert len(shown) == page.tags.count("svg") == text.count('role="img"') >= 7
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for labelled in (value for name, value in page.attributes if name == "aria-labelledby"):
        assert set(labelled.split()) <= set(ids)
    for figure in shown:
        assert figure.rows and all(len(row) == len(figure.head) for row in figure.rows), figure.title
        assert figure.text


@settings(max_examples=20, deadline=None)
@given(text=st.text(max_size=60))
def test_no_text_of_a_report_becomes_markup(made, text):
    hostile = text + "</svg></style><script>x</script><!--\"'&"
    row = made.row(hostile, what=hostile)
    report = made.report((row, made.row("stream")), notes=(hostile,))
    report = replace(report, subject=replace(report.subject, bundle=hostile))
    page = Checker(html(report))
    plain = Checker(html(made.report((made.row("x"), made.row("stream")), notes=("x",))))
    assert page.wrong == [] and page.open == []
    assert sorted(set(page.tags)) == sorted(set(plain.tags))
    assert len(page.tags) <= len(plain.tags) + 40  # a text that was cut off is told whole in a <title>


def test_figures_stand_in_it(made):
    text = html(made.report())
    row = made.row("clip")
    assert svg.number(row.summary.at(50).value_ms) + " ms" in text
    assert "needs n=662" in text  # what too few samples stand behind is not printed
    assert "unqualified" in text and "load average 1.90 on 2 CPUs before the run" in text
    assert "computed from documents, not measured" in text
    assert "torch.compile" in text and "no compiler" in text


def test_without_optional_parts_it_is_still_whole(made):
    nothing = dict.fromkeys(("comparisons", "accuracy", "skipped", "notes", "idle_gaps", "trtexec"), ())
    nothing |= dict.fromkeys(("roofline", "cold", "cache"))
    report = made.report((made.row("clip", stages_p50_ms=()),), **nothing)
    page = Checker(html(report))
    assert page.wrong == [] and page.open == []
    assert [figure.title for figure in page_figures(report)] == ["Latencies of clip", "Latency over time"]


# --------------------------------------------------------------------------------------------------------------- charts
def heights(picture: str, kind: str = "height") -> list[float]:
    return [float(found) for found in re.findall(rf'<rect [^>]*?\b{kind}="([\d.]+)"', picture)]


def test_bars_of_the_histogram_hold_every_answer(made):
    row = made.row("clip")
    told = re.findall(r"<title>(\d+) answers from", histogram_figure(row, "h", 0).picture)
    assert sum(map(int, told)) == row.summary.n


def test_a_series_without_spread_is_drawn(made):
    import numpy as np

    row = made.row("clip", np.full((20, 7), 5.0))
    assert "nan" not in histogram_figure(row, "h", 0).picture
    flat = Series("t", "temperature", "C", "x", (0.0, 1.0), (50.0, 50.0))
    assert "nan" not in time_figure([row], [flat]).picture


def test_stages_stand_one_after_the_other(made):
    figure = stages_figure([made.row("clip", stages_p50_ms=(("a", 1.0), ("b", 3.0)))])
    bars = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="12"', figure.picture)
    (x1, w1), (x2, w2) = ((float(x), float(w)) for x, w in bars)
    assert x2 == pytest.approx(x1 + w1, abs=0.1)
    assert w2 == pytest.approx(3 * w1, rel=0.02)
    assert figure.rows[1][1:] == ("3", "75.0 %")


def test_the_fastest_stands_first_and_ours_is_blue(made):
    rows = (made.row("torch", made.latencies(2, base=8.0)), made.row("clip"))
    figure = side_by_side_figure(rows, (), ["clip"])
    assert figure.picture.index("clip (fp32") < figure.picture.index("torch (fp32")
    assert figure.picture.index("fill s0") < figure.picture.index("fill s1")


def test_sensors_of_three_kinds_have_panels(made):
    def sensor(name, kind):
        return Series(name, kind, "u", "x", (0.0, 0.5, 1.0), (1.0, 2.0, 3.0))

    everything = [sensor("t", "temperature"), sensor("c", "clock"), sensor("p", "power"), sensor("s", "steal")]
    figure = time_figure([made.row("clip")], everything)
    assert [row[0] for row in figure.rows] == ["clip", "t", "c", "p"]
    assert "No sensor" in time_figure([made.row("clip")], []).text


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-6, 1e9))
def test_ticks_are_round_and_inside(low, span):
    high = low + span
    ticks = svg.round_ticks(low, high)
    assert len(ticks) <= 12
    slack = span * 1e-6 + abs(low) * 1e-9  # of double precision
    assert all(low - slack <= tick <= high + slack for tick in ticks)


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_a_logarithmic_scale_keeps_order_and_distance(values):
    scale = svg.logarithmic(values, 10, 390)
    places = [scale(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(10 <= place <= 390 for place in places)


# ---------------------------------------------------------------------------------------------------------------- files
def test_both_files_are_written(made, tmp_path):
    report = made.report()
    assert write_both(report, tmp_path / "new") == (tmp_path / "new/report.json", tmp_path / "new/report.html")
    assert write_both(report, tmp_path / "x.json") == (tmp_path / "x.json", tmp_path / "x.html")
    assert read_report(tmp_path / "x.json") == report
    assert (tmp_path / "x.html").read_text() == html(report)
    json.loads((tmp_path / "new/report.json").read_bytes())


def test_a_folder_that_may_not_be_written_is_an_error_of_the_machine(made, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError):
        write_both(made.report(), tmp_path / "file" / "below")
