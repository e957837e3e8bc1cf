"""`make experiments`: the demo with several seeds, its figures committed with the machine that gave them.

Writes `benchmarks/results/experiments.json` and the table between the markers in README, from the JSON, never by hand.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..benchmarks.report.readme import replace_between
from ..benchmarks.sensors.machine import read_machine
from ..bundle.files import dump_json, write_atomic
from ..cli.terminal import Bar
from ..workflows.demo import DemoReport, demo

RESULTS = Path("benchmarks/results/experiments.json")
MARKERS = ("<!-- experiments:begin -->", "<!-- experiments:end -->")
SEEDS = (0,)


def run(seeds: Sequence[int], bar: Bar) -> dict[str, Any]:
    """Runs the demo once for each seed; returns what is committed."""
    runs = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            report = demo(Path(folder) / "demo", seed=seed, progress=bar, say=print)
        runs.append({"seed": seed, **figures(report)})
    return {"command": "make experiments", "machine": asdict(read_machine()), "runs": runs}


def figures(report: DemoReport) -> dict[str, Any]:
    """The figures of one demo that do not depend on the machine's speed, and its training time."""
    f = report.figures
    fp32, fp16 = f["export"]["precisions"]["fp32"]["parity"], f["export"]["precisions"]["fp16"]["parity"]
    return {
        "uar": {order: f["evaluate"][order]["uar"] for order in ("forward", "reversed", "shuffled")},
        "recalls": {order: list(f["evaluate"][order]["recalls"]) for order in ("forward", "reversed", "shuffled")},
        "clips": f["evaluate"]["forward"]["clips"],
        "fp32_share": fp32["clip"]["share_of_clip_deviation"],
        "pair_share": fp32["pair"]["share_of_clip_deviation"],
        "fp16_share": fp16["pair"]["share_of_clip_deviation"],
        "stream_uar": f["run"]["stream_uar"],
        "naive_uar": f["run"]["naive_uar"],
        "spans": f["run"]["spans"],
        "train_s": f["train"]["duration_s"],
        "train_device": f["train"]["device"],
    }


def markdown(results: Mapping[str, Any]) -> str:
    """The table for README."""
    lines = [
        "| seed | UAR on unseen people (clips) | frames reversed | frames shuffled | FP16 off by | streamed spans |"
        " last frames only |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in results["runs"]:
        lines.append(
            f"| {r['seed']} | {r['uar']['forward']:.3f} ({r['clips']}) | {r['uar']['reversed']:.3f} "
            f"| {r['uar']['shuffled']:.3f} | {r['fp16_share']:.2%} | {r['stream_uar']:.3f} ({r['spans']}) "
            f"| {r['naive_uar']:.3f} |"
        )
    lines.append("")
    lines.append(
        "`tiny`, chance 0.143; 'off by' is a share of the logits' deviation between clips. `make experiments`."
    )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs everything and writes both files."""
    bar = Bar()
    results = run(SEEDS, bar)
    bar.clear()
    write_atomic(RESULTS, dump_json(results))
    replace_between(Path("README.md"), *MARKERS, markdown(results))
    print(markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
