"""Shared fixtures: checkpoints and bundles, each made once a session from the package's own functions."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shlex
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores: more threads than those only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from logoformer.bundle import Bundle, BundleWriter, Golden, TensorSpec

if TYPE_CHECKING:
    from logoformer.bundle import Bundle
    from logoformer.workflows.demo import DemoReport


sys.modules.setdefault("openvino_telemetry", None)  # openvino's import would send an event over the network

# A busy machine is no fault of an example, and what a fixture makes is only read.
_CALM = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
settings.register_profile("calm", deadline=None, suppress_health_check=_CALM)
settings.load_profile("calm")

# Every process of this run inherits it, and is found by it at the end.
_MARK = "LOGOFORMER_TEST_RUNS"
_RUN = uuid.uuid4().hex


def pytest_configure() -> None:
    """`nohup` and shells without job control start a program with SIGINT ignored, which its children inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ[_MARK] = f"{os.environ.get(_MARK, '')},{_RUN}"  # a run inside a test keeps the mark of the outer one


# What takes minutes to make is made once, by one worker: who needs it runs there. Other files keep together.
_COSTLY = ("demo_run", "base_bundle", "int8_bundle", "family_bundle")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves full-size tests out unless they are asked for by their mark, and groups the others.

    For `pytest -n 2 --dist loadgroup` they are grouped by the costliest fixture that they share, else by file.

    A test that asks for a fixture by name at run time says its group itself (`pytest.mark.xdist_group`).

    What takes longest begins, so that no worker waits at the end for the other one (`--no-loadscope-reorder`).
    """
    if "full" not in config.getoption("-m"):
        left = [item for item in items if item.get_closest_marker("full")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    if not config.pluginmanager.hasplugin("xdist"):
        return
    slow = set()
    for item in items:
        own = item.get_closest_marker("xdist_group")
        needs = getattr(item, "fixturenames", ())
        file = item.nodeid.partition("::")[0]
        group = own.args[0] if own else next((name for name in _COSTLY if name in needs), file)
        if own is None:
            item.add_marker(pytest.mark.xdist_group(group))
        if item.get_closest_marker("slow"):
            slow.add(group)
    order = {group: place for place, group in enumerate((*_COSTLY, *sorted(slow - {*_COSTLY})))}
    items.sort(key=lambda item: order.get(item.get_closest_marker("xdist_group").args[0], len(order)))


def _marked() -> dict[int, str]:
    """{process id: command line} of the processes that this run started and that still run."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if _RUN.encode() in (folder / "environ").read_bytes():
                found[int(folder.name)] = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
    return found


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Fails the run if a process that a test started outlives it; multiprocessing's own tracker may."""
    yield
    deadline = time.monotonic() + 10
    while left := [words for words in _marked().values() if "resource_tracker" not in words]:
        if time.monotonic() > deadline:
            pytest.fail("left behind: " + "; ".join(left), pytrace=False)
        time.sleep(0.1)


@pytest.fixture(scope="session", autouse=True)
def operators_are_read_once() -> Iterator[None]:
    """Keeps torch's table of ONNX operators, which each export reads anew from their source text."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # a device has no torch, and another torch may keep it elsewhere
        yield
        return
    read = functools.cache(ONNXRegistry.from_torchlib)

    def copied(opset_version: int) -> ONNXRegistry:
        whole, own = read(opset_version), ONNXRegistry()
        own._opset_version = whole._opset_version
        own.functions = {name: list(found) for name, found in whole.functions.items()}
        return own

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(copied))
        yield


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The trust store of the tests, and of every process that they start: never the user's own."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder / "logoformer"


# Two frames of 4 x 4 pixels, 2 x 2 tokens of 3 channels each; a ring of 5 slots for 2 faces; 3 classes.
_ANSWER = TensorSpec("probabilities", "float32", (1, 3))
_TENSORS = {
    "clip": ((TensorSpec("clip", "uint8", (1, 2, 4, 4, 3)),), (_ANSWER,)),
    "frame": ((TensorSpec("frame", "uint8", (1, 4, 4, 3)),), (TensorSpec("tokens", "float32", (1, 4, 3)),)),
    "temporal": ((TensorSpec("ring", "float32", (40, 3)), TensorSpec("order", "int32", (8,))), (_ANSWER,)),
}


def _golden(salt: str) -> Golden:
    random = np.random.default_rng(len(salt))
    return Golden(random.integers(0, 256, (4, 2, 4, 4, 3), np.uint8), random.dirichlet([1, 1, 1], 4).astype(np.float32))


def _write(
    path: Path,
    salt: str,
    *,
    make: Callable[[str, str], bytes] | None = None,
    precisions: tuple[str, ...] = ("fp32", "fp16"),
    **changes: Any,
) -> Bundle:
    writer = BundleWriter(path)
    make = make or (lambda graph, precision: f"{graph} {precision} {salt} ".encode() * 40)
    graphs = [
        writer.add_graph(
            make(graph, precision),
            graph=graph, precision=precision, batch=1, opset=20, inputs=ins, outputs=outs, macs={precision: 1000},
        )
        for precision in precisions
        for graph, (ins, outs) in _TENSORS.items()
    ]  # fmt: skip
    manifest = {
        "model": {"preset": "small"},
        "labels": ["calm", "glad", "Zürich"],
        "preprocessing": {"size": 4},
        "sampling": {"segments": 2, "frames_per_segment": 1, "span_s": 1.0, "fps": 10.0},
        "stream": {"slots": 5, "faces": 2, "frames": 2, "grid": 2, "window": [2, 1, 2], "embed_dim": 3},
        "graphs": graphs,
        "precisions": {name: {"verdict": "accept", "reason": "said so"} for name in precisions},
        "golden": writer.add_golden(_golden(salt), "noise"),
        "provenance": {"salt": salt},
    }
    return writer.commit({**manifest, **changes})


@pytest.fixture
def write_bundle() -> Callable[..., Bundle]:
    """`write_bundle(path, salt)`: a whole bundle but for its graphs, which are some bytes that the salt decides.

    `make(graph, precision)` gives other bytes, `precisions=` others than FP32 and FP16; the rest are manifest fields.
    """
    return _write


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A bundle of some kilobytes."""
    return _write(tmp_path / "face.bundle", "one").path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained `tiny`, whose answers differ between clips."""
    pytest.importorskip("torch", reason="a checkpoint needs the extra 'train'")
    from logoformer.workflows.init import init_checkpoint

    return init_checkpoint("tiny", tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def untrained_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `tiny_checkpoint`, FP32 and FP16. Copy it before changing it."""
    return _export(tiny_checkpoint, tmp_path_factory.mktemp("untrained") / "tiny.bundle", clips=16)


# The small preset of each family: what every folder's tests run over.
FAMILIES = ("tiny", "former-dfer-tiny", "mae-dfer-tiny")


@pytest.fixture(scope="session", params=FAMILIES)
def family_bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained bundle of each family, FP32 and FP16. Copy it before changing it."""
    if request.param == "tiny":
        return Path(request.getfixturevalue("untrained_bundle"))
    pytest.importorskip("torch", reason="a checkpoint needs the extra 'train'")
    return _full_size(request.param, tmp_path_factory, clips=8)


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoReport, Path]:
    """One whole demo: minutes. What is trained in the tests is trained here; tests that ask for it are marked slow."""
    from logoformer.workflows.demo import demo

    folder = tmp_path_factory.mktemp("demo") / "demo"
    return demo(folder, progress=lambda *_: None, say=print), folder


@pytest.fixture(scope="session")
def trained_checkpoint(demo_run: tuple[DemoReport, Path]) -> Path:
    """`tiny` trained on synthetic faces."""
    return demo_run[1] / "checkpoint"


@pytest.fixture(scope="session")
def tiny_bundle(demo_run: tuple[DemoReport, Path]) -> Path:
    """The bundle of `trained_checkpoint`. Copy it before changing it."""
    return demo_run[1] / "face.bundle"


@pytest.fixture(scope="session")
def base_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of an untrained `base`, FP32 and FP16, judged on 32 clips: a minute. Copy it before changing it."""
    return _full_size("base", tmp_path_factory)


@pytest.fixture(scope="session")
def wide_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of an untrained `wide`, on 8 clips."""
    return _full_size("wide", tmp_path_factory, clips=8)


def _full_size(preset: str, tmp_path_factory: pytest.TempPathFactory, clips: int = 32) -> Path:
    from logoformer.workflows.init import init_checkpoint

    folder = tmp_path_factory.mktemp(preset)
    return _export(init_checkpoint(preset, folder / preset), folder / f"{preset}.bundle", clips)


def _export(checkpoint: Path, out: Path, clips: int) -> Path:
    from logoformer.export.exporter import ExportConfig
    from logoformer.workflows.export import export_checkpoint

    return export_checkpoint(checkpoint, out, ExportConfig(), clips=clips).path


@pytest.fixture(scope="session")
def add_batches() -> Callable[..., Bundle]:
    """`add_batches(path)`: adds graphs for 2, 4 and 8 faces to a bundle, as `export --batches` does."""
    pytest.importorskip("onnx", reason="exporting needs the extra 'export'")

    def add(
        path: Path,
        batches: Sequence[int] = (2, 4, 8),
        change: Callable[[Any], Any] = lambda model: model,
    ) -> Bundle:
        import onnx
        from logoformer.bundle import Bundle, BundleWriter
        from logoformer.export.batches import BATCHED, write_batches
        from logoformer.export.parity import ort_runner

        bundle = Bundle(path)
        singles = {
            p: {name: onnx.load_from_string(bundle.read_graph(bundle.graph(name, p))) for name in BATCHED}
            for p in bundle.precisions
        }
        writer = BundleWriter(path)
        entries = write_batches(
            writer, singles, batches, bundle.golden().clips, bundle.stream,
            lambda name, model: ort_runner(name, change(model)),
        )  # fmt: skip
        return writer.commit({**bundle.manifest, "graphs": [*bundle.manifest["graphs"], *entries]})

    return add


@pytest.fixture(scope="session")
def rtx() -> object:
    """The real TensorRT-RTX, or a skip."""
    return pytest.importorskip("tensorrt_rtx", reason="the builder tests need the extra 'rtx'")


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`fails(code, *words, names=())`: the command line ends with that code, names the files and a next step.

    A next step that is a command of ours must be one that our own parser takes.
    """
    from logoformer.cli import main as cli

    def check(code: int, *words: object, names: tuple[object, ...] = ()) -> str:
        capsys.readouterr()
        given = [str(word) for word in words]
        found = cli.main(given)
        text = capsys.readouterr().err
        assert found == code, text
        assert "Traceback" not in text
        following = re.search(r"^Next: (.+)$", text, re.MULTILINE)
        assert following is not None, text
        if following[1].startswith("logoformer ") and not following[1].endswith(" --help"):
            cli.make_parser().parse_args(shlex.split(following[1])[1:])
        for name in names:
            assert str(name) in text
        return text

    return check


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """`contents(folder)`: every file below it but locks, by relative name."""

    def read(folder: Path) -> dict[str, bytes]:
        found = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}

    return read


@pytest.fixture
def impatient() -> Iterator[None]:
    """Ends a test that waits for a pipe's other end, which would wait for ever."""

    def give_up(*_: object) -> None:
        raise TimeoutError("it waited")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def few_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of synthetic faces in DFEW's layout: 84 clips, 64 and more of them for training in fold 1."""
    from logoformer.model.synthetic.layout import synth

    return synth(tmp_path_factory.mktemp("data") / "few-faces", identities=8, side=64).path


@pytest.fixture(scope="session")
def int8_bundle(untrained_bundle: Path, few_faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`untrained_bundle` with INT8, calibrated on 64 clips. Copy it before changing it."""
    from logoformer.workflows.quantize import Calibration, quantize

    path = tmp_path_factory.mktemp("int8") / "tiny.bundle"
    shutil.copytree(untrained_bundle, path)
    return quantize(path, Calibration(few_faces, clips=64)).path


@pytest.fixture(scope="session")
def base_int8(base_bundle: Path, few_faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base_bundle` with INT8, calibrated on eight clips. Copy it before changing it."""
    from logoformer.workflows.quantize import Calibration, quantize

    path = Path(shutil.copytree(base_bundle, tmp_path_factory.mktemp("base-int8") / "base.bundle"))
    return quantize(path, Calibration(few_faces, clips=8, few=True)).path


# ------------------------------------------------------------------- a small convolution + attention network in ONNX
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
