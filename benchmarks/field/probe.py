"""Idle power of a machine, and memory of a runtime, each from a process of its own.

`python -m logoformer.benchmarks.field.probe` prints one JSON object, or an error as the command line does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from ...bundle import GRAPHS, Bundle
from ...engine import load
from ...engine.machine.environment import build_memory
from ...engine.machine.memory import resident_bytes
from ...errors import LogoformerError, MachineError
from ..sensors.find import this_machine
from ..sensors.telemetry import TOTAL_POWER, Sampler

IDLE_S = 5.0


def idle_power(seconds: float = IDLE_S) -> dict[str, Any]:
    """Mean power of every rail while nothing runs, in W.

    Raises:
        MachineError: no sensor of power can be read.
    """
    sensors = this_machine()
    power = [sensor for sensor in sensors.sensors if sensor.kind == "power"]
    if not power:
        raise MachineError(
            "No power sensor can be read here.",
            cause="no Jetson, and no card that NVML reads (extra nvml)",
            next="pip install 'logoformer[nvml]'",
        )
    with Sampler(power) as sampler:
        time.sleep(seconds)
    series = sampler.result(time.perf_counter_ns()).series
    means = {one.name: sum(one.value) / len(one.value) for one in series}
    return {"seconds": seconds, "total": sensors.facts.get(TOTAL_POWER, ""), "mean_w": means}


def memory_of(path: str, backend: str, precision: str) -> dict[str, Any]:
    """Memory of this process, and what the machine or card has left, at three moments."""
    found: dict[str, Any] = {"resident_bytes": {}, "available_bytes": {}}

    def note(when: str) -> None:
        memory = build_memory("tensorrt")
        found["resident_bytes"][when] = resident_bytes(os.getpid())
        found["available_bytes"][when] = memory.available_bytes
        found["source"] = memory.source

    note("before")
    bundle = Bundle(path)
    with load(bundle, backend=backend, precision=precision) as runtime:
        for graph in GRAPHS:
            runtime.session(graph)
        note("opened")
        for clip in bundle.golden().clips:
            runtime(clip, color="rgb")
        note("answering")
    return found


def main() -> int:
    """Runs the one that is named."""
    what, *words = sys.argv[1:]
    try:
        found = idle_power() if what == "power" else memory_of(*words)
    except LogoformerError as error:
        sys.stderr.write(f"{json.dumps(error.to_json())}\n")
        return error.exit_code
    sys.stdout.write(f"{json.dumps(found)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
