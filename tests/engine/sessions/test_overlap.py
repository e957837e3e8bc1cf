"""What the host waits for, and in which order a stream's work reaches the card: on the doubles, which know no time.

Their clock counts ticks: it tells what was issued before what had ended, never how long anything takes.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import logoformer
import numpy as np
import pytest
from doubles.machine import FACES, Machine, machine
from logoformer.bundle import Bundle
from logoformer.engine.cuda.queue import WAITS
from logoformer.errors import MachineError, UsageError

FRAMES = np.random.default_rng(3).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
CALLS = ("copy", "launch", "enqueue", "record", "query", "synchronize", "wait", "fill", "event_create", "malloc")
PERIOD = 1000  # ticks: longer than all that a frame needs


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return Bundle(untrained_bundle)


@pytest.fixture(scope="module")
def wanted(bundle: Bundle) -> list[Any]:
    """What ONNX Runtime answers to `FRAMES`, hop 4."""
    with (
        logoformer.load(bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime,
        runtime.stream(hop=4, color="bgr", warmup="repeat") as stream,
    ):
        return [pushed(stream, number) for number in range(len(FRAMES))]


def pushed(stream: Any, number: int) -> Any:
    result = stream.push(FRAMES[number], number / 10)
    return None if result is None else result.probabilities


def opened(here: Machine, bundle: Bundle, folder: Path, **more: Any) -> Any:
    planted = here.plant_engines(bundle, folder=folder)
    return logoformer.load(bundle, backend=here.backend, precision="fp32", engines_dir=planted, cuda=here.layer, **more)


@pytest.fixture(params=FACES)
def here(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with machine("10.3", request.param) as found, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        yield found
        assert found.gpu.leaks() == {}


def test_a_push_waits_for_nothing_and_an_answer_once(here, bundle, tmp_path, wanted):
    """A camera is slower than a card: between two frames everything is done. Calls are counted where graphs are."""
    gpu = here.gpu
    with opened(here, bundle, tmp_path) as runtime, runtime.stream(hop=4, color="bgr", warmup="repeat") as stream:
        for number in range(len(FRAMES)):
            gpu.pass_time(PERIOD)
            before, waits = dict(gpu.calls), gpu.waits
            found = pushed(stream, number)
            calls = sum(gpu.calls[name] - before.get(name, 0) for name in CALLS)
            np.testing.assert_equal(found is None, wanted[number] is None)
            assert gpu.waits - waits == (found is not None)
            if here.layer == "cuda-python":
                assert calls <= (4 if found is None else 6), {n: gpu.calls[n] - before.get(n, 0) for n in CALLS}
            if found is not None:
                np.testing.assert_allclose(found, wanted[number], atol=1e-6, rtol=0)
        assert gpu.calls["push"] == gpu.calls["pop"]


def test_a_host_that_is_faster_than_the_card_waits_for_a_place_and_overwrites_nothing(here, bundle, tmp_path, wanted):
    """No time passes between the frames: the third one finds both places of the picture taken."""
    gpu = here.gpu
    with opened(here, bundle, tmp_path) as runtime, runtime.stream(hop=4, color="bgr", warmup="repeat") as stream:
        waited = []
        for number in range(len(FRAMES)):
            waits = gpu.waits
            found = pushed(stream, number)
            waited.append(gpu.waits - waits)
            if found is not None:
                np.testing.assert_allclose(found, wanted[number], atol=1e-6, rtol=0)
        assert waited[4:8] == [0, 0, 1, 2]  # two places are free after an answer; the last push waits for its own, too
    assert gpu.violations == []


def test_the_next_upload_is_issued_while_an_answer_is_computed(here, bundle, tmp_path, wanted):
    """Through a worker: frame k+1 is resized, written and sent before `temporal` of frame k has ended."""
    gpu = here.gpu
    gpu.ticks = {"temporal": 100, "frame": 30}
    with opened(here, bundle, tmp_path) as runtime:
        runtime.session("temporal")
        gpu.history = []
        with runtime.worker(queue=len(FRAMES)) as worker:
            stream = worker.stream(hop=1, color="bgr", warmup="repeat")
            futures = [worker.submit(stream, frame, number / 10) for number, frame in enumerate(FRAMES)]
            found = [future.result(60).probabilities for future in futures]
        history = gpu.history
    with (
        logoformer.load(bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime,
        runtime.stream(hop=1, color="bgr", warmup="repeat") as stream,
    ):
        np.testing.assert_allclose(found, [pushed(stream, n) for n in range(len(FRAMES))], atol=1e-6, rtol=0)
    answers = [i for i, operation in enumerate(history) if operation.what == "temporal"]
    frames = [i for i, operation in enumerate(history) if operation.what == "frame"][-len(answers) :]
    uploads = [max(j for j in range(i) if history[j].what == "upload") for i in frames]
    ahead = [history[up].issued < history[one].ended for one, up in zip(answers, uploads[1:], strict=False)]
    assert len(ahead) > 10 and sum(ahead) > len(ahead) // 2, ahead


def test_answers_that_were_begun_together_come_to_their_own(here, bundle, tmp_path, add_batches):
    """Two faces through a worker: both are answered by one run, which the next frames do not wait for."""
    add_batches(shutil.copytree(bundle.path, tmp_path / "two.bundle"), (2,))
    two = Bundle(tmp_path / "two.bundle")
    here.gpu.ticks = {"temporal": 100, "frame": 30}
    found: dict[str, np.ndarray] = {}
    for backend in (here.backend, "onnxruntime"):
        folder = here.plant_engines(two, folder=tmp_path / "engines")
        with logoformer.load(
            two, backend=backend, precision="fp32", engines_dir=folder, cuda=here.layer, threads=1
        ) as runtime:
            runtime.session("temporal", 2)
            here.gpu.history = []
            with runtime.worker(queue=len(FRAMES)) as worker:
                faces = [worker.stream(hop=1, color="bgr", warmup="repeat") for _ in range(2)]
                rounds = [(FRAMES[n], FRAMES[-n - 1], n / 10) for n in range(len(FRAMES))]
                futures = [
                    [worker.submit(face, frame, time) for face, frame in zip(faces, frames, strict=True)]
                    for *frames, time in rounds
                ]
                found[backend] = np.array([[one.result(60).probabilities for one in pair] for pair in futures])
            if backend == here.backend:
                runs = [operation.what for operation in here.gpu.history if operation.what in ("frame", "temporal")]
                assert len(runs) < 4 * len(FRAMES)  # most of them for two faces at once
    np.testing.assert_allclose(found[here.backend], found["onnxruntime"], atol=1e-6, rtol=0)
    assert np.abs(found["onnxruntime"][:, 0] - found["onnxruntime"][:, 1]).max(-1).min() > 1e-6


@pytest.mark.parametrize("wait", WAITS)
def test_the_way_to_wait_is_chosen(here, bundle, tmp_path, wanted, wait):
    gpu = here.gpu
    with opened(here, bundle, tmp_path, wait=wait) as runtime:
        with runtime.stream(hop=4, color="bgr", warmup="repeat") as stream:
            for number in range(8):
                gpu.pass_time(PERIOD)
                before = gpu.calls["query"], gpu.calls["synchronize"]
                found = pushed(stream, number)
                if found is not None:
                    np.testing.assert_allclose(found, wanted[number], atol=1e-6, rtol=0)
            asked = gpu.calls["query"] - before[0]
            assert (asked > 2, gpu.calls["synchronize"] - before[1]) == ((True, 0) if wait == "spin" else (False, 1))
        assert bool(gpu.calls["blocking_event"]) == (wait == "block")
        assert (f"waits by {wait}" in runtime.backend) == (wait != "auto")


@pytest.mark.parametrize(("priority", "given"), [("normal", 0), ("high", -5)])
def test_the_priority_of_the_stream_is_chosen(here, bundle, tmp_path, wanted, priority, given):
    if here.layer == "pycuda" and priority == "high":
        with pytest.raises(MachineError, match="pycuda makes no streams of high priority"):
            opened(here, bundle, tmp_path, priority=priority)
        return
    with opened(here, bundle, tmp_path, priority=priority) as runtime:
        with runtime.stream(hop=4, color="bgr", warmup="repeat") as stream:
            found = [pushed(stream, number) for number in range(4)]
        np.testing.assert_allclose(found[3], wanted[3], atol=1e-6, rtol=0)
        assert [stream.priority for stream in here.gpu.streams.values()] == [given]
        assert ("high priority" in runtime.backend) == (priority == "high")
    with pytest.raises(UsageError, match="Unknown priority 'urgent'"):
        opened(here, bundle, tmp_path, priority="urgent")


def test_ring_and_tokens_have_no_memory_on_the_host(here, bundle, tmp_path):
    gpu, spec = here.gpu, bundle.stream
    with opened(here, bundle, tmp_path) as runtime, runtime.stream(hop=1, color="bgr", warmup="repeat") as stream:
        pushed(stream, 0)
        held = sum(block.data.nbytes for block in gpu.blocks if block.kind in ("pinned", "mapped"))
        picture, order = 3 * bundle.image_size**2, 4 * spec.frames * spec.tokens_per_frame
        assert held == 2 * picture + order + 4 * len(bundle.labels)
        gpu.history = []
        pushed(stream, 1)
        assert [op.what for op in gpu.history if op.what in ("upload", "download")] == ["upload", "upload", "download"]
        assert len(gpu.streams) == 1


def test_stages_are_timed_by_the_cards_own_clock(here, bundle, tmp_path, wanted):
    """In a run of its own, which a stream in use does not notice: its ring and its graphs stay as they are."""
    here.gpu.ticks = {"frame": 30, "temporal": 70, "record": 0}
    with opened(here, bundle, tmp_path) as runtime, runtime.stream(hop=4, color="bgr", warmup="repeat") as stream:
        for number in range(len(FRAMES)):
            found = pushed(stream, number)
            if number == 9:
                frame, temporal = (runtime.session(graph).time_stages() for graph in ("frame", "temporal"))
                assert frame == {"upload": 1, "engine": 30, "download": 0}  # ticks; the tokens are not downloaded
                assert temporal == {"upload": 1, "engine": 70, "download": 1}
                runtime.session("frame").time_stages()
            if found is not None:
                np.testing.assert_allclose(found, wanted[number], atol=1e-6, rtol=0)
