"""The report's file: what was written comes back, and nothing else does."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.benchmarks.accuracy import Accuracy
from logoformer.benchmarks.machine import read_machine
from logoformer.benchmarks.overhead import WrapperCost
from logoformer.benchmarks.peers import Skipped
from logoformer.benchmarks.report import Comparison, Report, Row, Settings, Subject, read_report, write_report
from logoformer.benchmarks.statistics import Ratio, Summary
from logoformer.benchmarks.tables import markdown, text
from logoformer.errors import BadInputError, RefusedError
from logoformer.files import dump_json, parse_json


def make_report(samples=140, names=("clip", "stream"), **changes) -> Report:
    rng = np.random.default_rng(0)
    rows = []
    for name in names:
        ms = 5 + rng.gamma(2, 0.1, (20, samples // 20))
        blocks = tuple(tuple(map(float, block)) for block in ms)
        rows.append(
            Row(name, f"what {name} does", "fp32", Summary.of(ms), (("preprocess", 0.1), ("clip", 4.5)), blocks)
        )
    fields = {
        "created": "2026-01-02T03:04:05+00:00",
        "machine": read_machine(),
        "subject": Subject("face.bundle", "base", "fp32", "onnxruntime 1.2.3 CPU", {"clip": "ab" * 32}),
        "settings": Settings(2, 20, samples // 20, 2, 0.05, 10, 0, 8),
        "rows": tuple(rows),
        "skipped": (Skipped("torch.compile", "RuntimeError: no compiler"),),
        "comparisons": (Comparison("stream", "clip", Ratio(0.31, 0.3, 0.32), 0.02),),
        "accuracy": Accuracy(8, 1e-5, 2e-5, 1.0, 280, 0.0, 10, 1e-5),
        "wrapper": WrapperCost(1000, 20.0, 30.0, 15.0, 25.0),
        "harness_us": 0.13,
        "seconds": 12.5,
        "notes": ("Measured on the CPU.",),
    }
    return Report(**{**fields, **changes})


def test_round_trip(tmp_path):
    report = make_report()
    path = tmp_path / "report.json"
    write_report(report, path)
    assert read_report(path) == report
    assert path.read_bytes() == dump_json(read_report(path).to_json())
    assert json.loads(path.read_text())["schema_version"] == 1


def test_a_percentile_without_its_samples_is_not_in_the_file():
    summary = make_report(140).to_json()["rows"][0]["summary"]
    assert {item["percentile"] for item in summary["percentiles"]} == {50, 90, 95}
    assert [item[0] for item in summary["withheld"]] == [99.0, 99.9]


def test_no_path_of_the_machine_is_in_the_file(tmp_path):
    assert str(tmp_path.home()) not in json.dumps(make_report().to_json())


def test_missing_file(tmp_path):
    with pytest.raises(BadInputError, match="does not exist"):
        read_report(tmp_path / "report.json")


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"format": "logoformer-bundle", "schema_version": 1}', "{,"])
def test_what_is_no_report_is_refused(tmp_path, text):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(RefusedError):
        read_report(path)


@pytest.mark.parametrize("version", [0, 2, None, "1"])
def test_another_schema_is_refused(version):
    with pytest.raises(RefusedError, match="schema version"):
        Report.from_json({**make_report().to_json(), "schema_version": version}, "report.json")


def places(value, at=()):
    """Every place of a JSON tree, one element of each list."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*at, key)
            yield from places(item, (*at, key))
    elif isinstance(value, list) and value:
        yield (*at, 0)
        yield from places(value[0], (*at, 0))


WHOLE = parse_json(dump_json(make_report().to_json()), "report")
# Packages and graphs are maps of any names; everything else is a field.
FIELDS = [at for at in places(WHOLE) if isinstance(at[-1], str) and at[-2:-1] not in (("packages",), ("graphs",))]


@pytest.mark.parametrize("at", FIELDS, ids=str)
def test_a_missing_field_is_refused(at):
    data = copy.deepcopy(WHOLE)
    inner = data
    for key in at[:-1]:
        inner = inner[key]
    del inner[at[-1]]
    with pytest.raises(RefusedError):
        Report.from_json(data, "report.json")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_garbage_anywhere_is_refused_or_harmless(data):
    at = data.draw(st.sampled_from(list(places(WHOLE))))
    garbage = data.draw(st.sampled_from([None, True, -1, 1.5, "text", [], {}, ["x"], {"a": 1}, [[1]]]))
    tree = copy.deepcopy(WHOLE)
    inner = tree
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = garbage
    try:
        report = Report.from_json(tree, "report.json")
    except RefusedError:
        return
    assert text(report)
    assert markdown(report)
