"""One suite for ONNX Runtime and for the doubles of four TensorRTs with two CUDA layers: the same answers, no leak."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import logoformer
import numpy as np
import pytest
from doubles import container, trt
from doubles.machine import FACES, Machine, machine
from logoformer.bundle import Bundle
from logoformer.engine.golden import golden_answers
from logoformer.errors import BadInputError, UsageError

MACHINES = [(version, layer) for version in trt.VERSIONS for layer in FACES]
PLACES = [None, *MACHINES]
FRAMES = np.random.default_rng(3).integers(0, 256, (60, 64, 64, 3), dtype=np.uint8)


def shown(place: Any) -> str:
    return "onnxruntime" if place is None else "-".join(place)


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return Bundle(untrained_bundle)


@pytest.fixture(scope="module")
def reference(bundle: Bundle) -> dict[str, np.ndarray]:
    """What ONNX Runtime answers: clips, the pair, and a stream."""
    with logoformer.load(bundle, precision="fp32", threads=1) as runtime:
        return answers(runtime)


def answers(runtime: Any) -> dict[str, np.ndarray]:
    golden = runtime.bundle.golden()
    with runtime.stream(hop=3, color="bgr", warmup="repeat") as one, runtime.stream(hop=4, color="rgb") as two:
        results = []
        for number, frame in enumerate(FRAMES):
            results.append(one.push(frame, number / 15))
            results.append(two.push(frame[::-1], number / 15 + 0.01))
        results += [one.flush(), two.flush()]
        stepped = runtime.step({one: (FRAMES[0], 9.0), two: (FRAMES[1], 9.0)})
        results += [*stepped.values(), one.flush(), two.flush()]
    clip, pair = golden_answers(runtime, golden)
    return {
        "clip": clip,
        "pair": pair,
        "stream": np.stack([result.probabilities for result in results if result is not None]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("place", [("10.3", "cuda-python"), ("rtx-1.7", "pycuda")], ids=shown)
def test_base_answers_alike_and_leaves_nothing(place, base_bundle, tmp_path):
    """The same at full size: one clip, and a stream that answers before and after its ring is warm."""
    bundle = Bundle(base_bundle)
    size, clip = bundle.image_size, bundle.golden().clips[0]
    frames = np.random.default_rng(4).integers(0, 256, (6, size, size, 3), dtype=np.uint8)

    def answers_of(runtime: Any) -> np.ndarray:
        with runtime.stream(hop=3, color="rgb", warmup="repeat") as stream:
            results = [stream.push(frame, number / 5) for number, frame in enumerate(frames)]
        found = [result.probabilities for result in results if result is not None]
        return np.stack([runtime(clip, color="rgb").probabilities, *found])

    with logoformer.load(bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        wanted = answers_of(runtime)
    with machine(*place) as here, quiet(here.layer):
        folder = here.plant_engines(bundle, folder=tmp_path)
        with logoformer.load(bundle, backend=here.backend, precision="fp32", engines_dir=folder) as runtime:
            found = answers_of(runtime)
        assert here.gpu.leaks() == {}
    assert found.shape == (3, len(bundle.labels))
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)


def quiet(layer: str) -> Any:
    """pycuda has no graphs and says so; every other warning is an error."""
    return pytest.warns(RuntimeWarning, match="no CUDA graphs") if layer == "pycuda" else nullcontext()


@pytest.mark.parametrize("place", PLACES, ids=shown)
def test_every_backend_answers_alike_and_leaves_nothing(place, bundle, reference, tmp_path):
    """Clips, the streaming pair, streams of two faces, `step`: on ONNX Runtime and on every double."""
    if place is None:
        with logoformer.load(bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime:
            found = answers(runtime)
    else:
        with machine(*place) as here:
            folder = here.plant_engines(bundle, folder=tmp_path)
            with quiet(here.layer):
                runtime = logoformer.load(bundle, backend=here.backend, precision="fp32", engines_dir=folder)
                found = answers(runtime)
            assert here.trt.version in runtime.backend and here.gpu.sm in runtime.backend
            runtime.close()
            runtime.close()
            assert here.gpu.leaks() == {}
            assert here.gpu.calls["enqueue"] > 0 and bool(here.gpu.calls["launch"]) == (here.layer == "cuda-python")
    assert found["stream"].shape == reference["stream"].shape and len(found["stream"]) >= 30
    for name, wanted in reference.items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-6, rtol=0, err_msg=name)


@pytest.fixture(params=MACHINES, ids=shown)
def here(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with machine(*request.param) as found, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        yield found
        assert found.gpu.leaks() == {}


@pytest.fixture
def card() -> Iterator[Machine]:
    """The machine for what does not depend on versions: TensorRT 10.3 with cuda-python."""
    with machine("10.3", "cuda-python") as found:
        yield found
        assert found.gpu.leaks() == {}


COPIES = ("upload", "download", "move")


def moved(here: Machine, call: Any) -> list[str]:
    """The copies that a call makes, also those inside of a graph."""
    here.gpu.history = []
    call()
    found, here.gpu.history = here.gpu.history, None
    return [operation.what for operation in found if operation.what in COPIES]


def test_a_session_copies_only_what_the_host_wrote_and_reads(here, bundle):
    cuda = logoformer.engine.cuda.open.open_cuda(here.layer)
    frame, temporal = here.open(bundle, "frame", cuda), here.open(bundle, "temporal", cuda)
    np.copyto(frame.input("frame")[0], FRAMES[0])
    temporal.input("order")[:] = 0
    assert moved(here, frame.run) == ["upload"]  # the picture; the tokens stay on the card
    temporal.take(frame, "tokens", "ring", 0)
    assert moved(here, temporal.run) == ["move", "upload", "download"]  # the row; order in, probabilities out
    assert moved(here, temporal.run) == ["upload", "download"]
    rows = frame.output("tokens").shape[1]
    np.testing.assert_array_equal(temporal.input("ring")[:rows], frame.output("tokens")[0])
    frame.close()
    temporal.close()


def test_the_steady_state_allocates_nothing_on_the_card(here, bundle):
    session = here.open(bundle, "clip")
    session.output("probabilities")
    kinds = ("malloc", "host_alloc", "stream_create", "event_create", "instantiate")
    before = [here.gpu.calls[kind] for kind in kinds]
    addresses = [session.input("clip").ctypes.data, session.output("probabilities").ctypes.data]
    for _ in range(20):
        session.run()
    assert [here.gpu.calls[kind] for kind in kinds] == before
    assert addresses == [session.input("clip").ctypes.data, session.output("probabilities").ctypes.data]
    session.close()


def test_a_taken_row_is_not_overwritten_by_the_next_frame(here, bundle):
    """`take` waits in the temporal stream while the next frame is computed in the other one: events keep the order."""
    cuda = logoformer.engine.cuda.open.open_cuda(here.layer)
    frame, temporal = here.open(bundle, "frame", cuda), here.open(bundle, "temporal", cuda)
    tokens = []
    for slot, picture in enumerate(FRAMES[:4]):
        np.copyto(frame.input("frame")[0], picture)
        frame.run()
        temporal.take(frame, "tokens", "ring", slot * frame.outputs["tokens"].shape[1])
    for picture in FRAMES[:4]:
        np.copyto(frame.input("frame")[0], picture)
        frame.run()
        tokens.append(frame.output("tokens")[0].copy())
    np.testing.assert_array_equal(temporal.input("ring")[: 4 * len(tokens[0])], np.concatenate(tokens))
    frame.close()
    temporal.close()


@pytest.fixture(scope="module")
def batched(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with graphs for one face and for two."""
    from logoformer.export.exporter import ExportConfig
    from logoformer.workflows.export import export_checkpoint

    out = tmp_path_factory.mktemp("batched") / "two.bundle"
    return export_checkpoint(tiny_checkpoint, out, ExportConfig(precisions=("fp32",), batches=(2,)), clips=16)


def test_faces_in_one_batch_take_their_own_tokens(here, batched, tmp_path):
    """`step` over engines of batch 2: each face's ring gets its half, and both are answered from the one ring."""
    bundle, found = batched, []
    folder = here.plant_engines(bundle, folder=tmp_path)
    for backend in ("onnxruntime", here.backend):
        with logoformer.load(bundle, backend=backend, precision="fp32", engines_dir=folder) as runtime:
            assert runtime.frame_batches == runtime.temporal_batches == (1, 2)
            with (
                runtime.stream(hop=2, color="rgb", warmup="repeat") as one,
                runtime.stream(hop=2, color="rgb", warmup="repeat") as two,
            ):
                given = []
                for number in range(4):  # the session that answers two opens at the second frame, on a ring in use
                    pushed = {one: (FRAMES[number], number / 8), two: (FRAMES[-number - 1], number / 8)}
                    given += [result for result in runtime.step(pushed).values() if result is not None]
                assert len(given) == 4 and ("temporal", 2) in runtime._sessions
                given += [one.flush(), two.flush()]
                found.append(np.stack([result.probabilities for result in given]))
    np.testing.assert_allclose(found[0], found[1], atol=1e-6, rtol=0)
    assert not np.allclose(found[0][0], found[0][1], atol=1e-6)


def test_a_ring_written_by_hand_reaches_those_who_share_it(here, batched, tmp_path):
    """What is on the host for one session's ring is sent before another one reads it, and is read back there."""
    bundle = batched
    folder = here.plant_engines(bundle, folder=tmp_path)
    spec, rng = bundle.stream, np.random.default_rng(1)
    ring = rng.standard_normal((spec.rows, spec.embed_dim)).astype(np.float32)
    orders = rng.integers(0, spec.rows, (2, spec.frames * spec.tokens_per_frame), dtype=np.int32)
    found = {}
    for backend in ("onnxruntime", here.backend):
        with logoformer.load(bundle, backend=backend, precision="fp32", engines_dir=folder) as runtime:
            one, two = runtime.session("temporal"), runtime.session("temporal", 2)
            two.input("ring")[:] = ring
            two.input("order")[:] = orders
            two.run()
            one.input("order")[:] = orders[1]
            one.run()
            found[backend] = np.concatenate([two.output("probabilities"), one.output("probabilities")])
            np.testing.assert_array_equal(one.input("ring"), ring)
    np.testing.assert_allclose(found[here.backend], found["onnxruntime"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(found["onnxruntime"][1], found["onnxruntime"][2], atol=1e-6, rtol=0)


def test_take_refuses_what_does_not_fit(card, bundle):
    cuda = logoformer.engine.cuda.open.open_cuda("cuda-python")
    frame, temporal = card.open(bundle, "frame", cuda), card.open(bundle, "temporal", cuda)
    other = card.open(bundle, "frame")
    rows = temporal.inputs["ring"].shape[0]
    for row, index in ((-1, 0), (rows - 1, 0), (rows, 0), (0, 1), (0, -1)):
        with pytest.raises(BadInputError, match="does not fit"):
            temporal.take(frame, "tokens", "ring", row, index)
    with pytest.raises(UsageError, match="same card"):
        temporal.take(other, "tokens", "ring", 0)
    for session in (frame, temporal, other):
        session.close()


class Clock:
    """Each run takes as long as the memory of `slow` that it uses says."""

    def __init__(self, session: type, costs: dict[str, int], kind: str = "mapped") -> None:
        self.now, self._costs, self._plain, self._kind = 0, costs, session._plain, kind
        self.asked: list[str] = []

    def __call__(self) -> int:
        self.now += 1
        return self.now

    def plain(self, session: Any, place: int, graph: int | None = None) -> None:
        self._plain(session, place, graph)
        kinds = {name: tensor.kind for name, tensor in session._buffers.tensors.items()}
        self.asked.append("".join(kind[0] for kind in kinds.values()))
        self.now += 10_000_000 + sum(self._costs.get(name, 0) for name, kind in kinds.items() if kind == self._kind)


@pytest.mark.parametrize("gains", [(), ("clip",), ("probabilities",), ("clip", "probabilities")], ids=str)
@pytest.mark.parametrize("layer", FACES)
def test_on_a_jetson_the_host_memory_of_each_tensor_is_chosen_by_measuring(
    layer, gains, bundle, reference, monkeypatch
):
    """Warmed up, in turns, one tensor after the other."""
    from logoformer.engine.sessions.trt import TrtSession

    clock = Clock(TrtSession, {name: -999 if name in gains else 999 for name in ("clip", "probabilities")})
    monkeypatch.setattr("logoformer.engine.sessions.trt_memory.perf_counter_ns", clock)
    monkeypatch.setattr(TrtSession, "_plain", lambda *words: clock.plain(*words))
    with machine("10.3", layer, sm="sm87", integrated=True) as here, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        session = here.open(bundle, "clip")
        chosen = {name for name, tensor in session._buffers.tensors.items() if tensor.kind == "mapped"}
        assert chosen == set(gains)
        turns = "".join(clock.asked[50 : 50 + 4 * 9 : 2])  # after half a second of load, two runs a turn
        assert turns == "ppmp" + "mpppppmp" * 4
        golden = bundle.golden()
        found = []
        for clip in golden.clips:
            np.copyto(session.input("clip")[0], clip)
            copies = moved(here, session.run)
            assert len(copies) == 2 - len(gains)
            found.append(session.output("probabilities")[0].copy())
        np.testing.assert_allclose(found, reference["clip"], atol=1e-6, rtol=0)
        session.close()
        assert here.gpu.leaks() == {}


@pytest.mark.parametrize("concurrent", [True, False])
@pytest.mark.parametrize("layer", FACES)
def test_managed_memory_is_tried_where_the_host_may_touch_it(
    layer, concurrent, bundle, reference, tmp_path, monkeypatch
):
    """A stream whose pictures lie in managed memory answers alike; a board that says no is not asked."""
    from logoformer.engine.sessions.trt import TrtSession

    clock = Clock(TrtSession, dict.fromkeys(("frame", "order", "clip", "probabilities"), -999), "managed")
    monkeypatch.setattr("logoformer.engine.sessions.trt_memory.perf_counter_ns", clock)
    monkeypatch.setattr(TrtSession, "_plain", lambda *words: clock.plain(*words))
    with machine("10.3", layer, sm="sm110", integrated=True, concurrent=concurrent) as here, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        folder = here.plant_engines(bundle, folder=tmp_path)
        with logoformer.load(bundle, backend="tensorrt", precision="fp32", engines_dir=folder) as runtime:
            found = answers(runtime)
            kinds = {name: tensor.kind for name, tensor in runtime.session("frame")._buffers.tensors.items()}
            assert kinds == {"frame": "managed" if concurrent else "pinned", "tokens": "device"}
        assert here.gpu.leaks() == {}
    for name, wanted in reference.items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-6, rtol=0, err_msg=name)


@pytest.mark.parametrize("layer", FACES)
def test_a_stream_on_mapped_pictures_answers_alike(layer, bundle, reference, tmp_path, monkeypatch):
    """Both places of the picture are addresses of the engine then."""
    from logoformer.engine.sessions.trt import TrtSession

    clock = Clock(TrtSession, {"frame": -999, "order": -999, "probabilities": 999})
    monkeypatch.setattr("logoformer.engine.sessions.trt_memory.perf_counter_ns", clock)
    monkeypatch.setattr(TrtSession, "_plain", lambda *words: clock.plain(*words))
    with machine("10.3", layer, sm="sm87", integrated=True) as here, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        folder = here.plant_engines(bundle, folder=tmp_path)
        with logoformer.load(bundle, backend="tensorrt", precision="fp32", engines_dir=folder) as runtime:
            found = answers(runtime)
            kinds = {name: tensor.kind for name, tensor in runtime.session("frame")._buffers.tensors.items()}
            assert kinds == {"frame": "mapped", "tokens": "device"}
        assert here.gpu.leaks() == {}
    for name, wanted in reference.items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-6, rtol=0, err_msg=name)


class ShortClock(Clock):
    """Runs take half a millisecond, but for `rising` of them."""

    def __init__(self, session: type, costs: dict[str, int], rising: int = 0) -> None:
        super().__init__(session, costs)
        self.rising = rising

    def plain(self, session: Any, place: int, graph: int | None = None) -> None:
        super().plain(session, place, graph)
        self.now -= 0 if len(self.asked) <= self.rising else 9_500_000


@pytest.mark.parametrize("gains", [(), ("order",), ("probabilities",), ("order", "probabilities")], ids=str)
@pytest.mark.parametrize("layer", FACES)
def test_a_card_with_its_own_memory_measures_small_tensors_alone(
    layer, gains, bundle, reference, tmp_path, monkeypatch
):
    """Whatever a picture would gain: it is copied. A stream on what was chosen answers alike."""
    from logoformer.engine.sessions.trt import TrtSession

    costs = {name: -999 if name in gains else 999 for name in ("order", "probabilities")}
    clock = ShortClock(TrtSession, {**costs, "frame": -999, "clip": -999}, rising=3)
    monkeypatch.setattr("logoformer.engine.sessions.trt_memory.perf_counter_ns", clock)
    monkeypatch.setattr(TrtSession, "_plain", lambda *words: clock.plain(*words))
    with machine("10.3", layer) as here, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        folder = here.plant_engines(bundle, folder=tmp_path)
        with logoformer.load(bundle, backend="tensorrt", precision="fp32", engines_dir=folder) as runtime:
            found = answers(runtime)
            sessions = [runtime.session(graph) for graph in ("clip", "frame", "temporal")]
            kinds = {n: tensor.kind for session in sessions for n, tensor in session._buffers.tensors.items()}
            copies = moved(here, sessions[2].run)
        assert here.gpu.leaks() == {}
    wanted = {"clip": "pinned", "frame": "pinned", "tokens": "device", "ring": "device"}
    assert kinds == wanted | {name: "mapped" if name in gains else "pinned" for name in costs}
    assert len(copies) == 2 - len(gains)
    for name, answer in reference.items():
        np.testing.assert_allclose(found[name], answer, atol=1e-6, rtol=0, err_msg=name)


@pytest.mark.parametrize(("rising", "runs"), [(0, 2 + 4 * 25), (5, 6 + 4 * 25), (99, 6)])
def test_there_a_run_must_be_short_and_waiting_for_it_is_short_too(rising, runs, bundle, monkeypatch):
    """Clocks may rise for 50 ms; half a second of load is for boards alone. 25 turns, of two runs each."""
    from logoformer.engine.sessions.trt import TrtSession

    clock = ShortClock(TrtSession, {"probabilities": -999}, rising)
    monkeypatch.setattr("logoformer.engine.sessions.trt_memory.perf_counter_ns", clock)
    monkeypatch.setattr(TrtSession, "_plain", lambda *words: clock.plain(*words))
    with machine("10.3", "pycuda") as here, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        session = here.open(bundle, "clip")
        assert len(clock.asked) == runs + 1  # and one before a graph would be captured
        assert session._buffers.tensors["probabilities"].kind == ("mapped" if runs > 6 else "pinned")
        session.close()


def test_where_runs_are_long_a_card_with_its_own_memory_is_not_probed(card, bundle):
    session = card.open(bundle, "clip")
    assert {tensor.kind for tensor in session._buffers.tensors.values()} == {"pinned"} and session._graphs[0]
    session.close()


class Store:
    """A place for RTX's runtime cache."""

    def __init__(self, kept: bytes | None = None) -> None:
        self.kept, self.saved = kept, 0

    def load(self) -> bytes | None:
        return self.kept

    def save(self, data: bytes) -> None:
        self.kept, self.saved = data, self.saved + 1


@pytest.mark.parametrize("layer", FACES)
def test_rtx_keeps_its_kernels_and_takes_them_back(layer, bundle):
    with machine("rtx-1.7", layer) as here, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = Store()
        here.open(bundle, "clip", cache=store).close()
        assert store.kept is not None and store.kept.startswith(b"KERNELS") and store.saved == 1
        assert here.gpu.calls["cache_deserialize"] == 0
        here.open(bundle, "clip", cache=store).close()
        assert here.gpu.calls["cache_deserialize"] == 1 and store.saved == 1  # unchanged, so not written again
        other = Store(b"of another driver")
        here.open(bundle, "clip", cache=other).close()
        assert other.kept == store.kept
        assert here.gpu.leaks() == {}


def test_the_runtime_cache_lives_outside_the_bundle_and_is_trusted_by_hash(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with machine("rtx-1.7", "cuda-python") as here:
        folder = here.plant_engines(bundle, folder=tmp_path / "engines")

        def start() -> int:
            before = here.gpu.calls["cache_deserialize"]
            with logoformer.load(bundle, backend="tensorrt_rtx", precision="fp32", engines_dir=folder) as runtime:
                runtime.session("clip")
            return here.gpu.calls["cache_deserialize"] - before

        assert (start(), start()) == (0, 1)
        (kept,) = (path for path in (tmp_path / "state").rglob("runtime.*") if path.is_file())
        kept.write_bytes(kept.read_bytes() + b"native code of somebody else")
        with pytest.warns(RuntimeWarning, match="not the file that was recorded"):
            assert start() == 0
        assert here.gpu.leaks() == {}


def test_lazy_loading_is_asked_for_before_the_driver_starts(card, bundle, monkeypatch):
    monkeypatch.delenv("CUDA_MODULE_LOADING", raising=False)
    logoformer.engine.cuda.open.open_cuda("cuda-python")
    import os

    assert os.environ["CUDA_MODULE_LOADING"] == "LAZY"


def test_other_tensors_than_promised_are_refused(card, bundle):
    from logoformer.engine.sessions.trt import TrtSession
    from logoformer.errors import RefusedError

    frame, clip = bundle.graph("frame", "fp32"), bundle.graph("clip", "fp32")
    data = card.engine_of(bundle.read_graph(frame))
    with pytest.raises(RefusedError, match="promises"):
        TrtSession(card.trt, logoformer.engine.cuda.open.open_cuda("cuda-python"), data, clip)


def test_bytes_of_another_version_are_explained(card, bundle):
    from logoformer.engine.sessions.trt import TrtSession
    from logoformer.errors import MachineError

    entry = bundle.graph("clip", "fp32")
    data = container.pack("10.7.0", "tensorrt", bundle.read_graph(entry))
    with pytest.raises(MachineError, match="does not take") as caught:
        TrtSession(card.trt, logoformer.engine.cuda.open.open_cuda("cuda-python"), data, entry)
    assert any("Version tag does not match" in line for line in caught.value.log)
