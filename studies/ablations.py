"""`python -m logoformer.studies.ablations`: the published ablations on synthetic faces.

Trains `tiny` in variants that differ in one thing each: the compact loss, the attention scheme, the number of blocks,
the number of heads. Writes `benchmarks/results/ablations.json`, one entry for each variant and seed as it comes, so
that an interrupted run goes on where it was (delete the file to begin anew); then the pictures and the tables of
`docs/experiments.md`.

Every variant sees the same clips; a seed decides weights, order, sampling and augmentation. Each training runs on one
thread, so that its weights do not depend on the number of cores.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import cache
from multiprocessing import get_context
from os import getpid, sched_getaffinity
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmarks.sensors.machine import read_machine
from ..bundle.files import write_atomic
from ..cli.terminal import Bar
from ..engine.machine.parent import join_pool
from ..errors import UsageError, one_of
from .results import FOLDER, read_results, show_results, write_results

if TYPE_CHECKING:
    from ..model.data.clips import ClipSource

RESULTS = FOLDER / "ablations.json"
PAGE = Path("docs/experiments.md")
PICTURES = Path("docs")
DATA_SEED = 0
COMPACT = 1.0  # the paper's weight is not public

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
class Variant:
    """Changes to `tiny` and to the recipe `synthetic-tiny`.

    Attributes:
        attention: scheme of the blocks.
        depth: N, blocks.
        heads: of every attention.
        compact: weight of the compact loss; 0 is cross-entropy alone.
        picture: name of the t-SNE picture that its first seed is drawn in.
        seeds: how many trainings; the distances of features need more of them than the other claims.
    """

    attention: str = "logo"
    depth: int = 2
    heads: int = 4
    compact: float = COMPACT
    picture: str = ""
    seeds: int = 3


VARIANTS: dict[str, Variant] = {
    "logo": Variant(picture="features-compact.svg", seeds=5),
    "logo, cross-entropy": Variant(compact=0.0, picture="features-cross-entropy.svg", seeds=5),
    "logo, weight 0.3": Variant(compact=0.3),  # that of `paper-dfew`
    "space": Variant("space"),
    "joint": Variant("joint"),
    "divided": Variant("divided"),
    "mixing": Variant("mixing"),
    "lgi": Variant("lgi"),
    "N = 1": Variant(depth=1),
    "N = 4": Variant(depth=4),
    "1 head": Variant(heads=1),
    "8 heads": Variant(heads=8),
}


def train_variant(variant: Variant, seed: int, faces: Path, steps: int = 0) -> tuple[dict[str, Any], str]:
    """Trains and scores one variant.

    Args:
        variant: which.
        seed: of weights, order, sampling and augmentation.
        faces: a synthetic data set.
        steps: of training; 0 leaves the recipe's.

    Returns:
        (what is committed, the t-SNE picture of the held-out clips' features or nothing).
    """
    from ..model.checkpoint import load_checkpoint
    from ..model.networks.configs import complexity
    from ..model.networks.logoformer.config import logoformer_preset
    from ..model.synthetic.expressions import ORDER_LABELS
    from ..model.training.evaluate import evaluate, features_of
    from ..model.training.metrics import spread
    from ..model.training.recipe import recipe
    from ..model.training.train import train
    from ..workflows.pictures import plane_svg, tsne

    config = replace(logoformer_preset("tiny", variant.attention), depth=variant.depth, heads=variant.heads)
    settings = replace(recipe("synthetic-tiny").train, compact=variant.compact, seed=seed)
    settings = replace(settings, steps=steps or settings.steps)
    learn, held_out = _clips(faces, "train"), _clips(faces, "test")
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trained = train(settings, config, learn, held_out, Path(folder) / "checkpoint")
        model, _ = load_checkpoint(trained.checkpoint)
    seconds = time.perf_counter() - began
    recalls = trained.metrics.recalls
    reverse = evaluate(model, held_out, order="reversed").metrics()
    features = features_of(model, held_out)
    labels = np.array([held_out.label(index) for index in range(len(held_out))], np.int64)
    count, here = complexity(config), read_machine()
    picture = plane_svg(held_out.labels, labels, tsne(features)) if variant.picture and not seed else ""
    return {
        "seed": seed,
        "uar": trained.metrics.uar,
        "war": trained.metrics.war,
        "clips": trained.metrics.clips,
        "recalls": list(recalls),
        "order_recall": float(np.mean([recalls[c] or 0.0 for c in ORDER_LABELS])),
        "uar_reversed": reverse.uar,
        "spread": spread(features, labels),
        "final_loss": trained.final_loss,
        "steps": settings.steps,
        "macs": count.clip_macs,
        "parameters": count.parameters,
        "train_s": seconds,
        "machine": here.cpu or here.architecture,
        "versions": {"python": here.python, **here.packages},
    }, picture


def _one_thread(parent: int) -> None:
    """In each process of the pool."""
    import torch

    join_pool(parent)
    torch.set_num_threads(1)


@cache
def _clips(faces: Path, split: str) -> ClipSource:
    """The clips of one split, decoded once in each process."""
    from ..model.data.clips import CachedClips
    from ..model.data.datasets import clips_for
    from ..model.networks.configs import preset

    c = preset("tiny")
    return CachedClips(clips_for(faces, split, 1, c.image_size, c.labels))


def missing_runs(results: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, int]]:
    """(variant, seed) of every training still to be done, ordered by seed."""
    have = {name: {run["seed"] for run in results.get("runs", {}).get(name, ())} for name in names}
    seeds = range(max(VARIANTS[name].seeds for name in names))
    return [(name, seed) for seed in seeds for name in names if seed < VARIANTS[name].seeds and seed not in have[name]]


def add_run(results: dict[str, Any], name: str, found: dict[str, Any]) -> None:
    """Puts one training in its place, by seed."""
    runs = results.setdefault("runs", {}).setdefault(name, [])
    runs.append(found)
    runs.sort(key=lambda run: run["seed"])


def train_missing(names: Sequence[str], bar: Bar) -> dict[str, Any]:
    """Does the variants' trainings that the file lacks, one on each core; writes after each."""
    from ..model.synthetic.layout import synth

    results = read_results(RESULTS) | {
        "command": "python -m logoformer.studies.ablations",
        "preset": "tiny", "recipe": "synthetic-tiny", "data_seed": DATA_SEED,
        "variants": {name: asdict(variant) for name, variant in VARIANTS.items()},
    }  # fmt: skip
    todo = missing_runs(results, names)
    if not todo:
        return results
    with tempfile.TemporaryDirectory() as folder:
        faces = synth(Path(folder) / "faces", seed=DATA_SEED, progress=bar).path
        with ProcessPoolExecutor(len(sched_getaffinity(0)), get_context("spawn"), _one_thread, (getpid(),)) as pool:
            asked = {pool.submit(train_variant, VARIANTS[name], seed, faces): (name, seed) for name, seed in todo}
            for done, future in enumerate(as_completed(asked), start=1):
                name, seed = asked[future]
                found, picture = future.result()
                if picture:
                    write_atomic(PICTURES / VARIANTS[name].picture, picture.encode())
                add_run(results, name, found)
                write_results(RESULTS, results)
                bar.clear()
                print(f"{name}, seed {seed}: UAR {found['uar']:.3f}, {found['train_s']:.0f} s", flush=True)
                bar("trainings", done, len(todo))
    return results


# --------------------------------------------------------------------------------------------------------------- tables
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
    machines = "; ".join(sorted({f"{run['machine']}, torch {run['versions']['torch']}" for run in runs}))
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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the variants named, all by default, then writes the page's tables."""
    names = list(sys.argv[1:] if argv is None else argv) or list(VARIANTS)
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise UsageError(f"Unknown variants: {one_of(unknown)}.", next=f"choose from {one_of(VARIANTS)}")
    bar = Bar()
    results = train_missing(names, bar)
    bar.clear()
    write_results(RESULTS, results)
    show_results(PAGE, ablation_tables(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
