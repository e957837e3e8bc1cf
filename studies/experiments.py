"""`python -m logoformer.studies.experiments`: figures of the demo and its machine.

Writes `benchmarks/results/experiments.json` and the table between the markers in README, from the JSON, never by hand.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..cli.terminal import Bar
from ..workflows.demo import DemoReport, demo
from .results import FOLDER, measured, show_results, write_results

RESULTS = FOLDER / "experiments.json"
SEEDS = (0,)


def demo_figures(report: DemoReport) -> dict[str, Any]:
    """The figures of one demo that do not depend on the machine's speed, and its training time."""
    f = report.figures
    orders = ("forward", "reversed", "shuffled")
    fp32, fp16 = f["export"]["precisions"]["fp32"]["parity"], f["export"]["precisions"]["fp16"]["parity"]
    return {
        "uar": {order: f["evaluate"][order]["uar"] for order in orders},
        "recalls": {order: list(f["evaluate"][order]["recalls"]) for order in orders},
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


def experiments_table(results: Mapping[str, Any]) -> str:
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
    """Runs the demo once for each seed and writes both files."""
    bar, runs = Bar(), []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            report = demo(Path(folder) / "demo", seed=seed, progress=bar, say=print)
        runs.append({"seed": seed, **demo_figures(report)})
    bar.clear()
    results = measured("make experiments", runs=runs)
    write_results(RESULTS, results)
    show_results(Path("README.md"), {"experiments": experiments_table(results)})
    print(experiments_table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
