"""Bytes of the host: what a stream of `base` takes while it opens, holds, and carries over the bus for an answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import logoformer
import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed (the extra 'export')")

from doubles import hollow, null, trt
from doubles.machine import FACES, machine

SCRIPT = Path(__file__).parents[1] / "push_cost.py"
PICTURE, ORDER, ANSWER = 3 * null.SIZE**2, 4 * null.FRAMES * null.CELLS, 4 * len(hollow.LABELS)
RING = null.SLOTS * null.FACES * null.CELLS * null.DIM * 4  # 14.0 MB
# Of 2e91556, by the same script: 14.12 MB held and 42.16 MB at most while it opened; with a shared memory 56.19 MB.


@pytest.mark.parametrize(("memory", "ring"), [("own", 0), ("shared", RING)])
def test_a_stream_of_base_holds_pictures_and_answers_and_no_ring(memory, ring):
    """In a process of its own, on a card that does nothing; on a shared memory the ring is there, but once."""
    environment = {**os.environ, "PYTHONPATH": str(Path(logoformer.__file__).parents[1])}
    line = [sys.executable, str(SCRIPT), "--weigh", memory, "float32"]
    said = subprocess.run(line, env=environment, capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(said.stdout)
    assert found["pinned"] == 2 * PICTURE + ORDER + ANSWER
    assert ring <= found["held"] < ring + 400_000
    assert ring <= found["most"] < ring + 4_000_000


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("layer", FACES)
@pytest.mark.parametrize("version", trt.VERSIONS)
def test_an_answer_carries_a_picture_an_order_and_the_probabilities(version, layer, dtype):
    """Tokens and ring stay on the card, in the type that the graphs have."""
    with machine(version, layer) as here, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        with hollow.open_runtime(here, dtype) as runtime:
            stream = runtime.stream(hop=1, color="rgb", warmup="repeat")
            for number in range(6):
                here.gpu.pass_time(1000)
                before = here.gpu.carried.copy()
                picture = np.full((null.SIZE, null.SIZE, 3), number + 1, np.uint8)
                assert stream.push(picture, number / 25).probabilities[3] == 1  # the first frame
                here.gpu.pass_time(1000)
                carried = here.gpu.carried - before
                assert carried["upload"] == PICTURE + ORDER <= 45_000
                assert carried["download"] == ANSWER <= 1000
        assert here.gpu.leaks() == {}
