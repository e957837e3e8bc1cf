"""The committed figures of faces: the page is printed from them, and they are the bars'."""

from __future__ import annotations

from pathlib import Path

import pytest
from logoformer.benchmarks.load.closed import LoadConfig
from logoformer.bundle.files import parse_json
from logoformer.studies.faces import STREETS, TITLES, faces_table

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def committed() -> dict:
    return parse_json((ROOT / "benchmarks/results/faces.json").read_bytes(), "faces.json")


def test_the_table_is_that_of_the_results(committed):
    text = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert text.split("<!-- faces:begin -->")[1].split("<!-- faces:end -->")[0].lstrip("\n") == faces_table(committed)


def test_a_frame_costs_what_was_promised(committed):
    """Measured by `python -m logoformer.studies.faces` and committed; no time is taken here."""
    cost = committed["cost"]["cpu"]
    assert committed["cost"]["threads"] == 1 and committed["machine"]["cpu"]
    assert cost["ratio"]["chain"]["high"] <= 20 and cost["p50_ms"]["chain"] <= 5.0
    assert cost["ratio"].keys() == TITLES.keys() == committed["cost"]["clock"]["ratio"].keys()


def test_found_faces_are_read_as_well_as_given_ones(committed):
    found = committed["accuracy"]
    assert found["streets"] == [list(street) for street in STREETS]
    assert found["spans"] == sum(7 * people for _, people in STREETS)
    assert found["uar"]["aligned"] >= found["uar"]["given"] - 0.05
    assert found["uar"]["aligned"] >= found["uar"]["square"]
    assert found["mixed"] == 0 and found["id_changes"] <= 1


def test_stages_are_timed_against_the_product():
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")
    from logoformer.studies.faces import stage_costs

    found = stage_costs(load=LoadConfig(rounds=8, block=1, settle=0, warmup=1))
    for clock in ("clock", "cpu"):
        assert found[clock]["ratio"].keys() == TITLES.keys()
        assert found[clock]["p50_ms"].keys() == {*TITLES, "product"}
        assert all(value > 0 for value in found[clock]["p50_ms"].values())
