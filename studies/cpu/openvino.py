"""`python -m logoformer.studies.cpu.openvino`: INT8 on a CPU, `base`, 2 threads.

Writes `benchmarks/results/openvino.json`: OpenVINO in INT8 and FP32, as our runtime opens it, against ONNX Runtime,
PyTorch and OpenVINO without us, in one interleaved run; and beside it what the accuracy gate says of exactly the graphs
that were timed, by OpenVINO's own answers. `make figures` prints the table.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...benchmarks.baselines.contract import (
    EAGER,
    OPENVINO,
    Baseline,
    Inputs,
    clip_baseline,
    open_ours,
    stream_baseline,
)
from ...benchmarks.baselines.programs import OPENERS, Opening
from ...benchmarks.load.closed import Candidate, LoadConfig, closed_loop
from ...benchmarks.statistics import ratio
from ...bundle import Bundle
from ...calibration.gate import BUDGETS, answer, judge_precision
from ...calibration.paired import compare_answers
from ...cli.terminal import Bar
from ...engine import Runtime
from ...engine.machine.environment import multiplies_int8
from ...workflows.verify.backends import clip_answers
from ..int8 import held_out, make_bundle
from ..results import FOLDER, measured, write_results

RESULTS = FOLDER / "openvino.json"
COMMAND = "python -m logoformer.studies.cpu.openvino"
MADE = Path("build/openvino/base.bundle")
THREADS = 2
# Where ONNX Runtime rests, so that its idle threads do not spin beside whoever comes next.
LOAD = LoadConfig(rounds=50, block=4, settle=1, rest_s=0.03, warmup=5)
CLIPS = 700  # of held-out people, 100 of each class

ORT_FP32, OV_INT8, OV_INT8_STREAM, AUTO_FP32 = "ONNX Runtime FP32 clip", "INT8 clip", "INT8 stream", "auto FP32 clip"
# Numerator, denominator, and the largest ratio that was promised.
PROMISED = (
    (OV_INT8, ORT_FP32, 0.40),
    (OV_INT8_STREAM, ORT_FP32, 0.20),
    (OV_INT8, EAGER, 0.25),
    (OV_INT8_STREAM, EAGER, 0.12),
    (AUTO_FP32, OPENVINO, 1.02),
)


def baselines(bundle: Bundle, closing: contextlib.ExitStack) -> list[Baseline]:
    """Everything that is timed, open and on the same inputs."""
    inputs = Inputs.of(bundle)

    def ours(backend: str, precision: str) -> Runtime:
        return open_ours(bundle, precision, THREADS, closing, backend)

    raw = Opening(bundle, "fp32", THREADS, inputs, closing)
    return [
        clip_baseline(ours("onnxruntime", "fp32"), inputs, ORT_FP32),
        clip_baseline(ours("openvino", "int8"), inputs, OV_INT8),
        stream_baseline(ours("openvino", "int8"), inputs, OV_INT8_STREAM),
        clip_baseline(ours("auto", "fp32"), inputs, AUTO_FP32),
        OPENERS[OPENVINO](raw),
        OPENERS[EAGER](raw),
    ]


def timed(opened: Sequence[Baseline], load: LoadConfig, bar: Bar) -> dict[str, Any]:
    """One interleaved run: the median of each, and the promised ratios."""
    taken = closed_loop([Candidate(one.name, one.answer) for one in opened], load, progress=bar)
    ratios = []
    for numerator, denominator, most in PROMISED:
        found = ratio(taken.latency_ms[numerator], taken.latency_ms[denominator])
        row = {"numerator": numerator, "denominator": denominator, "ratio": asdict(found), "promised": most}
        ratios.append({**row, "holds": found.value <= most})
    programs = {
        one.name: {
            "what": one.what,
            "backend": one.backend,
            "precision": one.precision,
            "p50_ms": float(np.median(taken.latency_ms[one.name])),
        }
        for one in opened
    }
    return {"seconds": taken.seconds, "programs": programs, "ratios": ratios}


def gate_on_openvino(bundle: Bundle, clips: int, bar: Bar) -> dict[str, Any]:
    """The gate on held-out clips: OpenVINO's INT8 against ONNX Runtime's FP32."""
    source, budget = held_out(bundle), BUDGETS["int8"]
    with contextlib.ExitStack() as closing:
        before = open_ours(bundle, "fp32", THREADS, closing, "onnxruntime")
        after = open_ours(bundle, "int8", THREADS, closing, "openvino")
        asked = {"fp32": clip_answers(before), "int8": clip_answers(after)}
        found = answer(asked, source, bundle.sampling, range(clips), bar)
    result = compare_answers(found.answers["fp32"], found.answers["int8"], found.labels, found.ids)
    judged = judge_precision(result, budget, "int8", bundle.precisions["int8"].get("excluded", ()))
    kept = ("clips", "uar", "uar_before", "drop", "bound", "agreement", "lost", "gained", "rms_share", "p99_share",
            "max_share")  # fmt: skip
    return {
        "source": "synthetic faces, held-out people",
        "evaluator": after.backend,
        "against": before.backend,
        "budget_points": 100 * budget.drop,
        **asdict(judged),
        **{name: getattr(result, name) for name in kept},
    }


def artifact(bundle: Bundle, weights: str) -> dict[str, Any]:
    """What was timed and judged: the graphs by their hashes."""
    return {
        "preset": bundle.manifest["model"]["preset"],
        "weights": weights,
        "bundle": bundle.manifest["digest"],
        "graphs": {
            f"{entry.graph} {entry.precision}": entry.sha256
            for entry in bundle.graphs
            if entry.precision in ("fp32", "int8") and entry.batch == 1
        },
        "int8_macs": {
            graph: bundle.graph(graph, "int8").macs["int8"] / sum(bundle.graph(graph, "int8").macs.values())
            for graph in ("clip", "frame", "temporal")
        },
    }


def made(path: Path = MADE) -> Bundle:
    """An untrained `base` with INT8, which costs what a trained one does; made once."""
    from ...model.networks.configs import PRESETS
    from ...workflows.init import initialise

    if not (path / "manifest.json").exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        make_bundle(initialise(PRESETS["base"]), path, clips=64)
    return Bundle(path)


def main(words: list[str] | None = None) -> int:
    """Measures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    shown = f"a base with INT8; default: {MADE}, which is made where it is missing (minutes)"
    parser.add_argument("--bundle", type=Path, help=shown)
    parser.add_argument("--weights", default="untrained", help="what --bundle holds; default untrained")
    parser.add_argument("--make", action="store_true", help="make the bundle, measure nothing")
    parser.add_argument("--rounds", type=int, default=LOAD.rounds, help=f"default {LOAD.rounds}")
    parser.add_argument("--clips", type=int, default=CLIPS, help=f"that judge, multiples of 7; default {CLIPS}")
    a = parser.parse_args(words)
    bundle, bar = Bundle(a.bundle) if a.bundle else made(), Bar()
    if a.make:
        return 0
    given = shlex.join(sys.argv[1:] if words is None else words)
    found = measured(f"{COMMAND} {given}".rstrip())  # the machine is read before the load is ours
    load = LoadConfig(a.rounds, LOAD.block, LOAD.settle, LOAD.rest_s, LOAD.warmup)
    with contextlib.ExitStack() as closing:
        run = timed(baselines(bundle, closing), load, bar)
    found |= {
        "artifact": artifact(bundle, a.weights),
        "threads": THREADS,
        "int8_dot_products": multiplies_int8(),
        "load": asdict(load),
        **run,
        "accuracy": gate_on_openvino(bundle, a.clips, bar),
    }
    write_results(RESULTS, found)
    bar.clear()
    print(f"{RESULTS}; next: make figures", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
