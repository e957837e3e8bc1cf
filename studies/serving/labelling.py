"""`python -m logoformer.studies.serving.labelling`: `label`, `label --ray` and `evaluate`.

Writes `benchmarks/results/labelling.json` and the table of docs/serving.md. The same clips of drawn faces, in DFEW's
layout, all of them in the machine's file cache, are answered in turns: by `logoformer label`, by `logoformer label
--ray` with two actors on this machine, and by `evaluate` (torch, batches of 32). What it takes to start is told apart;
the files of `label` must be the same, byte by byte.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ...cli.terminal import Bar
from ...errors import MachineError, VerificationError
from ..results import FOLDER, measured, read_results, show_results, write_results
from .venvs import install_ray, link_package

RESULTS, PAGE = FOLDER / "labelling.json", Path("docs/serving.md")
COMMAND = "python -m logoformer.studies.serving.labelling"
PER_IDENTITY, SIDE = 14, 224
FRAMES = "Clip/clip_224x224"


def label_once(python: Path, environment: dict[str, str], words: Sequence[str], folder: Path) -> dict[str, Any]:
    """The report of one `logoformer label`, run elsewhere than here.

    Raises:
        MachineError: it failed.
    """
    call = [str(python), "-m", "logoformer", "label", *words, "--json"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    if done.returncode:
        raise MachineError("`logoformer label` failed.", log=done.stderr.splitlines()[-12:])
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def evaluate_once(checkpoint: Path, data: Path) -> float:
    """Seconds in which `evaluate` answers all clips of a data set, both splits of a fold."""
    from ...model.checkpoint import load_checkpoint
    from ...model.data.clips import Subset
    from ...model.data.datasets import open_clips
    from ...model.data.listing import Reading
    from ...model.training.evaluate import evaluate

    model, _ = load_checkpoint(checkpoint)
    reading = Reading(model.config.image_size, "former", model.config.frames, 0)
    sources = [open_clips(data, split, 1, reading) for split in ("test", "train")]
    evaluate(model, Subset(sources[0], range(4)))
    began = time.perf_counter()
    for source in sources:
        evaluate(model, source)
    return time.perf_counter() - began


def measure_labelling(preset: str, identities: int, actors: int, rounds: int, bar: Bar) -> dict[str, Any]:
    """The three in turns.

    Raises:
        VerificationError: the files differ.
        MachineError: Ray cannot be had, or a run failed.
    """
    from ...model.synthetic.layout import synth
    from .__main__ import export_untrained

    python = install_ray()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = export_untrained(preset, folder, bar)
        data = synth(folder / "faces", identities=identities, per_identity=PER_IDENTITY, side=SIDE, progress=bar)
        for path in data.path.rglob("*.jpg"):
            path.read_bytes()  # into the machine's cache
        environment = link_package(folder / "packages")
        words = [
            str(bundle), str(data.path / FRAMES), "--face", "whole", "--backend", "onnxruntime", "--precision", "fp32",
        ]  # fmt: skip
        runs = []
        for number in range(rounds):
            bar("label, label --ray, evaluate", number, rounds)
            plain = label_once(python, environment, [*words, "-o", f"plain{number}.jsonl"], folder)
            on_ray = [*words, "-o", f"ray{number}.jsonl", "--ray", "--actors", str(actors)]
            ray = label_once(python, environment, on_ray, folder)
            evaluate_s = evaluate_once(folder / preset, data.path)
            if (folder / f"plain{number}.jsonl").read_bytes() != (folder / f"ray{number}.jsonl").read_bytes():
                raise VerificationError("The file written on Ray is another than that of the plain loop.")
            times = {"plain_s": plain["seconds"], "ray_s": ray["seconds"], "evaluate_s": round(evaluate_s, 3)}
            runs.append({**times, "init_s": ray["ray"]["init_s"], "start_s": ray["ray"]["start_s"]})
        head = json.loads((folder / "plain0.jsonl").read_text(encoding="ascii").partition("\n")[0])
    return {
        "preset": preset, "clips": plain["recordings"], "frames": data.frames, "side": SIDE, "actors": actors,
        "backend": head["backend"], "ray": ray["ray"]["version"], "same_bytes": True, "runs": runs,
        "ray_to_plain": median(run["ray_s"] / run["plain_s"] for run in runs),
        "whole_to_plain": median((run["ray_s"] + run["init_s"] + run["start_s"]) / run["plain_s"] for run in runs),
        "plain_to_evaluate_speed": median(run["evaluate_s"] / run["plain_s"] for run in runs),
    }  # fmt: skip


def labelling_table(found: dict[str, Any]) -> dict[str, str]:
    """The text between the markers of the page."""
    lines = ["| clips/s, in turns | `evaluate` | `label` | `label --ray` | ray.init | start of an actor |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    clips = found["clips"]
    for number, run in enumerate(found["runs"], start=1):
        rates = " | ".join(f"{clips / run[name]:.2f}" for name in ("evaluate_s", "plain_s", "ray_s"))
        lines.append(f"| round {number} | {rates} | {run['init_s']:.1f} s | {run['start_s']:.1f} s |")
    machine = found["machine"]
    lines += [
        "",
        f"`{found['preset']}` in FP32, {clips} clips, {found['backend']}, Ray {found['ray']} with {found['actors']} "
        f"actors: {found['ray_to_plain']:.2f} times the time of the plain loop, {found['whole_to_plain']:.2f} times "
        f"with what it took to start; the same file, byte by byte. {machine['cpu']}, {machine['usable_cpus']} cores; "
        f"load before it {machine['load_1min']}; `{found['command']}`",
    ]
    return {"labelling": "\n".join(lines) + "\n"}


def main(words: Sequence[str] | None = None) -> int:
    """Measures, writes the file and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="base", metavar="P", help="default: base")
    shown = f"people of {PER_IDENTITY} clips each, at least 5; default 23: 322 clips"
    parser.add_argument("--identities", type=int, default=23, metavar="N", help=shown)
    parser.add_argument("--actors", type=int, default=2, metavar="N", help="default 2")
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="default 2")
    parser.add_argument("--try", dest="trial", action="store_true", help="print what was measured, write nothing")
    parser.add_argument("--show", action="store_true", help="measure nothing: print the page from the file")
    a = parser.parse_args(words)
    bar = Bar()
    if not a.show:
        found = measured(COMMAND)  # the machine is read before the load is ours
        found |= measure_labelling(a.preset, a.identities, a.actors, a.rounds, bar)
        if a.trial:
            bar.clear()
            print(json.dumps(found, indent=2), flush=True)
            return 0
        write_results(RESULTS, found)
    show_results(PAGE, labelling_table(read_results(RESULTS)))
    bar.clear()
    print(f"{RESULTS} and {PAGE}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
