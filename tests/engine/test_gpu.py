"""The same promises on a real card: run by `make gpu-test` where there is one.

Each test asks for what it needs and skips naming what is missing. Nothing here reports a time.
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
from logoformer.bundle import Bundle
from logoformer.engine.builder.bundle import build_bundle
from logoformer.engine.builder.compile import BuildOptions
from logoformer.engine.cuda.layer import Cuda
from logoformer.engine.cuda.open import LAYERS, open_cuda
from logoformer.engine.golden import answers_of_clip, golden_answers
from logoformer.engine.machine.environment import find_gpu
from logoformer.engine.machine.targets import RTX_SMS
from logoformer.engine.machine.tensorrt import find_module
from logoformer.engine.sessions.trt import TrtSession
from logoformer.engine.verify import verify
from logoformer.errors import MachineError, UsageError

pytestmark = pytest.mark.gpu
BACKENDS = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}


@pytest.fixture(scope="module", autouse=True)
def gpu() -> Any:
    found = find_gpu()
    if found is None:
        pytest.skip("no NVIDIA GPU or no driver (libcuda.so.1)")
    return found


@pytest.fixture(scope="module", params=LAYERS)
def layer(request: pytest.FixtureRequest) -> str:
    try:
        open_cuda(request.param)
    except MachineError as error:
        pytest.skip(error.what)
    return request.param


@pytest.fixture(scope="module", params=BACKENDS)
def built(
    request: pytest.FixtureRequest, gpu: Any, untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Bundle]:
    """(backend, bundle with engines that were built here)."""
    target = BACKENDS[request.param]
    try:
        find_module(target)
    except MachineError as error:
        pytest.skip(error.what)
    if target == "rtx" and gpu.compute_capability not in RTX_SMS:
        pytest.skip(f"TensorRT-RTX does not know {gpu.compute_capability}")
    folder = tmp_path_factory.mktemp(request.param) / "face.bundle"
    shutil.copytree(untrained_bundle, folder)
    build_bundle(folder, BuildOptions(target))
    return request.param, Bundle(folder)


@pytest.fixture
def runtime(built: tuple[str, Bundle], layer: str) -> Iterator[Any]:
    backend, bundle = built
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no CUDA graphs")
        with logoformer.load(bundle, backend=backend, precision="fp32", cuda=layer) as opened:
            yield opened


def test_answers_equal_onnx_runtime(runtime):
    golden = runtime.bundle.golden()
    with logoformer.load(runtime.bundle, backend="onnxruntime", precision="fp32", threads=1) as reference:
        for found, wanted in zip(golden_answers(runtime, golden), golden_answers(reference, golden), strict=True):
            np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=0)


def test_fp16_answers_within_the_exports_bound(built, layer):
    backend, bundle = built
    golden = bundle.golden()
    with logoformer.load(bundle, backend=backend, precision="fp16", cuda=layer) as runtime:
        np.testing.assert_allclose(
            answers_of_clip(runtime.session("clip"), golden), golden.probabilities, atol=5e-3, rtol=0
        )


def test_cuda_python_starts_by_a_graph(runtime, layer):
    session = runtime.session("clip")
    assert (session._graph is not None) == (layer == "cuda-python")


def test_memory_comes_back(built, layer):
    backend, bundle = built
    cuda = open_cuda(layer)

    def once() -> int:
        with logoformer.load(bundle, backend=backend, precision="fp32", cuda=layer) as runtime:
            runtime(bundle.golden().clips[0], color="rgb")
        with cuda:
            return cuda.memory()[0]

    once()  # the driver keeps what it loads at first use
    first = once()
    assert min(once() for _ in range(5)) >= first - (8 << 20)


def test_streams_of_two_faces_equal_onnx_runtime(runtime):
    frames = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)

    def answers(of: Any) -> np.ndarray:
        with of.stream(hop=4, color="bgr", warmup="repeat") as one, of.stream(hop=4, color="rgb") as two:
            results = []
            for number, frame in enumerate(frames):
                results += [one.push(frame, number / 15), two.push(frame[::-1], number / 15)]
            results += [one.flush(), two.flush()]
        return np.stack([result.probabilities for result in results if result is not None])

    with logoformer.load(runtime.bundle, backend="onnxruntime", precision="fp32", threads=1) as reference:
        np.testing.assert_allclose(answers(runtime), answers(reference), atol=1e-4, rtol=0)


@pytest.mark.parametrize("library", ["torch", "cupy"])
def test_arrays_on_the_card_need_no_host(runtime, library):
    picture = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    module = pytest.importorskip(library, reason=f"needs {library} for this card")
    if library == "torch" and not module.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    if library == "cupy" and not module.is_available():
        pytest.skip("this cupy finds no card")
    session: TrtSession = runtime.session("frame")
    session.feed("frame", picture)
    session.run()
    wanted = session.output("tokens").copy()
    session.feed("frame", np.zeros_like(picture))
    session.run()
    session.feed("frame", module.asarray(picture).cuda() if library == "torch" else module.asarray(picture))
    session.run()
    np.testing.assert_array_equal(session.output("tokens"), wanted)


def test_it_lives_beside_torch(runtime):
    torch = pytest.importorskip("torch", reason="needs torch for this card")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    clip = runtime.bundle.golden().clips[0]
    wanted = runtime(clip, color="rgb").probabilities
    left = torch.randn(256, 256, device="cuda")
    product = left @ left
    np.testing.assert_array_equal(runtime(clip, color="rgb").probabilities, wanted)
    torch.testing.assert_close(left @ left, product)


def test_a_card_that_is_not_there(layer):
    with pytest.raises(MachineError, match="finds no card 99"):
        open_cuda(layer, 99)


def test_the_layers_say_the_same_of_the_card(gpu, layer):
    cuda: Cuda = open_cuda(layer)
    assert (cuda.compute_capability, cuda.integrated) == (gpu.compute_capability, gpu.integrated)
    with cuda:
        free, total = cuda.memory()
        assert 0 < free <= total
        pointer = cuda.alloc(1 << 20)
        assert cuda.owns(pointer, 1 << 20) and not cuda.owns(0xDEAD000, 1)
        cuda.free(pointer)


def test_use_after_close_is_refused(runtime):
    session = runtime.session("frame")
    runtime.close()
    with pytest.raises(UsageError, match="is closed"):
        session.run()


def test_onnx_runtime_on_the_card_answers_every_clip_anew(untrained_bundle):
    try:
        opened = logoformer.load(untrained_bundle, backend="onnxruntime-cuda", precision="fp32")
    except MachineError as error:
        pytest.skip(error.what)
    with opened as runtime:
        golden = runtime.bundle.golden()
        for answers in golden_answers(runtime, golden):
            np.testing.assert_allclose(answers, golden.probabilities, atol=1e-4, rtol=0)


def test_verify_runs_what_was_built_here(built):
    _, bundle = built
    report = verify(bundle.path)
    report.require()
    rows = [row for row in report.rows if row.what.endswith(".engine")]
    assert rows and {row.verdict for row in rows} == {"verified"}
