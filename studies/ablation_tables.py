"""Tables of `docs/experiments.md` from `benchmarks/results/ablations.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

GROUPS = {
    "compact": ("logo, cross-entropy", "logo, weight 0.3", "logo"),
    "schemes": ("logo", "joint", "space", "divided", "mixing", "lgi"),
    "blocks": ("N = 1", "logo", "N = 4"),
    "heads": ("1 head", "logo", "8 heads"),
}
# (variant, the one it is compared with, figure): what the paper claims, seed by seed.
CLAIMS = (
    ("logo", "logo, cross-entropy", "spread"),
    ("logo, weight 0.3", "logo, cross-entropy", "spread"),
    ("logo", "logo, cross-entropy", "uar"),
    ("logo", "space", "uar"),
    ("logo", "space", "order_recall"),
)
FIGURES = ("final_loss", "uar", "war", "order_recall", "uar_reversed", "spread")
NAMES = {"spread": "intra / inter distance", "uar": "UAR", "order_recall": "recall of the time-order classes"}
# Student's t, two-sided 95 %, by degrees of freedom.
_T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


@dataclass(frozen=True)
class Difference:
    """A figure of one variant less that of another, seed by seed.

    Attributes:
        mean: of the differences.
        low, high: 95 % interval by Student's t; it knows of other seeds, not of other faces.
        each: the differences.
    """

    mean: float
    low: float
    high: float
    each: tuple[float, ...]


def difference(results: Mapping[str, Any], variant: str, other: str, figure: str) -> Difference | None:
    """The paired difference over the seeds that both have; None with fewer than two."""
    ours, theirs = ({run["seed"]: float(run[figure]) for run in _runs(results, name)} for name in (variant, other))
    each = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    if len(each) < 2:
        return None
    mean = float(np.mean(each))
    reach = _T95[len(each) - 1] * float(np.std(each, ddof=1)) / len(each) ** 0.5
    return Difference(mean, mean - reach, mean + reach, tuple(each))


def group_table(results: Mapping[str, Any], names: Sequence[str]) -> str:
    """One row for each variant: means over its seeds, and the range where there are several."""
    lines = [
        "| | seeds | last loss | UAR | WAR | time-order classes | reversed, UAR | intra / inter distance | M MACs |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in names:
        runs = _runs(results, name)
        if runs:
            shown = [_spread(runs, figure) for figure in FIGURES]
            lines.append(f"| {name} | {len(runs)} | {' | '.join(shown)} | {runs[0]['macs'] / 1e6:.1f} |")
    return "\n".join(lines) + "\n"


def claims_table(results: Mapping[str, Any]) -> str:
    """One row for each claim that both variants have two seeds of."""
    lines = ["| figure | of | less that of | difference | 95 % interval | seed by seed |", "|---|---|---|---:|---|---|"]
    for variant, other, figure in CLAIMS:
        found = difference(results, variant, other, figure)
        if found is not None:
            each = ", ".join(f"{d:+.3f}" for d in found.each)
            interval = f"[{found.low:+.3f}, {found.high:+.3f}]"
            lines.append(f"| {NAMES[figure]} | {variant} | {other} | {found.mean:+.3f} | {interval} | {each} |")
    return "\n".join(lines) + "\n"


def about(results: Mapping[str, Any]) -> str:
    """The command, the settings and the machines."""
    runs = [run for name in results["variants"] for run in _runs(results, name)]
    machines = ", ".join(sorted({run["machine"] for run in runs}))
    steps = ", ".join(str(n) for n in sorted({run["steps"] for run in runs}))
    compact = results["variants"]["logo"]["compact"]
    return (
        f"`{results['command']}`: preset `{results['preset']}`, recipe `{results['recipe']}`, {steps} steps, weight of "
        f"the compact loss {compact:g}, {runs[0]['clips']} held-out clips of people that no training saw, "
        f"{len(runs)} trainings. {machines}.\n"
    )


def ablation_tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Each table by its marker's name."""
    grouped = {name: group_table(results, names) for name, names in GROUPS.items()}
    return {**grouped, "claims": claims_table(results), "about": about(results)}


def _runs(results: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = results.get("runs", {}).get(name, [])
    return found


def _spread(runs: Sequence[Mapping[str, Any]], figure: str) -> str:
    values = [float(run[figure]) for run in runs]
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} … {max(values):.3f})"
