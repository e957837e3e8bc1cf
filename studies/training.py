"""`python -m logoformer.studies.training`: what a training costs, measured here and committed with the machine.

Writes `benchmarks/results/training.json`: how many clips a core reads in a second, from synthetic faces in DFEW's
layout, stored at the size that the network reads and at DFEW's own; and how much dearer a step with SAM is than one
without, the two taking turns.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..benchmarks.sensors.machine import read_machine
from ..benchmarks.statistics import ratio
from ..bundle.files import dump_json, write_atomic
from ..cli.terminal import Bar

if TYPE_CHECKING:
    from ..model.networks.config import ModelConfig
    from ..model.training.recipe import TrainConfig

RESULTS = Path("benchmarks/results/training.json")
COMMAND = "python -m logoformer.studies.training"
STORED = (112, 224)  # what `base` reads, and what DFEW's folder is named after
STEPS = {"tiny": (16, 16), "base": (2, 8)}  # clips of a step, rounds
THREADS = 1  # two that wait for each other would measure who else uses the machine


def loading(bar: Bar) -> dict[str, Any]:
    """Clips per second and core by the recipe `paper-dfew`, for each stored size."""
    from ..model.data.loading import measure_loading
    from ..model.networks.config import preset
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
    """A step with SAM against one without, of a preset by the recipe `paper-dfew`, on this machine's CPU."""
    import numpy as np

    from ..model.networks.config import preset
    from ..model.training.recipe import recipe

    clips, rounds = STEPS[name]
    model = preset(name)
    config = replace(recipe("paper-dfew").train, batch=clips)
    plain, sharp = (stepper(model, replace(config, sam_rho=rho), clips) for rho in (0.0, config.sam_rho))
    for step in (plain, sharp):
        step()
    seconds: dict[str, list[list[float]]] = {"plain": [], "sam": []}
    cpu: dict[str, list[list[float]]] = {"plain": [], "sam": []}
    for number in range(rounds):
        turns = [("plain", plain), ("sam", sharp)]
        for kind, step in turns if number % 2 else turns[::-1]:
            began, began_cpu = time.perf_counter(), time.process_time()
            step()
            seconds[kind].append([time.perf_counter() - began])
            cpu[kind].append([time.process_time() - began_cpu])
        bar(f"SAM, {name}", number + 1, rounds)
    by_clock = ratio(np.array(seconds["sam"]), np.array(seconds["plain"]))
    by_cpu = ratio(np.array(cpu["sam"]), np.array(cpu["plain"]))
    return {
        "clips": clips,
        "rounds": rounds,
        "threads": THREADS,
        "plain_s": float(np.median(seconds["plain"])),
        "sam_s": float(np.median(seconds["sam"])),
        "ratio": asdict(by_clock),
        "cpu_ratio": asdict(by_cpu),
    }


def stepper(model_config: ModelConfig, config: TrainConfig, clips: int) -> Callable[[], float]:
    """Takes one step of a training each time it is called, always on the same clips of noise."""
    import torch

    from ..model.networks.logoformer import LogoFormer
    from ..model.training.distributed import World
    from ..model.training.optim import make_optimizer
    from ..model.training.step import Stepper

    torch.manual_seed(config.seed)
    model = LogoFormer(model_config).train()
    c, classes = model_config, len(model_config.labels)
    taker = Stepper(
        model, make_optimizer(model, config), config, World(0, 1, torch.device("cpu")),
        torch.amp.GradScaler("cpu", enabled=False), torch.zeros((classes, classes), dtype=torch.int64),
    )  # fmt: skip
    batch = (torch.rand(clips, c.frames, 3, c.image_size, c.image_size), torch.arange(clips) % classes)
    return lambda: taker.step([batch])


def main() -> int:
    """Measures everything and writes the file."""
    import torch

    torch.set_num_threads(THREADS)
    bar = Bar()
    machine = read_machine()
    found: dict[str, Any] = {"command": COMMAND, "machine": asdict(machine), "loading": loading(bar), "sam": {}}
    bar.clear()
    for side, one in found["loading"]["stored"].items():
        print(f"loading, stored at {side}: {one['clips_per_cpu_s']:.0f} clips/s per core by CPU time", flush=True)
    for name in STEPS:
        one = found["sam"][name] = sam(name, bar)
        bar.clear()
        r, cpu = one["ratio"], one["cpu_ratio"]
        print(
            f"SAM on {name}: {r['value']:.2f} times a plain step [{r['low']:.2f}, {r['high']:.2f}] by the clock, "
            f"{cpu['value']:.2f} [{cpu['low']:.2f}, {cpu['high']:.2f}] by CPU time",
            flush=True,
        )
    write_atomic(RESULTS, dump_json(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
