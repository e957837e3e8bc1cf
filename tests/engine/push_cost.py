"""What a push costs in Python, and what a stream holds of memory: on CUDA and TensorRT that do nothing.

    PYTHONPATH=.. python tests/engine/push_cost.py [OTHER_CHECKOUT]

Prints p50 and p95 of a push without and with an answer, in microseconds, and bytes of the host that a stream of `base`
takes; with another checkout both in turns, in one run. Not a latency of anything: there is no card here. Checkouts from
2e91556 on are understood, the last one before sessions shared a stream: `git worktree add OLDER/logoformer 2e91556`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import numpy as np
from doubles import null

ROUNDS, PUSHES, HOP = 5, 3000, 4
KINDS = ("without", "with")


def measure() -> dict[str, list[int]]:
    """Nanoseconds of every push, without and with an answer."""
    null.install()
    stream = null.open_runtime().stream(hop=HOP, color="rgb", warmup="repeat")
    picture = np.zeros((null.SIZE, null.SIZE, 3), np.uint8)
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for number in range(PUSHES + 500):
        started = perf_counter_ns()
        result = stream.push(picture, number / 25)
        taken = perf_counter_ns() - started
        if number >= 500:
            found["without" if result is None else "with"].append(taken)
    assert len(found["with"]) == PUSHES // HOP
    return found


def weigh(*, integrated: bool, dtype: str) -> dict[str, int]:
    """Bytes of the host that a stream takes: page-locked, and of numpy and Python; on a shared memory the card's too.

    `held` when it has answered, `most` at any moment since before its sessions opened.
    """
    card = null.install(integrated=integrated)
    runtime = null.open_runtime(checked=True, dtype=dtype)
    warnings.simplefilter("ignore")  # a card that computes nothing answers every input alike: no graph is proven
    pictures = np.zeros((2 * HOP, null.SIZE, null.SIZE, 3), np.uint8)
    runtime.stream(hop=HOP, color="rgb", warmup="repeat").close()  # imports are nobody's memory
    runtime.close_sessions()
    card.most_device = card.device
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    stream = runtime.stream(hop=HOP, color="rgb", warmup="repeat")
    for number, picture in enumerate(pictures):
        stream.push(picture, number / 25)
    held, most = (size - before for size in tracemalloc.get_traced_memory())  # page-locked memory is numpy's here
    tracemalloc.stop()
    shared = (card.device, card.most_device) if integrated else (0, 0)
    return {"pinned": card.pinned, "device": card.device, "held": held + shared[0], "most": most + shared[1]}


def child(tree: Path, *words: str) -> Any:
    """What this script prints in a process of its own, on one checkout."""
    environment = {**os.environ, "PYTHONPATH": str(tree.parent)}
    line = [sys.executable, __file__, *words]
    return json.loads(subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """One checkout, or two in turns."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure()))
        return
    if sys.argv[1:2] == ["--weigh"]:
        print(json.dumps(weigh(integrated=sys.argv[2] == "shared", dtype=sys.argv[3])))
        return
    here = Path(__file__).resolve().parents[2]
    trees = [here, *(Path(word).resolve() for word in sys.argv[1:2])]
    for memory in ("own", "shared"):
        for tree in trees:
            for dtype in ("float32", "float16"):
                found = child(tree, "--weigh", memory, dtype)
                shown = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in found.items())
                print(f"{tree}: a card with {memory} memory, ring of {dtype}: {shown}")
    times: dict[Path, dict[str, list[int]]] = {tree: {kind: [] for kind in KINDS} for tree in trees}
    for _ in range(ROUNDS):
        for tree in trees:
            for kind, values in child(tree, "--child").items():
                times[tree][kind] += values
    medians = {}
    for tree in trees:
        for kind, values in times[tree].items():
            values.sort()
            medians[tree, kind] = values[len(values) // 2]
            tail = values[len(values) * 95 // 100]
            print(f"{tree}: push {kind} an answer: p50 {medians[tree, kind] / 1e3:.1f} us, p95 {tail / 1e3:.1f} us")
    if len(trees) == 2:
        for kind in KINDS:
            print(f"{kind} an answer: {medians[here, kind] / medians[trees[1], kind]:.2f} of the other's p50")


if __name__ == "__main__":
    main()
