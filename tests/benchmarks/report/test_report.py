"""The report's file: what was written comes back, and nothing else does."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.benchmarks.report.readme import readme_table
from logoformer.benchmarks.report.records import Qualification
from logoformer.benchmarks.report.report import Report, read_report, write_report
from logoformer.benchmarks.report.terminal import report_text
from logoformer.bundle.files import dump_json, parse_json
from logoformer.errors import BadInputError, RefusedError


@pytest.fixture(scope="module")
def whole(made):
    """A report as parsed JSON."""
    return parse_json(dump_json(made.report().to_json()), "report")


def test_round_trip(tmp_path, made):
    report = made.report()
    path = tmp_path / "report.json"
    write_report(report, path)
    assert read_report(path) == report
    assert path.read_bytes() == dump_json(read_report(path).to_json())
    assert json.loads(path.read_text())["schema_version"] == 3


def test_a_percentile_without_its_samples_is_not_in_the_file(made):
    summary = made.report().to_json()["rows"][0]["summary"]
    assert {item["percentile"] for item in summary["percentiles"]} == {50, 90, 95}
    assert [item[0] for item in summary["withheld"]] == [99.0, 99.9]


def test_no_path_of_the_machine_is_in_the_file(tmp_path, made):
    assert str(tmp_path.home()) not in json.dumps(made.report().to_json())


def test_missing_file(tmp_path):
    with pytest.raises(BadInputError, match="does not exist"):
        read_report(tmp_path / "report.json")


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"format": "logoformer-bundle", "schema_version": 1}', "{,"])
def test_what_is_no_report_is_refused(tmp_path, text):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(RefusedError):
        read_report(path)


@pytest.mark.parametrize("what", ["PNG", "MP4", "web page", "empty"])
def test_another_kind_of_file_is_named_whatever_its_size(tmp_path, what, fails):
    heads = {"PNG": b"\x89PNG\r\n\x1a\n", "MP4": bytes(4) + b"ftypisom" + bytes(33 << 20), "web page": b"<html>"}
    path = tmp_path / "a.mp4"
    path.write_bytes(heads.get(what, b""))
    text = fails(4, "bench-compare", path, path, names=(path, "is no report of logoformer bench", what))
    assert "hostile" not in text and "Next: logoformer bench BUNDLE" in text


@pytest.mark.parametrize("version", [0, 1, 2, 4, None, "3", True, 3.5])
def test_another_schema_is_refused(version, made):
    with pytest.raises(RefusedError, match="schema version"):
        Report.from_json({**made.report().to_json(), "schema_version": version}, "report.json")


def places(value, at=()):
    """Every place of a JSON tree, one element of each list."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*at, key)
            yield from places(item, (*at, key))
    elif isinstance(value, list) and value:
        yield (*at, 0)
        yield from places(value[0], (*at, 0))


def changed(tree, at, change):
    """A copy of the tree in which `change(container, key)` was done at one place."""
    copied = copy.deepcopy(tree)
    inner = copied
    for key in at[:-1]:
        inner = inner[key]
    change(inner, at[-1])
    return copied


def test_every_missing_or_added_field_is_refused(whole):
    maps = ("packages", "graphs", "facts", "macs", "peak_tops")  # of any names; everything else is a field
    fields = [at for at in places(whole) if isinstance(at[-1], str) and at[-2:-1] not in [(name,) for name in maps]]
    assert len(fields) > 120
    for at in fields:
        with pytest.raises(RefusedError):
            Report.from_json(changed(whole, at, lambda inner, key: inner.pop(key)), "report.json")
        if at[-1] not in ("format", "schema_version"):
            with pytest.raises(RefusedError):
                Report.from_json(changed(whole, at, lambda inner, key: inner.update(more=1)), "report.json")


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_garbage_anywhere_is_refused_or_harmless(data, whole):
    at = data.draw(st.sampled_from(list(places(whole))))
    garbage = data.draw(st.sampled_from([None, True, -1, 1.5, "text", [], {}, ["x"], {"a": 1}, [[1]]]))
    tree = changed(whole, at, lambda inner, key: inner.__setitem__(key, garbage))
    try:
        report = Report.from_json(tree, "report.json")
    except RefusedError:
        return
    assert report_text(report)
    assert readme_table(report)


def test_a_row_of_the_cpu_has_no_device_time(whole, made):
    doctored = changed(whole, ("rows", 0, "device_ms"), lambda row, key: row.update({key: row["summary"]}))
    with pytest.raises(RefusedError, match="ran on the CPU"):
        Report.from_json(doctored, "report.json")
    with pytest.raises(ValueError, match="ran on the CPU"):
        made.row(device_ms=made.row().summary)


def test_a_verdict_cannot_contradict_its_reasons(whole):
    with pytest.raises(ValueError, match="no reason"):
        Qualification(True, ("throttled",), ())
    doctored = changed(whole, ("qualification", "qualified"), lambda inner, key: inner.update({key: True}))
    with pytest.raises(RefusedError, match="no reason"):
        Report.from_json(doctored, "report.json")


@pytest.mark.parametrize(("field", "value"), [("mode", "imagined"), ("at_s", ((0.0,),))])
def test_a_row_that_contradicts_itself_is_refused(made, field, value):
    with pytest.raises(ValueError):
        made.row(**{field: value})


@pytest.mark.parametrize("latency", [0.0, -5.0, 1e-320, 1e308])
def test_a_latency_that_no_clock_can_have_measured_is_refused(whole, latency):
    place = ("rows", 0, "latency_ms")
    doctored = changed(whole, place, lambda row, key: row[key][0].__setitem__(0, latency))
    with pytest.raises(RefusedError, match="no clock"):
        Report.from_json(doctored, "report.json")


def test_a_row_that_stands_twice_is_refused(whole):
    doctored = changed(whole, ("rows",), lambda report, key: report[key].append(report[key][0]))
    with pytest.raises(RefusedError, match="stands twice"):
        Report.from_json(doctored, "report.json")
