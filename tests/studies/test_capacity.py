"""Devices for a number of faces, and the page that shows them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from logoformer.benchmarks.roofline.devices import Device
from logoformer.bundle.files import parse_json
from logoformer.errors import UsageError
from logoformer.studies.results import read_results
from logoformer.studies.serving.capacity import (
    FULL,
    PAGE,
    RESULTS,
    FaceCost,
    capacity_texts,
    devices_needed,
    face_costs,
    faces_served,
    floor_cost,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def in_the_clone(monkeypatch):
    monkeypatch.chdir(ROOT)


def between(page: str, name: str) -> str:
    return page.split(f"<!-- {name}:begin -->\n")[1].split(f"<!-- {name}:end -->")[0]


def test_the_page_is_printed_from_the_committed_figures():
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    for name, text in capacity_texts(read_results(ROOT / RESULTS)).items():
        assert between(page, name) == text, name


def test_the_committed_fleets_lost_no_frame_uncounted():
    for run in read_results(ROOT / RESULTS)["fleets"]:
        assert run["frames"] == run["worked"] + run["dropped"], run["fails"]
        assert run["answers"] <= run["due"]


def test_devices_are_the_busy_time_over_what_one_may_give():
    cost = FaceCost("it", "fp16", 1.0, 8.0, False)
    assert cost.busy_ms(4) == 3.0
    # 25 frames a second of 3 ms: 75 ms of each second, and 900 of 1000 may be used.
    assert faces_served(25.0, 4, cost) == 12
    assert [devices_needed(faces, 25.0, 4, cost) for faces in (1, 12, 13, 24, 25)] == [1, 1, 2, 2, 3]
    for faces in (5, 77, 1000):
        needed = devices_needed(faces, 25.0, 4, cost)
        assert (needed - 1) * faces_served(25.0, 4, cost) < faces <= math.ceil(needed * 12)
    with pytest.raises(UsageError):
        devices_needed(0, 25.0, 4, cost)


def test_a_floor_is_the_larger_of_products_and_bytes():
    works = {
        "frame": {"macs": {"fp32": 10**9}, "compulsory_bytes": 4 * 10**6},
        "temporal": {"macs": {"fp32": 10**6}, "compulsory_bytes": 4 * 10**9},
    }
    device = Device("it", 1000.0, {"fp32": 1.0, "fp16": 2.0})
    cost = floor_cost(device, "fp16", works)
    assert cost is not None and not cost.measured
    assert cost.frame_ms == pytest.approx(1.0) and cost.answer_ms == pytest.approx(2.0)  # 2e9 / 2e12, 2e9 B / 1e12 B/s
    assert floor_cost(device, "int8", works) is None


def test_measured_rows_are_slower_than_the_floor_of_the_same_machine_and_say_so():
    costs = face_costs()
    measured = [cost for cost in costs if cost.measured]
    cpu = parse_json((ROOT / "benchmarks/results/cpu-base.json").read_bytes(), "cpu-base", max_bytes=32 << 20)
    stages = dict(next(row for row in cpu["rows"] if row["name"] == "stream")["stages_p50_ms"])
    assert measured[-1].answer_ms == stages["temporal"] and "cores" in measured[-1].device
    assert {cost.precision for cost in costs} == {"fp32", "fp16", "int8"} and len(costs) > 15
    for cost in costs:
        assert 0 < cost.frame_ms < cost.answer_ms < 100


def test_the_calculator_has_the_figures_of_the_table():
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    data = json.loads(between(page, "costs").split(">", 1)[1].rsplit("</script>", 1)[0])
    assert data["full"] == FULL
    assert [one["device"] for one in data["costs"]] == [cost.device for cost in face_costs()]
    table = between(page, "served")
    for one in data["costs"]:
        assert f"| {one['device']} | {one['precision']} | {'measured' if one['measured'] else 'computed'} |" in table
    assert "at least" in table and "at most" in table
