"""`python -m logoformer.studies.serving.capacity`: machines for a number of faces.

Prints docs/capacity.md: what one device can serve at most, computed from multiply-accumulates and documented peaks or,
where there are any, from measured field kits; the figures of the page's calculator; and fleets in simulated time
(`fleet.py`), which go to `benchmarks/results/capacity.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...benchmarks.baselines.contract import STREAM
from ...benchmarks.report.report import Report
from ...benchmarks.roofline.devices import DEVICES, Device
from ...bundle import Bundle
from ...bundle.files import parse_json
from ...cli.terminal import Bar
from ...errors import UsageError
from ..field import KITS, MAX_BYTES
from ..results import FOLDER, measured, read_results, show_results, write_results
from .fleet import due_answers, export_fleet, simulate
from .simulated import FleetConfig, Outage

RESULTS, PAGE = FOLDER / "capacity.json", Path("docs/capacity.md")
CPU_RESULTS = FOLDER / "cpu-base.json"
COMMAND = "python -m logoformer.studies.serving.capacity"
FULL = 0.9  # of its time that a device may be busy; above it frames wait in line
FPS, HOP, FACES = 25.0, 4, 200  # of the page's table
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}  # of a weight
PLACES = 32  # faces of a simulated host


@dataclass(frozen=True)
class FaceCost:
    """What `base` costs on a device.

    Attributes:
        device: its name.
        precision: of the graphs.
        frame_ms: of a frame.
        answer_ms: of an answer, beside its frame.
        measured: by a benchmark; else computed, and no run can be faster.
    """

    device: str
    precision: str
    frame_ms: float
    answer_ms: float
    measured: bool

    def busy_ms(self, hop: int) -> float:
        """Of one frame, with its share of an answer."""
        return self.frame_ms + self.answer_ms / hop


def devices_needed(faces: int, fps: float, hop: int, cost: FaceCost) -> int:
    """Devices for a number of faces.

    Raises:
        UsageError: a number that is not above 0.
    """
    if min(faces, fps, hop) <= 0:
        raise UsageError("Faces, frames a second and hop are more than 0.")
    return max(1, math.ceil(faces * fps * cost.busy_ms(hop) / 1e3 / FULL - 1e-9))


def faces_served(fps: float, hop: int, cost: FaceCost) -> int:
    """Faces that one device can serve."""
    return math.floor(FULL * 1e3 / (fps * cost.busy_ms(hop)) + 1e-9)


def floor_cost(device: Device, precision: str, works: dict[str, Any]) -> FaceCost | None:
    """The least that `base` can cost on a device, or None where its peaks are not documented.

    Every product is taken to run at this precision, and weights to come from memory once: a lower bound.
    """
    peak, memory_gb_s = device.peak_tops.get(precision), device.memory_gb_s
    if peak is None or memory_gb_s is None:
        return None
    times_ms = {}
    for graph in ("frame", "temporal"):
        work = works[graph]
        compute_ms = 2 * sum(work["macs"].values()) / peak / 1e9
        # The counted bytes are those of FP32; what else than weights is among them is not larger in a narrower type.
        memory_ms = work["compulsory_bytes"] * BYTES[precision] / BYTES["fp32"] / memory_gb_s / 1e6
        times_ms[graph] = max(compute_ms, memory_ms)
    return FaceCost(device.name, precision, times_ms["frame"], times_ms["temporal"], False)


def face_costs(kits: Path = KITS) -> list[FaceCost]:
    """Measured costs first, then the floors of every documented device."""
    cpu: dict[str, Any] = parse_json(CPU_RESULTS.read_bytes(), CPU_RESULTS.name, max_bytes=MAX_BYTES)
    works = {work["graph"]: work for work in cpu["roofline"]["works"] if work["precision"] == "fp32"}
    shares = {graph: sum(work["macs"].values()) for graph, work in works.items()}
    share = shares["frame"] / (shares["frame"] + shares["temporal"])
    cores = cpu["machine"]["usable_cpus"]
    found = [*_kit_costs(kits, share), *_row_costs(f"{cpu['machine']['cpu']}, {cores} cores", cpu["rows"])]
    computed = [floor_cost(device, precision, works) for device in DEVICES for precision in BYTES]
    return found + [cost for cost in computed if cost is not None]


def _kit_costs(kits: Path, share: float) -> list[FaceCost]:
    """Of the kits that came from people with cards.

    A card works on a frame while the host goes on, so the two times are known together; `share` of them is the frame's.
    """
    found = []
    for path in sorted(kits.glob("*.json")):
        kept = parse_json(path.read_bytes(), path.name, max_bytes=MAX_BYTES)
        for step in kept["kit"]["steps"]:
            if step["name"] == "bench-closed" and step["result"]:
                report = Report.from_json(kept["results"][step["result"]], path.name)
                for cost in _row_costs(kept["kit"]["gpu"]["name"], [asdict(row) for row in report.rows]):
                    both_ms = cost.frame_ms + cost.answer_ms
                    found.append(replace(cost, frame_ms=share * both_ms, answer_ms=(1 - share) * both_ms))
    return found


def _row_costs(device: str, rows: Sequence[dict[str, Any]]) -> list[FaceCost]:
    """Of a report's streamed answers: the medians of their stages."""
    found = []
    for row in rows:
        stages = dict(row["stages_p50_ms"])
        if row["name"] == STREAM and {"frame", "temporal"} <= set(stages):
            before_ms = stages.get("preprocess", 0.0)
            found.append(FaceCost(device, row["precision"], before_ms + stages["frame"], stages["temporal"], True))
    return found


# --------------------------------------------------------------------------------------------------------------- fleets
def scenarios() -> list[tuple[str, FleetConfig]]:
    """(what fails, fleet): more and more cameras, then failures."""
    plain = FleetConfig(cameras=16, hosts=2)
    carried = replace(plain, cameras=24)
    return [
        *(("", replace(plain, cameras=cameras)) for cameras in (16, 28, 32, 40, 56)),
        ("one host, for 1 s", replace(carried, outages=(Outage(0, 15.0, 16.0),))),
        ("one host, for 10 s", replace(carried, outages=(Outage(0, 15.0, 25.0),))),
        ("each host, for 8 s", replace(carried, outages=(Outage(0, 10.0, 18.0), Outage(1, 25.0, 33.0)))),
        ("one host, for 1 s", replace(plain, cameras=30, outages=(Outage(0, 15.0, 16.0),))),
    ]


def run_fleets(bundle: Bundle, bar: Bar) -> list[dict[str, Any]]:
    """Every scenario, with the answers that were due."""
    found = []
    configs = scenarios()
    due_of = due_answers(bundle, max((config for _, config in configs), key=lambda config: config.cameras))
    for number, (fails, config) in enumerate(configs):
        bar("fleets", number, len(configs))
        run = simulate(bundle, config)
        counts = {"due": sum(due_of[: config.cameras]), "answers": run.answers}
        found.append({"fails": fails, "config": asdict(config), "load": config.load, **counts, **asdict(run)})
    return found


# ----------------------------------------------------------------------------------------------------------------- page
def capacity_texts(fleets: dict[str, Any]) -> dict[str, str]:
    """The texts between the markers of the page."""
    return {"served": _served_table(), "costs": _costs_script(), "fleets": _fleets_table(fleets)}


def _served_table() -> str:
    lines = [
        f"| device | precision | how | a frame | an answer | faces on one | devices for {FACES} faces |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for cost in face_costs():
        how, most, least = ("measured", "", "") if cost.measured else ("computed", "at most ", "at least ")
        lines.append(
            f"| {cost.device} | {cost.precision} | {how} | {cost.frame_ms:.3f} ms | {cost.answer_ms:.3f} ms "
            f"| {most}{faces_served(FPS, HOP, cost)} | {least}{devices_needed(FACES, FPS, HOP, cost)} |"
        )
    return "\n".join(lines) + "\n"


def _costs_script() -> str:
    costs = [asdict(cost) for cost in face_costs()]
    for cost in costs:
        cost["frame_ms"], cost["answer_ms"] = round(cost["frame_ms"], 6), round(cost["answer_ms"], 6)
    data = json.dumps({"full": FULL, "costs": costs})
    return f'<script type="application/json" id="costs">{data}</script>\n'


def _fleets_table(found: dict[str, Any]) -> str:
    if not found:
        return "Not simulated yet.\n"
    lines = [
        "| cameras, hosts | what fails | load | frames dropped | answers lost | hop at the end | age p50 | p99 "
        "| longest | opened anew |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for run in found["fleets"]:
        config = run["config"]
        lines.append(
            f"| {config['cameras']}, {config['hosts']} | {run['fails'] or 'nothing'} | {run['load']:.0%} "
            f"| {run['dropped'] / run['frames']:.1%} | {1 - run['answers'] / run['due']:.1%} | {run['hop']} "
            f"| {run['age_p50_ms']:.0f} ms | {run['age_p99_ms']:.0f} ms | {run['age_max_ms'] / 1e3:.2f} s "
            f"| {run['reopened']} |"
        )
    first = found["fleets"][0]["config"]
    note = (
        f"{first['seconds']:g} s, one face a camera, {first['fps']:g} frames a second, hop {first['hop']}; given: "
        f"{first['frame_ms']:g} ms a frame, {first['answer_ms']:g} ms an answer, {first['trip_ms']:g} ms of network. "
        "Each frame that came was worked off or was dropped and counted: "
        f"{_sum(found, 'frames')} = {_sum(found, 'worked')} + {_sum(found, 'dropped')}. `{found['command']}`"
    )
    return "\n".join([*lines, "", note]) + "\n"


def _sum(found: dict[str, Any], name: str) -> int:
    return sum(int(run[name]) for run in found["fleets"])


def main(words: Sequence[str] | None = None) -> int:
    """Simulates, writes the file and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", action="store_true", help="simulate nothing: print the page from the file")
    a = parser.parse_args(words)
    bar = Bar()
    if not a.show:
        found = measured(COMMAND)
        with tempfile.TemporaryDirectory() as name:
            found["fleets"] = run_fleets(export_fleet(Path(name), PLACES), bar)
        write_results(RESULTS, found)
    show_results(PAGE, capacity_texts(read_results(RESULTS)))
    bar.clear()
    print(f"{RESULTS} and {PAGE}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
