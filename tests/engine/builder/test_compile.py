"""The engine builder, with the real TensorRT-RTX: it compiles without a GPU, and what it makes is not run here."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from logoformer.engine.builder import compile as compile_module
from logoformer.engine.builder.compile import BuildOptions, Compilation, build_failed, build_here
from logoformer.engine.builder.process import build_engine
from logoformer.engine.machine.log import (
    KEPT_LINES,
    LINE_LIMIT,
    BuildLog,
    ProgressRelay,
    make_logger,
    make_monitor,
    write_to,
)
from logoformer.engine.machine.targets import RTX_SMS
from logoformer.engine.machine.tensorrt import TrtModule, find_module
from logoformer.errors import BadInputError, LogoformerError, MachineError, RefusedError, UsageError

Make = Callable[..., bytes]


# ----------------------------------------------------------------------------------------------------------- options
def test_rtx_builds_for_all_its_gpus_unless_told_otherwise() -> None:
    assert BuildOptions().compute_capabilities == RTX_SMS
    assert BuildOptions(compute_capabilities=("sm86",)).compute_capabilities == ("sm86",)
    assert BuildOptions(target="tensorrt").compute_capabilities == ()
    assert BuildOptions().max_aux_streams == 0


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"target": "cuda"}, "cuda"),
        ({"compute_capabilities": ("sm87",)}, "sm87"),
        ({"target": "tensorrt", "compute_capabilities": ("sm86",)}, "sm86"),
        ({"workspace_bytes": 0}, "0 bytes"),
        ({"optimization_level": 6}, "6"),
        ({"optimization_level": -1}, "-1"),
        ({"max_aux_streams": -1}, "-1"),
        ({"hardware_compatible": True}, "hardware compatibility"),
    ],
)
def test_options_that_cannot_be_are_usage_errors(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        BuildOptions(**wrong)


# ------------------------------------------------------------------------------------------------------- real builds
def test_one_engine_for_all_gpus(rtx: Any, small_onnx: Make) -> None:
    built = build_engine(small_onnx("fp16"), BuildOptions())
    assert len(built.plan) > 10_000
    assert (built.target, built.tensorrt_version) == ("rtx", rtx.__version__)
    assert built.compute_capabilities == RTX_SMS
    flags = dict(built.flags)
    workspace_bytes, source = flags.pop("workspace_bytes"), flags.pop("workspace_source")
    assert flags == {
        "strongly_typed": True,
        "tf32": False,
        "max_aux_streams": 0,
        "optimization_level": 3,
        "profiling_verbosity": "NONE",
        "hardware_compatibility": "NONE",
        "timing_cache": "",
    }
    assert workspace_bytes >= 1 << 30 and "default" in str(source)
    assert built.timing_cache is None
    assert built.peak_bytes > 10 << 20
    assert built.tensor_types["half"] > 10
    assert built.tensor_types["float"] == 1  # the cast of the answer, nothing else
    assert built.seconds > 0


def test_precision_comes_from_the_graph_alone(rtx: Any, small_onnx: Make) -> None:
    options = BuildOptions(compute_capabilities=("sm86",))
    half, full = build_engine(small_onnx("fp16"), options), build_engine(small_onnx("fp32"), options)
    assert "half" not in full.tensor_types
    assert len(half.plan) < len(full.plan)


def test_options_reach_tensorrt(rtx: Any, small_onnx: Make) -> None:
    options = BuildOptions(
        compute_capabilities=("sm89",), workspace_bytes=64 << 20, optimization_level=1, max_aux_streams=2
    )
    built = build_engine(small_onnx("fp16"), options)
    assert built.compute_capabilities == ("sm89",)
    assert (built.flags["optimization_level"], built.flags["max_aux_streams"]) == (1, 2)
    assert (built.flags["workspace_bytes"], built.flags["workspace_source"]) == (64 << 20, "asked for")


def test_doc_strings_and_metadata_stay_out_of_the_engine(rtx: Any, small_onnx: Make) -> None:
    def annotate(model: Any) -> None:
        model.doc_string = model.graph.doc_string = "/home/somebody/model.py"
        for node in model.graph.node:
            node.doc_string = "/home/somebody/train.py"
            node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/somebody/trace.py")

    built = build_engine(changed(small_onnx("fp16"), annotate), BuildOptions(compute_capabilities=("sm86",)))
    assert b"scores/MatMul" in built.plan  # RTX keeps node names at any verbosity: `build_engine` says so
    assert b"somebody" not in built.plan


def test_two_builds_side_by_side_keep_their_own_logs(rtx: Any, small_onnx: Make) -> None:
    """TensorRT warns of a second logger in the process; a build's lines must still reach the build."""
    options = BuildOptions(compute_capabilities=("sm86",))
    first: list[str] = []
    log = BuildLog(first.append)
    waiting = Compilation(find_module("rtx"), small_onnx("fp16"), "first", options, log)
    heard, second = len(first), BuildLog()
    with pytest.raises(BadInputError) as caught:
        Compilation(find_module("rtx"), changed(small_onnx("fp16"), _levitate), "second", options, second)
    assert any("Levitate" in line for line in caught.value.log)
    assert len(first) == heard
    waiting.run("DETAILED")
    assert any(message.startswith("Layers:") for message in first)
    assert log.complaints == ()


def test_progress_is_told_and_its_exceptions_come_back(rtx: Any, small_onnx: Make) -> None:
    seen: list[tuple[str, int, int]] = []
    options = BuildOptions(compute_capabilities=("sm86",))
    build_engine(small_onnx("fp16"), options, lambda *args: seen.append(args))
    assert ("Building engine", 0) in [(stage, done) for stage, done, _ in seen]
    assert all(0 <= done <= total for _, done, total in seen)
    finished = [(done, total) for stage, done, total in seen if stage == "Building engine"][-1]
    assert finished[0] == finished[1] > 0

    def interrupt(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(small_onnx("fp16"), options, interrupt)


def test_tensorrt_takes_the_same_path(rtx: Any, small_onnx: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """RTX's own module under TensorRT's name, less what TensorRT lacks: the branch for a device is walked for real."""
    disguised = types.ModuleType("tensorrt")
    lacking = ("ComputeCapability", "__name__", "__spec__")
    disguised.__dict__.update({key: value for key, value in vars(rtx).items() if key not in lacking})
    disguised.__version__ = "10.16.2"  # type: ignore[attr-defined]
    disguised.IProgressMonitor = None  # type: ignore[attr-defined]
    del disguised.IProgressMonitor  # an old TensorRT: no progress, and no failure
    monkeypatch.setitem(sys.modules, "tensorrt", disguised)
    built = build_here(small_onnx("fp16"), BuildOptions(target="tensorrt"), lambda *args: None)
    assert (built.target, built.tensorrt_version, built.compute_capabilities) == ("tensorrt", "10.16.2", ())
    assert len(built.plan) > 10_000


# ---------------------------------------------------------------------------------------------------------- failures
def test_external_tensors_never_reach_the_parser(
    rtx: Any, small_onnx: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(bytes(64 * 64 * 2))
    data = small_onnx("fp16", external=True)
    trt = find_module("rtx")
    network = trt.module.Builder(logger := make_logger(trt.module)).create_network(0)
    assert trt.module.OnnxParser(network, logger).parse(data), "the trap is gone: RTX no longer opens the file"
    with pytest.raises(RefusedError, match=r"'out\.weight' lies outside"):
        build_engine(data, BuildOptions())


def changed(data: bytes, change: Callable[[Any], None]) -> bytes:
    import onnx

    model = onnx.load_from_string(data)
    change(model)
    return model.SerializeToString()


def _levitate(model: Any) -> None:
    node = next(item for item in model.graph.node if item.op_type == "Softmax")
    node.op_type, node.domain, node.name = "Levitate", "magic", "the\x1b[31mnode"


def test_an_operator_that_is_not_known_is_named(rtx: Any, small_onnx: Make) -> None:
    with pytest.raises(BadInputError) as caught:
        build_engine(changed(small_onnx("fp16"), _levitate), BuildOptions(), shown="temporal.onnx")
    assert "temporal.onnx" in caught.value.what
    assert "(Levitate)" in caught.value.what
    assert "\x1b" not in str(caught.value)
    assert any("Levitate" in line for line in caught.value.log)


def test_a_dynamic_shape_is_refused(rtx: Any, small_onnx: Make) -> None:
    def free(model: Any) -> None:
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"

    with pytest.raises(BadInputError, match=r"image has shape \[1, 3, -1, 16\]"):
        build_engine(changed(small_onnx("fp16"), free), BuildOptions())


def test_a_gpu_without_kernels_is_named(rtx: Any, small_onnx: Make) -> None:
    with pytest.raises(MachineError) as caught:
        build_engine(small_onnx("fp32"), BuildOptions(compute_capabilities=("sm75", "sm86")))
    assert "no kernels" in caught.value.cause
    assert any("SM75" in line for line in caught.value.log)


@pytest.mark.parametrize("error", [TypeError, RuntimeError])
def test_a_builder_that_does_not_start_is_a_machine_error(small_onnx: Make, error: type[Exception]) -> None:
    class Logger:
        pass

    def start(logger: Any) -> None:
        logger.log(types.SimpleNamespace(name="ERROR"), "CUDA initialization failure with error: 35")
        raise error("factory function returned nullptr")

    trt = TrtModule("tensorrt", "tensorrt", "10.3.0", types.SimpleNamespace(ILogger=Logger, Builder=start))
    with pytest.raises(MachineError, match="does not start") as caught:
        Compilation(trt, small_onnx("fp16"), "g", BuildOptions(target="tensorrt"), BuildLog())
    assert caught.value.log == ("error: CUDA initialization failure with error: 35",)
    assert caught.value.next == "nvidia-smi"


def test_a_gpu_that_this_rtx_does_not_know(rtx: Any, small_onnx: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logoformer.engine.machine.targets.RTX_SMS", (*RTX_SMS, "sm130"))
    with pytest.raises(MachineError, match="does not know sm130"):
        build_here(small_onnx("fp16"), BuildOptions(compute_capabilities=("sm130",)))


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("Error Code 10: Could not find any implementation for node {ForeignNode[a...b]}.", "not enough memory"),
        ("Tactic Device request: 1024MB Available: 500MB. Device memory is insufficient to use tactic.", "not enough"),
        ("Skipping tactic 0x0 due to insufficient memory on requested size of 8388608", "not enough memory"),
        ("Error Code 2: OutOfMemory (Requested size was 8388608 bytes.)", "not enough memory"),
        ("[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)", "not enough memory"),
        ("Error Code 9: Target GPU SM 87 is not supported by this TensorRT release.", "no kernels"),
        ("Could not infer output types for operation: dequantize", "its own"),
    ],
)
def test_why_a_build_failed(line: str, cause: str) -> None:
    log = BuildLog()
    log.add("INFO", "chatter")
    log.add("ERROR", line)
    error = build_failed(TrtModule("tensorrt", "tensorrt", "10.3.0", None), "temporal.onnx", log)
    assert cause in error.cause
    assert error.next
    assert error.log == (f"error: {line}",)
    assert "TensorRT 10.3.0 built no engine from temporal.onnx" in error.what


def test_a_build_that_says_nothing_shows_its_last_words() -> None:
    log = BuildLog()
    log.add("INFO", "Compiling\nStill compiling")
    error = build_failed(TrtModule("rtx", "tensorrt_rtx", "1.7.1", None), "g", log)
    assert error.log == ("Compiling", "Still compiling")


def test_no_engine_and_no_exception_becomes_an_error(
    rtx: Any, small_onnx: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    compilation = Compilation(find_module("rtx"), small_onnx("fp16"), "g", BuildOptions(), BuildLog())
    monkeypatch.setattr(compilation, "_builder", _Silent(compilation._builder))
    with pytest.raises(LogoformerError, match="built no engine"):
        compilation.run("NONE")


class _Silent:
    """A builder that returns nothing, as TensorRT does when it fails."""

    def __init__(self, real: Any) -> None:
        self.create_builder_config = real.create_builder_config

    def build_serialized_network(self, network: Any, config: Any) -> None:
        return None


# --------------------------------------------------------------------------------------------------- log and progress
def test_chatter_cannot_push_errors_out() -> None:
    log = BuildLog()
    log.add("WARNING", "first")
    log.add("INTERNAL_ERROR", "Thread context has not been set! Using global log stream.")  # noise of RTX
    log.add("ERROR", "x" * (LINE_LIMIT + 5))
    for index in range(2 * KEPT_LINES):
        log.add("INFO", f"line {index}")
        log.add("VERBOSE", "nobody listens")
    assert log.complaints == ("warning: first", "error: " + "x" * LINE_LIMIT)
    assert log.errors == ("error: " + "x" * LINE_LIMIT,)
    assert len(log.chatter) == KEPT_LINES
    assert log.chatter[-1] == f"line {2 * KEPT_LINES - 1}"


def test_a_logger_never_raises_into_tensorrt(rtx: Any) -> None:
    def fail(message: str) -> None:
        raise ValueError(message)

    logger = make_logger(rtx)
    write_to(BuildLog(fail))
    logger.log(rtx.ILogger.VERBOSE, "text")
    assert isinstance(logger, rtx.ILogger)


def test_one_logger_writes_to_the_log_of_the_thread(rtx: Any) -> None:
    """The same object for the whole process; a thread of TensorRT's own writes to the log that was named last."""
    logger, logs = make_logger(rtx), {name: BuildLog() for name in ("here", "there")}
    write_to(logs["here"])

    def speak(named: str, text: str) -> None:
        if named:
            write_to(logs[named])
        make_logger(rtx).log(rtx.ILogger.WARNING, text)

    for words in (("there", "in there"), ("", "nobody's")):
        thread = threading.Thread(target=speak, args=words)
        thread.start()
        thread.join()
    logger.log(rtx.ILogger.WARNING, "in here")
    assert logs["here"].complaints == ("warning: in here",)
    assert logs["there"].complaints == ("warning: in there", "warning: nobody's")
    assert make_logger(rtx) is logger


def test_progress_stops_after_its_first_exception() -> None:
    calls: list[str] = []

    def fail(stage: str, done: int, total: int) -> None:
        calls.append(stage)
        raise ValueError("full disk")

    relay = ProgressRelay(fail)
    relay.phase_start("a", None, 3)
    assert not relay.step_complete("a", 0)
    relay.phase_finish("a")
    assert calls == ["a"]
    assert str(relay.error) == "full disk"


def test_phases_are_counted_each_for_itself() -> None:
    seen: list[tuple[str, int, int]] = []
    relay = ProgressRelay(lambda *args: seen.append(args))
    relay.phase_start("outer", None, 2)
    relay.phase_start("inner", "outer", 3)
    assert relay.step_complete("inner", 0)
    relay.phase_finish("inner")
    assert relay.step_complete("outer", 0)
    relay.phase_finish("outer")
    assert seen == [
        ("outer", 0, 2),
        ("inner", 0, 3),
        ("inner", 1, 3),
        ("inner", 3, 3),
        ("outer", 1, 2),
        ("outer", 2, 2),
    ]


def test_no_monitor_where_the_module_has_none() -> None:
    assert make_monitor(types.SimpleNamespace(), lambda *args: None) is None


def test_network_flags_of_every_generation() -> None:
    def module(**flags: int) -> Any:
        return types.SimpleNamespace(NetworkDefinitionCreationFlag=types.SimpleNamespace(**flags))

    assert compile_module._network_flags(module(EXPLICIT_BATCH=0, STRONGLY_TYPED=1)) == 0b11  # TensorRT 10
    assert compile_module._network_flags(module(STRONGLY_TYPED=1)) == 0b10  # TensorRT 11, RTX
