"""Ten thousand pushes on every double: faces come and go, engines are replaced, a runtime is closed under way."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import logoformer
import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed (the extra 'export')")

from doubles import hollow, trt
from doubles.machine import FACES, Machine, machine
from logoformer.bundle import Bundle
from logoformer.clips import PATTERN_TOLERANCE_S, pattern_ages

PUSHES, SWAPS = 10_000, 4
HOPS = (1, 3, 4)


@pytest.mark.parametrize("size", ["tiny", "base"])
@pytest.mark.parametrize("layer", FACES)
@pytest.mark.parametrize("version", trt.VERSIONS)
def test_ten_thousand_pushes_leave_nothing_and_read_nothing_too_early(size, version, layer, request, tmp_path):
    """`base` has its real tensors and graphs that compute next to nothing."""
    path = request.getfixturevalue("untrained_bundle") if size == "tiny" else None  # what is imported on a machine goes
    with machine(version, layer, memory=2 << 30) as here, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        if path is not None:
            bundle = Bundle(path)
            folder = here.plant_engines(bundle, folder=tmp_path)
            run(here, lambda: tiny(here, bundle, folder), bundle.image_size, bundle.sampling)
        else:
            run(here, lambda: hollow.open_runtime(here), hollow.SIZE, hollow.SAMPLING)


def tiny(here: Machine, bundle: Bundle, folder: Path) -> Any:
    return logoformer.load(bundle, backend=here.backend, precision="fp32", engines_dir=folder, cuda=here.layer)


def run(here: Machine, load: Callable[[], Any], side: int, sampling: Any) -> None:
    """Each answer names the frames that it was made of; one that was read too early names others, or none."""
    gpu, picture = here.gpu, np.zeros((side, side, 3), np.uint8)
    age = float(pattern_ages(sampling)[0 if sampling.stride else -1]) - PATTERN_TOLERANCE_S

    def start() -> tuple[Any, list[Any]]:
        gpu.simple = False
        runtime = load()
        streams = [runtime.stream(hop=hop, color="rgb", warmup="repeat") for hop in HOPS]
        gpu.simple = True  # from here on: no graph would pass its check with these answers
        return runtime, streams

    runtime, streams = start()
    kept: list[list[tuple[float, tuple[int, ...]]]] = [[], [], []]
    gc.collect()
    blocks = len(gpu.blocks)
    answered = 0
    for number in range(PUSHES):
        if number % (PUSHES // SWAPS) == PUSHES // SWAPS // 2:  # a new engine takes over between two frames
            other, others = start()
            runtime.close()
            runtime, streams, kept = other, others, [[], [], []]
        if number % 997 == 996:  # a face goes while its frames are under way, and another one takes its place
            gone = number // 997 % 3
            streams[gone].close()
            streams[gone], kept[gone] = runtime.stream(hop=HOPS[gone], color="rgb", warmup="repeat"), []
        if number % 7 == 0:
            gpu.pass_time(5)
        face = number % 3
        picture[0, 0] = face, number % 256, number // 256 % 256
        time_s = number / 15
        result = streams[face].push(picture, time_s)
        kept[face] = [*kept[face][-30:], (time_s, tuple(picture[0, 0]))]
        if result is not None:
            answered += 1
            newest = [pixel for at, pixel in kept[face] if at <= time_s - age] or [kept[face][0][1]]
            assert tuple(result.probabilities[:3]) == newest[-1] and result.probabilities[3] == face
    assert [(stream.skipped, stream.resets) for stream in streams] == [(0, 0)] * 3
    assert answered > PUSHES // 2 - 40 and len(gpu.blocks) == blocks
    gpu.freed.clear()
    streams[0].push(picture, 1e6)
    runtime.close()  # while a frame is under way
    assert gpu.leaks() == {} and gpu.violations == []
