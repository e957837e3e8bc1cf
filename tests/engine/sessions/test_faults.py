"""Fault drills on the card: what goes wrong, what the caller sees, and that nothing is left behind."""

from __future__ import annotations

import shutil
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import logoformer
import numpy as np
import pytest
from doubles.gpu import CAPTURE_INVALIDATED, ILLEGAL_ADDRESS, OUT_OF_MEMORY
from doubles.machine import FACES, Machine, machine
from logoformer.bundle import Bundle
from logoformer.engine.cuda.open import open_cuda
from logoformer.engine.sessions.trt import TrtSession
from logoformer.errors import EXIT_DEVICE_LOST, DeviceLostError, MachineError, UsageError, VerificationError
from PIL import Image


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return Bundle(untrained_bundle)


@pytest.fixture(params=FACES)
def here(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with machine("10.3", request.param) as found, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        yield found


@pytest.fixture
def card() -> Iterator[Machine]:
    with machine("10.3", "cuda-python") as found:
        yield found
        assert found.gpu.leaks() == {}


def ran(session: TrtSession, clip: np.ndarray) -> np.ndarray:
    np.copyto(session.input("clip")[0], clip)
    session.run()
    return session.output("probabilities")[0].copy()


def drop_graph(session: TrtSession) -> None:
    """Lets the session start its engine plainly, so that one start can be spoilt; `close` still frees the graph."""
    session._graphs = {}


# --------------------------------------------------------------------------------------------------------------- memory
@pytest.mark.parametrize(
    ("call", "skip"), [("malloc", 0), ("malloc", 1), ("malloc", 3), ("host_alloc", 0), ("host_alloc", 1)]
)
def test_allocation_failure_at_load(here, bundle, call, skip):
    """Weights, scratch, device memory, pinned memory: classified, with numbers, and everything given back."""
    here.gpu.inject(call, OUT_OF_MEMORY, skip)
    with pytest.raises(MachineError, match="has not enough memory") as caught:
        here.open(bundle, "clip")
    assert f"of {here.gpu.total} are free" in str(caught.value) and "Next: end them" in str(caught.value)
    assert here.gpu.leaks() == {}
    session = here.open(bundle, "clip")  # the next attempt, with memory again
    session.close()
    assert here.gpu.leaks() == {}


def test_a_card_that_is_too_small_says_what_was_needed(here, bundle):
    here.gpu.total = 400_000
    with pytest.raises(MachineError, match="has not enough memory"):
        here.open(bundle, "clip")
    assert here.gpu.leaks() == {}


@pytest.mark.parametrize("call", ["copy", "launch", "enqueue", "record", "synchronize"])
def test_allocation_failure_at_run(card, bundle, call):
    """Out of memory is not sticky: this run fails, the next one answers."""
    session = card.open(bundle, "clip")
    other, clip = bundle.golden().clips[:2]
    wanted = ran(session, clip)
    ran(session, other)
    if call in ("enqueue", "copy"):
        drop_graph(session)
    card.gpu.inject(call, OUT_OF_MEMORY)
    with pytest.raises(MachineError, match="has not enough memory") as caught:
        session.run()
    assert f"of {card.gpu.total} are free" in str(caught.value)
    np.testing.assert_array_equal(ran(session, clip), wanted)
    session.close()


# -------------------------------------------------------------------------------------------------------------- enqueue
def test_enqueue_that_returns_false(here, bundle):
    """A refused start is an error with TensorRT's own words, never an old answer; the session lives on."""
    session = here.open(bundle, "clip")
    clips = bundle.golden().clips
    wanted = ran(session, clips[0])
    drop_graph(session)
    here.gpu.inject("enqueue", "refuse")
    np.copyto(session.input("clip")[0], clips[1])
    with pytest.raises(MachineError, match=r"refused to start clip\.fp32\.b1") as caught:
        session.run()
    assert any("Error Code 3" in line for line in caught.value.log)
    np.testing.assert_array_equal(ran(session, clips[0]), wanted)
    session.close()
    assert here.gpu.leaks() == {}


def test_enqueue_that_returns_false_at_load(here, bundle):
    here.gpu.inject("enqueue", "refuse")
    with pytest.raises(MachineError, match="refused to start"):
        here.open(bundle, "clip")
    assert here.gpu.leaks() == {}


# --------------------------------------------------------------------------------------------------------------- sticky
@pytest.mark.parametrize("code", [ILLEGAL_ADDRESS, 719])
def test_a_sticky_error_then_ten_more_calls(here, bundle, code):
    """FAILED for good: each later call is refused at once, without a call to the card, with exit code 7."""
    cuda = open_cuda(here.layer)
    session, other = here.open(bundle, "clip", cuda), here.open(bundle, "frame", cuda)
    session.output("probabilities")
    here.gpu.inject("kernel", code)
    with pytest.raises(DeviceLostError) as caught:
        session.run()
    assert caught.value.exit_code == EXIT_DEVICE_LOST == 7
    assert "start it again" in caught.value.next
    here.gpu.calls.clear()
    for call in (
        session.run,
        session.run,
        lambda: session.input("clip"),
        lambda: session.output("probabilities"),
        lambda: session.feed("clip", np.zeros((1, 8, 64, 64, 3), np.uint8)),
        other.run,
        lambda: other.input("frame"),
        lambda: other.output("tokens"),
        lambda: other.take(other, "tokens", "frame", 0),
        lambda: here.open(bundle, "temporal", cuda),
    ):
        with pytest.raises(DeviceLostError, match="is lost to this process"):
            call()
    assert sum(here.gpu.calls.values()) == 0
    session.close()
    other.close()
    session.close()


def test_the_process_ends_with_code_7(card, untrained_bundle, tmp_path, fails):
    """What a supervisor sees of a card that is lost in the middle of a video."""
    folder = tmp_path / "face.bundle"
    shutil.copytree(untrained_bundle, folder)
    card.plant_engines(Bundle(folder))
    (tmp_path / "frames").mkdir()
    for number, picture in enumerate(np.random.default_rng(0).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)):
        Image.fromarray(picture).save(tmp_path / "frames" / f"{number:03}.png")
    card.gpu.inject("kernel", ILLEGAL_ADDRESS, skip=30)
    fails(EXIT_DEVICE_LOST, "run", folder, tmp_path / "frames", "--fps", 15)
    card.gpu.forget()


# --------------------------------------------------------------------------------------------------------------- graphs
@pytest.mark.parametrize(
    ("call", "fault", "skip", "said"),
    [
        ("enqueue", "empty", 3, "a replay answers otherwise than a plain run in probabilities"),
        ("enqueue", "refuse", 3, "the capture failed"),
        ("end_capture", CAPTURE_INVALIDATED, 0, "the capture failed"),
        ("begin_capture", CAPTURE_INVALIDATED, 0, "the capture failed"),
        ("instantiate", OUT_OF_MEMORY, 0, "the capture failed"),
        ("launch", 1, 0, "the capture failed"),
        ("enqueue", "hollow", 3, "a replay answers otherwise than a plain run in probabilities"),
        ("enqueue", "nan", 3, "a replay answers otherwise than a plain run in probabilities"),
    ],
)
def test_a_capture_that_fails_falls_back_aloud(card, bundle, call, fault, skip, said):
    """Empty, broken or wrong captures: the plain start is used, said in a warning."""
    clip = bundle.golden().clips[0]
    session = card.open(bundle, "clip")
    plain = ran(session, clip)
    session.close()
    card.gpu.inject(call, fault, skip)
    with pytest.warns(RuntimeWarning, match="without a CUDA graph") as warned:
        session = card.open(bundle, "clip")
    assert len(warned) == 1 and said in str(warned[0].message)
    assert session._graphs[0] is None
    launches = card.gpu.calls["launch"]
    np.testing.assert_array_equal(ran(session, clip), plain)
    assert card.gpu.calls["launch"] == launches
    session.close()


def test_rtx_that_cannot_be_captured_yet(bundle):
    with machine("rtx-1.7", "cuda-python") as here:
        here.gpu.inject("is_stream_capturable", "no")
        with pytest.warns(RuntimeWarning, match="says that it cannot be captured"):
            session = here.open(bundle, "clip")
        assert here.gpu.calls["begin_capture"] == 0
        session.close()
        assert here.gpu.leaks() == {}


def test_a_sticky_error_while_capturing_is_no_fall_back(card, bundle):
    card.gpu.inject("launch", ILLEGAL_ADDRESS)
    with pytest.raises(DeviceLostError):
        card.open(bundle, "clip")
    card.gpu.forget()


# -------------------------------------------------------------------------------------------------------------- answers
def test_nan_output_is_counted_and_never_becomes_a_label(here, bundle, tmp_path):
    folder = here.plant_engines(bundle, folder=tmp_path)
    clips = bundle.golden().clips
    with logoformer.load(bundle, backend="tensorrt", precision="fp32", engines_dir=folder, cuda=here.layer) as runtime:
        good = runtime(clips[0], color="rgb")
        session = runtime.session("clip")
        drop_graph(session)
        here.gpu.inject("enqueue", "nan")
        with pytest.raises(VerificationError):
            runtime(clips[0], color="rgb")
        assert runtime.not_finite == 1
        again = runtime(clips[0], color="rgb")
        np.testing.assert_array_equal(again.probabilities, good.probabilities)
        assert runtime.not_finite == 1
    assert here.gpu.leaks() == {}


# -------------------------------------------------------------------------------------------------------------- threads
def in_thread(call) -> BaseException | None:
    caught: list[BaseException] = []

    def body() -> None:
        try:
            call()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return caught[0] if caught else None


def test_another_thread_may_close_between_two_calls(here, bundle):
    """Which thread may call is the runtime's business (`ThreadOwner`); a closed session refuses them all."""
    session = here.open(bundle, "clip")
    ran(session, bundle.golden().clips[0])
    assert in_thread(session.close) is None
    assert here.gpu.leaks() == {}
    for call in (
        session.run,
        lambda: session.input("clip"),
        lambda: session.output("probabilities"),
        lambda: session.feed("clip", np.zeros((1, 8, 64, 64, 3), np.uint8)),
        lambda: session.take(session, "probabilities", "clip", 0),
    ):
        with pytest.raises(UsageError, match="is closed"):
            call()


# ---------------------------------------------------------------------------------------------------------------- order
def test_order_out_of_range_is_refused_on_the_host(here, bundle, tmp_path, monkeypatch):
    """The GPU would read outside of the ring; the engine is not even started."""
    folder = here.plant_engines(bundle, folder=tmp_path)
    with (
        logoformer.load(bundle, backend="tensorrt", precision="fp32", engines_dir=folder, cuda=here.layer) as runtime,
        runtime.stream(hop=1, color="rgb", warmup="repeat") as stream,
    ):
        picture = np.zeros((64, 64, 3), np.uint8)
        stream.push(picture, 0.0)
        rows = runtime.session("temporal").inputs["ring"].shape[0]
        for bad in (rows, -1):
            monkeypatch.setattr(type(stream._ring), "pick", lambda self, ages, bad=bad: np.full(len(ages), bad))
            started = here.gpu.calls["kernel"]
            with pytest.raises(VerificationError, match="Nothing was run"):
                stream.flush()
            assert here.gpu.calls["kernel"] == started
    assert here.gpu.leaks() == {}
