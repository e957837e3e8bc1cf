"""The doubles themselves: they offer what the real packages offer and no more, and they notice what is done wrong."""

from __future__ import annotations

import ctypes
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from doubles import trt
from doubles.gpu import ILLEGAL_ADDRESS, Failure, Gpu
from doubles.listed import NotActed, parameters, read_list
from doubles.machine import FACES, machine
from logoformer.bundle import Bundle
from logoformer.engine.builder.compile import BuildOptions, Compilation
from logoformer.engine.cuda.open import open_cuda
from logoformer.engine.machine.log import BuildLog
from logoformer.engine.sessions.trt import TrtSession

ENGINE = Path(sys.modules[TrtSession.__module__].__file__ or "").parents[1]


@pytest.fixture(scope="module")
def bundle(untrained_bundle: Path) -> Bundle:
    return Bundle(untrained_bundle)


@pytest.fixture(params=trt.VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


# -------------------------------------------------------------------------------------------------- names, as they are
def test_a_double_has_exactly_the_listed_names(version):
    listed = read_list(trt.VERSIONS[version])
    module = trt.make_module(version, Gpu())
    assert {name for name in vars(module) if not name.startswith("_")} <= {*listed["classes"], *listed["functions"]}
    for name, described in listed["classes"].items():
        cls = getattr(module, name)
        if "enum" in described:
            assert {name: int(value) for name, value in cls.__members__.items()} == described["enum"]
            continue
        own = {n for n in vars(cls) if not n.startswith("_")}
        wanted = {
            *described["methods"],
            *(p.rstrip("=") for p in described["properties"]),
            *described.get("classes", ()),
        }
        assert own == {n for n in wanted if not n.startswith("_")}, name
    for name in ("Builder.build_engine", "IExecutionContext.execute_async_v2", "IBuilderConfig.max_workspace_size"):
        owner, gone = name.split(".")
        assert not hasattr(getattr(module, owner), gone)
    with pytest.raises(AttributeError, match="no attribute 'volume'"):
        module.volume  # noqa: B018


def test_versions_differ_as_the_facts_say():
    made = {version: trt.make_module(version, Gpu()) for version in trt.VERSIONS}
    old, late, eleven, rtx = made.values()
    assert all(hasattr(m.BuilderFlag, "FP16") for m in (old, late))
    assert not any(hasattr(m.BuilderFlag, "FP16") for m in (eleven, rtx))
    assert hasattr(old.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH")
    assert not any(hasattr(m.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH") for m in (eleven, rtx))
    assert all(hasattr(m.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") for m in made.values())
    assert hasattr(old, "IInt8Calibrator") and not hasattr(eleven, "IInt8Calibrator")
    assert not hasattr(old, "IRuntimeConfig") and hasattr(late, "IRuntimeConfig")
    assert hasattr(rtx, "IRuntimeCache") and not hasattr(eleven, "IRuntimeCache")
    assert hasattr(rtx.IExecutionContext, "is_stream_capturable")
    assert not hasattr(eleven.IExecutionContext, "is_stream_capturable")
    assert hasattr(old.ICudaEngine, "device_memory_size") and not hasattr(eleven.ICudaEngine, "device_memory_size")


def test_a_capture_forbids_its_own_thread_and_whole_devices_alone():
    """As CUDA's cudaStreamCaptureModeThreadLocal does."""
    gpu = Gpu()
    mine, stream, event = gpu.stream_create(), gpu.stream_create(), gpu.event_create()
    gpu.record(event, stream)
    with ThreadPoolExecutor(1) as other:
        gpu.begin_capture(mine, thread_local=True)
        other.submit(gpu.event_synchronize, event).result()
        gpu.end_capture(mine)
        for call in (lambda: gpu.event_synchronize(event), lambda: other.submit(gpu.device_synchronize).result()):
            gpu.begin_capture(mine, thread_local=True)
            with pytest.raises(Failure):
                call()
            with pytest.raises(Failure):
                gpu.end_capture(mine)
    assert gpu.violations == []


def context_of(module):
    context = object.__new__(module.IExecutionContext)
    context._engine, context._addresses = type("E", (), {"_tensors": {"x": ()}})(), {}
    return context


def test_only_10_3_insists_on_integers(version):
    """pycuda's allocation has `__int__`: the newer signatures take it, the old one says `int`."""

    class Allocation:
        def __int__(self) -> int:
            return 4096

    context = context_of(trt.make_module(version, Gpu()))
    assert context.set_tensor_address("x", 4096) is True
    if version == "10.3":
        with pytest.raises(TypeError, match="incompatible function arguments"):
            context.set_tensor_address("x", Allocation())
    else:
        assert context.set_tensor_address("x", Allocation()) is True
    for wrong in (("x",), (1, 4096), ("x", "4096"), ("x", 4096, 0)):
        with pytest.raises(TypeError, match="incompatible"):
            context.set_tensor_address(*wrong)


def test_signatures_are_read_as_pybind11_writes_them():
    line = (
        "(self: A, name: str, shape: collections.abc.Sequence[typing.SupportsInt] = <A.B: 0>, path: str = None) -> bool"
    )
    assert [(name, default) for name, _, default in parameters(line)] == [
        ("self", False), ("name", False), ("shape", True), ("path", True)
    ]  # fmt: skip
    assert parameters("() -> int") == ()


def test_a_name_that_exists_but_is_not_acted_out_is_no_missing_name():
    module = trt.make_module("10.3", Gpu())
    runtime = object.__new__(module.Runtime)
    with pytest.raises(NotActed, match=r"Runtime\.load_runtime"):
        runtime.load_runtime("x")
    with pytest.raises(NotActed):
        runtime.max_threads  # noqa: B018
    with pytest.raises(AttributeError, match="can be set"):
        runtime.host_code = True
    with pytest.raises(AttributeError, match="must not"):
        module.invented = 1


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("sessions/trt_engine.py", "device_memory_size_v2", "device_memory_size"),  # gone in 11
        ("sessions/trt_engine.py", ".execute_async_v3(int(stream))", ".execute_async_v2(int(stream))"),  # gone in 10
        ("sessions/trt_engine.py", "int(pointer))", "str(pointer))"),
        ("sessions/trt_engine.py", "module.TensorFormat.LINEAR", "module.TensorFormat.ROW_MAJOR"),
        ("sessions/trt_engine.py", "num_io_tensors", "num_bindings"),  # gone in 10
        ("sessions/trt_engine.py", 'if self.trt.target != "rtx" or self._cache is None:', "if False:"),  # not in 10.3
        ("cuda/bindings.py", "rt.cudaMemsetAsync(", "rt.cudaMemsetAsynchronous("),
        ("cuda/bindings.py", "rt.cudaStreamSynchronize(stream)", "rt.cudaStreamSynchronize()"),
        ("cuda/pycuda.py", '"mem_alloc"', '"mem_allocate"'),
        ("cuda/pycuda.py", "allocation.get_device_pointer", "allocation.get_pointer"),
    ],
)
def test_a_name_outside_a_list_fails(bundle, file, right, wrong):
    """The mutation behind bar 2: one wrong name in our source, and opening a session breaks on some version."""
    source = (ENGINE / file).read_text()
    assert right in source
    broken = []
    for version in trt.VERSIONS:
        for layer in FACES:
            try:
                opens_with(bundle, version, layer, file, source.replace(right, wrong))
            except (AttributeError, TypeError, NotActed) as error:
                broken.append((version, layer, str(error)))
    assert broken


def opens_with(bundle: Bundle, version: str, layer: str, file: str, source: str) -> None:
    """Opens a session, one module of the engine being executed from other source."""
    import importlib

    name = "logoformer.engine." + file.removesuffix(".py").replace("/", ".")
    module = importlib.import_module(name)
    kept = dict(vars(module))
    try:
        exec(compile(source, file, "exec"), vars(module))
        with pytest.MonkeyPatch.context() as patch, machine(version, layer, integrated=True) as here:
            if file == "sessions/trt_engine.py":
                patch.setattr(sys.modules[TrtSession.__module__], "TrtEngine", module.TrtEngine)
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                here.open(bundle, "frame").close()
    finally:
        vars(module).clear()
        vars(module).update(kept)


# ---------------------------------------------------------------------------------------------------- what is noticed
@pytest.fixture
def gpu() -> Gpu:
    return Gpu()


def test_memory_is_watched(gpu):
    pointer = gpu.malloc(100)
    stream = gpu.stream_create()
    for wrong, word in ((pointer + 90, "run over"), (pointer - 8, "foreign"), (12345, "foreign")):
        with pytest.raises(Failure) as caught:
            gpu.fill(wrong, 0, 20, stream)
        assert caught.value.code == ILLEGAL_ADDRESS and word in gpu.violations.pop()
        gpu.lost = 0
    gpu.release("free", pointer, ("device",))
    with pytest.raises(Failure):
        gpu.fill(pointer, 0, 20, stream)
    assert "after it was freed" in gpu.violations.pop()
    gpu.lost = 0
    with pytest.raises(Failure):
        gpu.release("free", pointer, ("device",))
    assert "freed twice" in gpu.violations.pop()
    assert gpu.leaks() == {"streams": 1}
    gpu.stream_destroy(stream)
    assert gpu.leaks() == {}


def test_a_read_before_synchronising_sees_nan_and_a_write_is_noticed(gpu):
    block, pointer, stream = gpu.host_alloc(16, mapped=False), gpu.malloc(16), gpu.stream_create()
    values = block.data.view(np.float32)
    gpu.fill(pointer, 0, 16, stream)
    gpu.to_host(block.base, pointer, 16, stream)
    assert np.isnan(values).all()  # what a hasty reader gets
    gpu.synchronize(stream)
    assert (values == 0).all() and gpu.violations == []
    gpu.to_device(pointer, block.base, 16, stream)
    values[0] = 1
    gpu.synchronize(stream)
    assert "before the copy that reads it ran" in gpu.violations.pop()
    gpu.to_host(block.base, pointer, 16, stream)
    values[0] = 1
    gpu.synchronize(stream)
    assert "copy into it was pending" in gpu.violations.pop()


def test_pageable_memory_default_streams_and_missing_contexts_are_noticed(bundle):
    with machine("10.3", "cuda-python") as here:
        gpu = here.gpu
        with pytest.raises(Failure):
            gpu.to_device(gpu.malloc(8), np.zeros(8, np.uint8).ctypes.data, 8, gpu.stream_create())
        assert "not page-locked" in gpu.violations[-1]
        from cuda.bindings import runtime

        assert runtime.cudaStreamSynchronize(0)[0].name == "cudaErrorInvalidResourceHandle"
        assert len(gpu.violations) == 2
        gpu.violations.clear()
    with machine("10.3", "pycuda") as here:
        import pycuda.driver as drv

        with pytest.raises(drv.LogicError, match="invalid device context"):
            drv.mem_alloc(8)
        assert here.gpu.violations == ["malloc without a current context"]
        here.gpu.violations.clear()


def test_streams_wait_for_events_and_for_nothing_else(gpu):
    one, two, event = gpu.stream_create(), gpu.stream_create(), gpu.event_create()
    a, b = gpu.malloc(4), gpu.malloc(4)
    gpu.fill(a, 1, 4, one)
    gpu.on_device(b, a, 4, two)
    gpu.synchronize(two)
    assert gpu.view(b, 4)[0][0] == 0xCD  # stream two did not wait: it copied what was there before
    gpu.fill(a, 2, 4, one)
    gpu.record(event, one)
    gpu.fill(a, 3, 4, one)
    gpu.wait(two, event)
    gpu.on_device(b, a, 4, two)
    gpu.synchronize(two)
    assert gpu.view(b, 4)[0][0] == 2


def test_a_session_that_frees_too_little_is_found_out(bundle, monkeypatch):
    from logoformer.engine.cuda import bindings as cuda_python

    for name in ("free", "free_host", "free_stream", "free_event", "free_graph"):
        with machine("10.3", "cuda-python") as here, monkeypatch.context() as patch:
            patch.setattr(cuda_python.CudaPython, name, lambda self, _: None)
            here.open(bundle, "frame").close()
            assert here.gpu.leaks() != {}, name


def test_a_session_that_does_not_wait_is_found_out(bundle, monkeypatch):
    """Without the wait the host reads what a pending copy has not filled, and writes what a pending copy reads."""
    with machine("10.3", "cuda-python") as here:
        session = here.open(bundle, "clip")
        with monkeypatch.context() as patch:
            patch.setattr(session.cuda, "await_event", lambda event: None)
            session.run()
        assert np.isnan(session.output("probabilities")).all()
        session.input("clip")[...] = 7
        session.close()
        assert here.gpu.violations == ["host memory was changed before the copy that reads it ran"]
        here.gpu.violations.clear()


def test_a_place_that_is_written_too_early_is_found_out(bundle, monkeypatch):
    """A picture's place may be written again when its upload is past, and not before."""
    with machine("10.3", "cuda-python") as here:
        cuda = open_cuda()
        frame, temporal = here.open(bundle, "frame", cuda), here.open(bundle, "temporal", cuda)
        monkeypatch.setattr(cuda, "query", lambda event: True)
        for number in range(3):
            frame.input("frame")[...] = number
            frame.run_into(temporal, "tokens", "ring", (0,))
        frame.close()
        temporal.close()
        assert here.gpu.violations == ["host memory was changed before the copy that reads it ran"]
        here.gpu.violations.clear()


def test_an_engine_holds_memory_until_it_goes(bundle):
    with machine("10.3", "cuda-python") as here:
        module = here.trt.module
        runtime = module.Runtime(module.Logger())
        engine = runtime.deserialize_cuda_engine(here.engine_of(bundle.read_graph(bundle.graph("frame", "fp32"))))
        assert here.gpu.leaks() == {"device": 1, "engines": 1}
        gone = weakref.ref(engine)
        del engine
        assert gone() is None and here.gpu.leaks() == {}


def test_device_memory_is_not_the_hosts(gpu):
    """An address that no process has: reading it on the host would end the test run, so only the map is asked."""
    pointer = gpu.malloc(16)
    maps = Path("/proc/self/maps").read_text().splitlines()
    ranges = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in maps]
    assert not any(low <= pointer < high for low, high in ranges)
    assert ctypes.sizeof(ctypes.c_void_p) == 8


# ------------------------------------------------------------------------------------------------------------- building
def test_our_builder_builds_on_every_version(version, bundle):
    """The real builder class of this package on the double: strongly typed, without TF32, and the engine answers."""
    entry = bundle.graph("frame", "fp32")
    with machine(version, "cuda-python") as here:
        onnx = bundle.read_graph(entry)
        compilation = Compilation(here.trt, onnx, entry.file, BuildOptions(here.trt.target), BuildLog())
        steps: list[tuple[str, int, int]] = []
        plan, settings = compilation.run("NONE", lambda *step: steps.append(step))
        assert settings["strongly_typed"] and not settings["tf32"] and steps[-1] == ("Building Engine", 2, 2)
        session = TrtSession(here.trt, open_cuda(), plan, entry)
        session.run()
        session.close()
        assert here.gpu.leaks() == {}


def test_a_weak_network_and_tf32_are_noticed(bundle):
    with machine("10.3", "cuda-python") as here:
        module, logger = here.trt.module, here.trt.module.Logger()
        builder = module.Builder(logger)
        network = builder.create_network(0)
        assert module.OnnxParser(network, logger).parse(bundle.read_graph(bundle.graph("frame", "fp32")))
        assert bytes(builder.build_serialized_network(network, builder.create_builder_config()))
        assert here.gpu.violations == ["a weakly typed network was built", "built with TF32"]
        here.gpu.violations.clear()


def test_what_was_done_wrong_fails_the_test_at_its_end():
    wrong = machine("10.3", "cuda-python")
    wrong.__enter__().gpu.blame("something")
    with pytest.raises(AssertionError):
        wrong.__exit__(None, None, None)
