"""`python -m logoformer.studies.training`: speed of loading and of a step with SAM.

Writes `benchmarks/results/training.json`: how many clips a core reads in a second, from synthetic faces in DFEW's
layout, stored at the size that the network reads and at DFEW's own; and the time of a training step with SAM over that
of one without, interleaved.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..benchmarks.load.closed import Candidate, LoadConfig, closed_loop
from ..benchmarks.statistics import ratio
from ..cli.terminal import Bar
from .results import FOLDER, measured, write_results

if TYPE_CHECKING:
    from ..model.networks.contract import NetworkConfig
    from ..model.training.recipe import TrainConfig

RESULTS = FOLDER / "training.json"
COMMAND = "python -m logoformer.studies.training"
STORED = (112, 224)  # what `base` reads, and what DFEW's folder is named after
STEPS = {"tiny": (16, 16), "base": (2, 8)}  # clips of a step, rounds
THREADS = 1  # two that wait for each other would measure who else uses the machine


def loading(bar: Bar) -> dict[str, Any]:
    """Clips per second and core by the recipe `paper-dfew`, for each stored size."""
    from ..model.data.loading import measure_loading
    from ..model.networks.configs import preset
    from ..model.synthetic.layout import synth
    from ..model.training.recipe import recipe

    chosen = recipe("paper-dfew")
    model = preset(chosen.preset)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in STORED:
            faces = synth(Path(folder) / f"dfew-{side}", identities=6, side=side, progress=bar).path
            found[str(side)] = measure_loading(
                faces, size=model.image_size, sampling=model.sampling, augment=chosen.train.augment, progress=bar
            ).to_json()
    return {"recipe": chosen.name, "preset": model.preset, "stored": found}


def sam(name: str, bar: Bar) -> dict[str, Any]:
    """A step with SAM against one without, by the recipe `paper-dfew`, on this CPU."""
    import numpy as np

    from ..model.networks.configs import preset
    from ..model.training.recipe import recipe

    clips, rounds = STEPS[name]
    model = preset(name)
    config = replace(recipe("paper-dfew").train, batch=clips)
    candidates = [
        Candidate(kind, stepper(model, replace(config, sam_rho=rho), clips))
        for kind, rho in (("plain", 0.0), ("sam", config.sam_rho))
    ]
    load = LoadConfig(rounds, block=1, settle=0, warmup=1)
    # By the clock, then by CPU time; two runs, because a run reads one clock.
    clocks = (time.perf_counter_ns, time.process_time_ns)
    by_clock, by_cpu = (closed_loop(candidates, load, clock=clock, progress=bar).latency_ms for clock in clocks)
    return {
        "clips": clips,
        "rounds": rounds,
        "threads": THREADS,
        "plain_s": float(np.median(by_clock["plain"])) / 1e3,
        "sam_s": float(np.median(by_clock["sam"])) / 1e3,
        "ratio": asdict(ratio(by_clock["sam"], by_clock["plain"])),
        "cpu_ratio": asdict(ratio(by_cpu["sam"], by_cpu["plain"])),
    }


def stepper(model_config: NetworkConfig, config: TrainConfig, clips: int) -> Callable[[int], None]:
    """Takes one step of a training each time it is called, always on the same clips of noise."""
    import torch

    from ..model.networks.families import build_network
    from ..model.training.distributed import World
    from ..model.training.step import Stepper, make_optimizer

    torch.manual_seed(config.seed)
    model = build_network(model_config).train()
    c, classes = model_config, len(model_config.labels)
    taker = Stepper(
        model, make_optimizer(model, config), config, World(0, 1, torch.device("cpu")),
        torch.amp.GradScaler("cpu", enabled=False), torch.zeros((classes, classes), dtype=torch.int64),
    )  # fmt: skip
    batch = (torch.rand(clips, c.frames, 3, c.image_size, c.image_size), torch.arange(clips) % classes)

    def step(_index: int) -> None:
        taker.step([batch])

    return step


def main() -> int:
    """Measures everything and writes the file."""
    import torch

    torch.set_num_threads(THREADS)
    bar = Bar()
    found = measured(COMMAND, sam={})  # the machine is read before the load is ours
    found["loading"] = loading(bar)
    bar.clear()
    for side, one in found["loading"]["stored"].items():
        print(f"loading, stored at {side}: {one['clips_per_cpu_s']:.0f} clips/s per core by CPU time", flush=True)
    for name in STEPS:
        one = found["sam"][name] = sam(name, bar)
        bar.clear()
        clock, cpu = (f"{r['value']:.2f} [{r['low']:.2f}, {r['high']:.2f}]" for r in (one["ratio"], one["cpu_ratio"]))
        print(f"SAM on {name}: {clock} times a plain step by the clock, {cpu} by CPU time", flush=True)
    write_results(RESULTS, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
