"""A small convolution + attention network as ONNX bytes, the real TensorRT-RTX builder (it needs no GPU), and an
engine over sessions that can be watched.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from logoformer.bundle import GraphEntry, StreamSpec, TensorSpec
from logoformer.clips import Sampling
from logoformer.engine import Engine, Result
from logoformer.engine.sessions.contract import allocate

HEADS, DEPTH, TOKENS, CHANNELS = 2, 32, 64, 64
# conv: 64 outputs x 8 x 8 x 3 inputs x 9 taps; q, k, v, out: 64 x 64 x 64; two products: 2 heads x 64 x 64 x 32
CONV_MACS, LINEAR_MACS, PRODUCT_MACS = 64 * 64 * 27, 64 * 64 * 64, 2 * 64 * 64 * 32


@functools.cache
def _make(precision: str, *, external: bool) -> bytes:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    real = np.float16 if precision == "fp16" else np.float32
    kind = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    weights, nodes = [], []

    def constant(name: str, value: object, dtype: type) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(op: str, inputs: list[str], name: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [f"{name}:out"], name=name, **attributes))
        return f"{name}:out"

    def heads(tokens: str, name: str, order: list[int]) -> str:
        weight = constant(f"{name}.weight", rng.normal(0, 0.1, (CHANNELS, CHANNELS)), real)
        split = node("Reshape", [node("MatMul", [tokens, weight], f"{name}/MatMul"), shape], f"{name}/Reshape")
        return node("Transpose", [split], f"{name}/Transpose", perm=order)

    shape = constant("shape", [1, TOKENS, HEADS, DEPTH], np.int64)
    image = node("Cast", ["image"], "image/Cast", to=kind)
    kernel = constant("conv.weight", rng.normal(0, 0.1, (CHANNELS, 3, 3, 3)), real)
    features = node("Relu", [node("Conv", [image, kernel], "conv/Conv", pads=[1, 1, 1, 1], strides=[2, 2])], "relu")
    flat = node("Reshape", [features, constant("flat", [1, CHANNELS, TOKENS], np.int64)], "flatten")
    tokens = node("Transpose", [flat], "tokens", perm=[0, 2, 1])  # [1, 64, 64]
    q, k, v = heads(tokens, "q", [0, 2, 1, 3]), heads(tokens, "k", [0, 2, 3, 1]), heads(tokens, "v", [0, 2, 1, 3])
    weights_of = node("Softmax", [node("MatMul", [q, k], "scores/MatMul")], "softmax", axis=-1)
    mixed = node("Transpose", [node("MatMul", [weights_of, v], "mix/MatMul")], "merge", perm=[0, 2, 1, 3])
    joined = node("Reshape", [mixed, constant("joined", [1, TOKENS, CHANNELS], np.int64)], "join")
    out = constant("out.weight", rng.normal(0, 0.1, (CHANNELS, CHANNELS)), real)
    node("Cast", [node("MatMul", [joined, out], "out/MatMul")], "answer", to=TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("answer:out", TensorProto.FLOAT, [1, TOKENS, CHANNELS])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if external:
        tensor = next(item for item in model.graph.initializer if item.name == "out.weight")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="weights.bin")
    else:
        onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def small_onnx() -> Callable[..., bytes]:
    """`small_onnx("fp16")` or `small_onnx("fp32", external=True)`: the network as ONNX bytes."""
    pytest.importorskip("onnx")

    def make(precision: str, *, external: bool = False) -> bytes:
        return _make(precision, external=external)

    return make


@pytest.fixture(scope="session")
def small_macs() -> dict[str, int]:
    """Multiply-accumulates of the network by node, counted by hand."""
    linear = {f"{name}/MatMul": LINEAR_MACS for name in ("q", "k", "v", "out")}
    return {"conv/Conv": CONV_MACS, **linear, "scores/MatMul": PRODUCT_MACS, "mix/MatMul": PRODUCT_MACS}


# ---------------------------------------------------------------------------------------- sessions that can be watched
class WatchedSession:
    """A session in numpy whose answer tells which frames it was made of, and which notices what must not happen.

    The pixel `[0, 0]` of a frame is its token; the probabilities are the tokens at the last and the first place of the
    clip. `state` is shared by the sessions of one engine:

        threads: identifiers of the threads that opened, ran and closed sessions;
        runs: graphs in the order in which they ran, such as 'frame b2';
        open: sessions that are open now;
        before: called with the session at the start of each run.
    """

    def __init__(self, entry: GraphEntry, state: SimpleNamespace) -> None:
        self.name = f"{entry.graph} b{entry.batch}" if entry.batch > 1 else entry.graph
        self.state = state
        self.inputs = {spec.name: spec for spec in entry.inputs}
        self.outputs = {spec.name: spec for spec in entry.outputs}
        self.buffers = {**allocate(self.inputs), **allocate(self.outputs)}
        self.running = self.closed = False
        state.open.append(self)
        state.threads.add(threading.get_ident())

    def input(self, name: str) -> np.ndarray:
        assert not self.closed
        return self.buffers[name]

    output = input

    def run(self) -> None:
        assert not self.closed and not self.running, "two threads in one session"
        self.running = True
        self.state.threads.add(threading.get_ident())
        self.state.runs.append(self.name)
        try:
            self.state.before(self)
            self.compute()
        finally:
            self.running = False

    def compute(self) -> None:
        b = self.buffers
        if "frame" in b:
            b["tokens"][:, 0] = b["frame"][:, 0, 0]
        elif "clip" in b:
            b["probabilities"][0] = np.concatenate([b["clip"][0, -1, 0, 0], b["clip"][0, 0, 0, 0]])
        else:
            b["probabilities"][0] = b["ring"][b["order"]][[-1, 0]].reshape(-1)

    def take(self, source: WatchedSession, output: str, name: str, row: int, index: int = 0) -> None:
        assert not self.running and not source.running, "a slot is written while it is read"
        self.buffers[name][row] = source.output(output)[index]

    def close(self) -> None:
        assert not self.running and not self.closed
        self.closed = True
        self.state.open.remove(self)
        self.state.threads.add(threading.get_ident())


@pytest.fixture
def watched() -> Callable[..., Engine]:
    """`watched(faces=8, batches=(1,))` -> a real engine over `WatchedSession`, its `state` as an attribute.

    Frames are uint8 `[4, 4, 3]`; a clip has 4 of them, 0.2 s apart, the last one being the newest; a ring has
    8 slots.
    """

    def make(faces: int = 8, batches: tuple[int, ...] = (1,)) -> Engine:
        spec = StreamSpec(slots=8, faces=faces, frames=4, grid=1, window=(1, 1, 1), embed_dim=3)
        probabilities = (TensorSpec("probabilities", "float32", (1, 6)),)

        def entry(graph: str, precision: str, batch: int = 1) -> GraphEntry:
            sides = {
                "frame": (
                    (TensorSpec("frame", "uint8", (batch, 4, 4, 3)),),
                    (TensorSpec("tokens", "float32", (batch, 1, 3)),),
                ),
                "clip": ((TensorSpec("clip", "uint8", (1, 4, 4, 4, 3)),), probabilities),
                "temporal": (
                    (TensorSpec("ring", "float32", (8 * faces, 3)), TensorSpec("order", "int32", (4,))),
                    probabilities,
                ),
            }[graph]
            return GraphEntry(graph, precision, batch, graph, "", 0, 20, *sides, {})

        bundle = SimpleNamespace(
            stream=spec, sampling=Sampling(4, 1, 0.8, 10.0), labels=tuple("abcdef"), image_size=4, frames=4,
            graph=entry, path="watched.bundle", frame_batches=lambda _: batches,
        )  # fmt: skip
        state = SimpleNamespace(threads=set(), runs=[], open=[], before=lambda session: None)
        engine = Engine(bundle, lambda entry: WatchedSession(entry, state), "watched", "fp32")
        engine.state = state
        return engine

    return make


@pytest.fixture
def numbered() -> Callable[[int, int], np.ndarray]:
    """`numbered(face, number)`: a frame that says whose it is and which; number below 65536."""

    def make(face: int, number: int) -> np.ndarray:
        frame = np.zeros((4, 4, 3), np.uint8)
        frame[0, 0] = face, number % 256, number // 256
        return frame

    return make


@pytest.fixture
def told() -> Callable[[Result], tuple[int, int]]:
    """`told(result)`: the face and the number of the newest frame that an answer was made of.

    The oldest must be of the same face.
    """

    def read(result: Result) -> tuple[int, int]:
        face, low, high, oldest, *_ = (int(value) for value in result.probabilities)
        assert face == oldest, "two faces in one clip"
        return face, low + 256 * high

    return read


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`scripted("short")`: TensorRT is `scripted/tensorrt.py` here and in every process started, and fails that way."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "scripted"))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)

    def follow(script: str) -> None:
        monkeypatch.setenv("SCRIPTED_TENSORRT", script)

    yield follow
    sys.modules.pop("tensorrt", None)
