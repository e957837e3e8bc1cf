"""Arrays on the card: both protocols, taken without a trip through the host, refused when anything differs."""

from __future__ import annotations

import ctypes
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import logoformer
import numpy as np
import pytest
from doubles.gpu import Block, Gpu
from doubles.machine import FACES, Machine, machine
from logoformer.bundle import Bundle
from logoformer.engine.cuda.device_arrays import _read_capsule, _Tensor, is_on_device, opened
from logoformer.engine.sessions.trt import TrtSession
from logoformer.errors import BadInputError, UsageError

DTYPES = {"uint8": (1, 8), "float32": (2, 32), "float16": (2, 16), "int32": (0, 32), "int64": (0, 64)}


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return Bundle(untrained_bundle)


@pytest.fixture(params=FACES)
def here(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with machine("10.3", request.param) as found, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        yield found
        assert found.gpu.leaks() == {}


@pytest.fixture
def session(here: Machine, bundle: Bundle) -> Iterator[TrtSession]:
    with_frame = here.open(bundle, "frame")
    yield with_frame
    with_frame.close()


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)


def foreign(gpu: Gpu, values: np.ndarray) -> Block:
    """Memory of another library on the same card."""
    block = Block(gpu._top, np.ascontiguousarray(values).reshape(-1).view(np.uint8).copy(), "device", "foreign")
    gpu._top += 1 << 20
    gpu.blocks.append(block)
    return block


def interface(block: Block, like: np.ndarray, **changed: Any) -> Any:
    """What pycuda, cupy and numba give; `stream` None: nothing is pending."""
    said = {
        "data": (block.base, False),
        "shape": like.shape,
        "typestr": like.dtype.str,
        "strides": None,
        "version": 3,
        "stream": None,
    }
    return SimpleNamespace(__cuda_array_interface__={k: v for k, v in (said | changed).items() if v != "absent"})


class Capsule:
    """A DLPack producer as torch is one: the capsule, its deleter, and the handshake over streams."""

    def __init__(self, pointer: int, like: np.ndarray, device: tuple[int, int] = (2, 0), **changed: Any) -> None:
        self._device, self.streams, self.deleted = device, [], 0
        code, bits = DTYPES[like.dtype.name]
        shape = changed.pop("shape", like.shape)
        axes = (ctypes.c_int64 * len(shape))(*shape)
        strides = changed.pop("strides", None)
        steps = (ctypes.c_int64 * len(strides))(*strides) if strides else None
        self._kept = (axes, steps)

        class Managed(ctypes.Structure):
            _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))

        self._managed = Managed()
        tensor = self._managed.tensor
        tensor.data, tensor.device_type, tensor.device_id, tensor.ndim = pointer, *device, len(shape)
        tensor.code, tensor.bits, tensor.lanes = code, bits, changed.pop("lanes", 1)
        tensor.shape = axes
        if steps is not None:
            tensor.strides = steps
        tensor.byte_offset = changed.pop("byte_offset", 0)
        assert not changed

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, *, stream: int) -> Any:
        self.streams.append(stream)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self._managed), b"dltensor", None)


def tokens(session: TrtSession) -> np.ndarray:
    session.run()
    return session.output("tokens").copy()


def test_every_way_in_gives_the_same_answer(here, session, picture):
    """numpy by the host; both protocols on the card, where no picture crosses the bus."""
    session.feed("frame", picture)
    wanted = tokens(session)
    block = foreign(here.gpu, picture)
    for array in (interface(block, picture), Capsule(block.base, picture)):
        session.feed("frame", np.zeros_like(picture))
        assert not np.array_equal(tokens(session), wanted)
        session.feed("frame", array)  # the first one captures a graph for inputs that are there already
        here.gpu.history = []
        session.feed("frame", array)
        session.run()
        copies = [one.what for one in here.gpu.history if one.what in ("upload", "download", "move")]
        assert copies == ["move"]  # on the card; the tokens stay there until the host asks for them
        here.gpu.history = None
        np.testing.assert_array_equal(session.output("tokens"), wanted)
        np.testing.assert_array_equal(session.input("frame"), picture)  # the host sees what stands there


def test_the_array_is_free_again_when_feed_returns(here, session, picture):
    block = foreign(here.gpu, picture)
    session.feed("frame", interface(block, picture))
    block.data[:] = 0
    session.run()
    np.testing.assert_array_equal(session.input("frame"), picture)


def test_a_producers_pending_work_is_waited_for(here, session, picture):
    """CAI's `stream`: what the producer has put there comes first; without the key, everything is waited for."""
    gpu = here.gpu
    session.feed("frame", interface(foreign(gpu, picture), picture))  # captures a graph, which waits for everything
    for said in ({"stream": None}, {"stream": "absent", "version": 2}, {}):
        block = foreign(gpu, np.zeros_like(picture))
        with session.cuda:
            producer, ready = gpu.stream_create(), gpu.malloc(picture.nbytes)
            gpu.view(ready, picture.nbytes)[0][:] = picture.reshape(-1)
            gpu.on_device(block.base, ready, picture.nbytes, producer)
        session.feed("frame", interface(block, picture, **({"stream": producer} | said)))
        found = session.input("frame").copy()
        with session.cuda:
            gpu.stream_destroy(producer)
            gpu.release("free", ready, ("device",))
        waited = said != {"stream": None}
        assert np.array_equal(found, picture) == waited


def test_dlpack_is_handed_our_stream(here, session, picture):
    block = foreign(here.gpu, picture)
    array = Capsule(block.base, picture)
    session.feed("frame", array)
    assert array.streams == [session._stream]


def test_a_byte_offset_counts(here, session, picture):
    block = foreign(here.gpu, np.concatenate([np.zeros(32, np.uint8), picture.reshape(-1)]))
    session.feed("frame", Capsule(block.base, picture, byte_offset=32))
    np.testing.assert_array_equal(session.input("frame"), picture)


STEPS = (64 * 64 * 3, 64 * 3, 3, 1)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"shape": (64, 64, 1)}, "uint8 [64, 64, 1]; uint8 [1, 64, 64, 3] is expected"),
        ({"shape": (1, 3, 64, 64)}, "[1, 3, 64, 64]"),
        ({"typestr": "<f4"}, "float32 [1, 64, 64, 3]; uint8"),
        ({"typestr": "|i1"}, "int8"),
        ({"strides": (STEPS[0], STEPS[1], 3, -1)}, "gaps"),
        ({"strides": (STEPS[0], 3, STEPS[1], 1)}, "gaps"),
        ({"strides": (2 * STEPS[0], 2 * STEPS[1], 3, 1)}, "gaps"),
        ({"data": (0xDEAD000, False)}, "elsewhere; this engine runs on card 0"),
    ],
)
def test_an_interface_that_differs_is_refused(here, session, picture, changed, word):
    block = foreign(here.gpu, picture)
    before = here.gpu.calls["copy"]
    with pytest.raises(BadInputError) as caught:
        session.feed("frame", interface(block, picture, **changed))
    assert word in str(caught.value) and here.gpu.calls["copy"] == before


def test_equal_strides_and_strides_of_single_axes_are_taken(here, session, picture):
    block = foreign(here.gpu, picture)
    for steps in (STEPS, (999, *STEPS[1:])):
        session.feed("frame", interface(block, picture, strides=steps))
        session.feed("frame", Capsule(block.base, picture, strides=steps))
        np.testing.assert_array_equal(session.input("frame"), picture)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"device": (2, 1)}, "on card 1; this engine runs on card 0"),
        ({"device": (4, 0)}, "kind 4"),
        ({"strides": (STEPS[0], 3, STEPS[1], 1)}, "gaps"),
        ({"shape": (1, 64, 64)}, "[1, 64, 64]"),
        ({"lanes": 4}, "x 4"),
    ],
)
def test_a_capsule_that_differs_is_refused(here, session, picture, changed, word):
    block = foreign(here.gpu, picture)
    with pytest.raises(BadInputError) as caught:
        session.feed("frame", Capsule(block.base, picture, **changed))
    assert word in str(caught.value)


def test_numpy_and_others_are_refused_by_name(here, session, picture):
    for wrong, word in (
        (picture[0], "uint8 [64, 64, 3]"),
        (picture.astype(np.float32), "float32 [1, 64, 64, 3]"),
        ([[0]], "list"),
        (None, "NoneType"),
    ):
        with pytest.raises(BadInputError) as caught:
            session.feed("frame", wrong)
        assert word in str(caught.value) and "is expected" in str(caught.value)


def test_torchs_own_capsules_are_read_right():
    """The real thing, in host memory: torch's capsule holds what our structure says that it holds."""
    torch = pytest.importorskip("torch", reason="needs the extra 'train': torch")
    for dtype, name in ((torch.uint8, "uint8"), (torch.float32, "float32"), (torch.float16, "float16")):
        tensor = torch.zeros((2, 3, 4), dtype=dtype)
        found = _read_capsule(tensor.__dlpack__(), 0)
        assert (found.pointer, found.dtype, found.shape) == (tensor.data_ptr(), name, (2, 3, 4)) and found.contiguous
        turned = tensor.permute(2, 0, 1)
        assert not _read_capsule(turned.__dlpack__(), 0).contiguous
        assert not is_on_device(tensor)
    with pytest.raises(BadInputError, match="type"):
        _read_capsule(torch.zeros(2, dtype=torch.complex64).__dlpack__(), 0)


def test_what_is_no_array_on_a_card():
    with pytest.raises(BadInputError, match="no array on a card"), opened(object(), 1):
        pass
    assert not is_on_device(np.zeros(3)) and not is_on_device([1])


# -------------------------------------------------------------------------------------------------------- the engine
def test_an_engine_takes_clips_and_frames_from_the_card(here, untrained_bundle, tmp_path):
    """Without the batch's axis, as a program has them; no picture crosses the bus, and the answers are the same."""
    path = Path(shutil.copytree(untrained_bundle, tmp_path / "face.bundle"))
    here.plant_engines(Bundle(path))
    clip = Bundle(path).golden().clips[0]
    with logoformer.load(path, backend=here.backend, precision="fp32") as engine:
        wanted = engine(clip, color="rgb").probabilities
        block = foreign(here.gpu, clip)
        engine(interface(block, clip), color="rgb")  # captures a graph for clips that are there already
        crossed = []
        here.gpu.to_device = lambda *words, inner=here.gpu.to_device: crossed.append(words) or inner(*words)
        for array in (interface(block, clip), Capsule(block.base, clip)):
            np.testing.assert_allclose(engine(array, color="rgb").probabilities, wanted, atol=1e-6)
        assert crossed == []
        with (
            engine.stream(hop=1, color="rgb", warmup="repeat") as a,
            engine.stream(1, color="rgb", warmup="repeat") as b,
        ):
            for number, frame in enumerate(clip):
                on_card = interface(foreign(here.gpu, frame), frame)
                found = engine.step({a: (on_card, number / 25), b: (frame, number / 25)})
                np.testing.assert_allclose(found[a].probabilities, found[b].probabilities, atol=1e-6)
            single = a.push(interface(foreign(here.gpu, clip[0]), clip[0]), 9.0)
            np.testing.assert_allclose(single.probabilities, b.push(clip[0], 9.0).probabilities, atol=1e-6)


def test_what_an_engine_cannot_take_from_a_card_is_refused(here, untrained_bundle, tmp_path):
    path = Path(shutil.copytree(untrained_bundle, tmp_path / "face.bundle"))
    here.plant_engines(Bundle(path))
    clip = Bundle(path).golden().clips[0]
    array = interface(foreign(here.gpu, clip), clip)
    with logoformer.load(path, backend=here.backend, precision="fp32") as engine:
        with pytest.raises(UsageError, match="channels are not turned round there"):
            engine(array, color="bgr")
        with pytest.raises(BadInputError, match="is expected"):
            engine(interface(foreign(here.gpu, clip[:, :32]), clip[:, :32]), color="rgb")
    with logoformer.load(path, backend="onnxruntime") as engine:
        with pytest.raises(BadInputError, match="this runtime is on the CPU; nothing is moved silently"):
            engine(array, color="rgb")
        with engine.stream(color="rgb") as stream, pytest.raises(BadInputError, match="runtime is on the CPU"):
            stream.push(array, 0.0)
