"""Stands where TensorRT would be built against, and behaves as `SCRIPTED_TENSORRT` says: builders that fail on devices
which are not here. It compiles nothing: its plan says what it was given.
"""

from __future__ import annotations

import enum
import hashlib
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

__version__ = "10.3.0"
SCRIPT, _, ARGUMENT = os.environ.get("SCRIPTED_TENSORRT", "well").partition(" ")
Flags = enum.IntEnum("Flags", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1})
NetworkDefinitionCreationFlag = Flags
BuilderFlag = enum.Enum("BuilderFlag", "TF32")
MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE")
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", "NONE DETAILED")
HardwareCompatibilityLevel = enum.Enum("HardwareCompatibilityLevel", "NONE AMPERE_PLUS")
Severity = enum.Enum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE")


class ILogger:
    pass


class IProgressMonitor:
    pass


class TimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data + b"measured;"


class Config:
    def __init__(self) -> None:
        self.max_aux_streams = self.builder_optimization_level = 0
        self.profiling_verbosity = ProfilingVerbosity.NONE
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.progress_monitor: object = None
        self.workspace, self.cache = 0, TimingCache(b"")

    def clear_flag(self, flag: BuilderFlag) -> None:
        pass

    def get_flag(self, flag: BuilderFlag) -> bool:
        return False

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.workspace = size

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int:
        return self.workspace

    def create_timing_cache(self, data: bytes) -> TimingCache:
        return TimingCache(data)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if ignore_mismatch or (SCRIPT == "other-gpu" and cache.data):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> TimingCache:
        return self.cache


LayerInformationFormat = enum.Enum("LayerInformationFormat", "JSON ONELINE")


class Runtime:
    """Loads what was built, and tells no kernels."""

    def __init__(self, logger: ILogger) -> None:
        pass

    def deserialize_cuda_engine(self, engine: bytes) -> SimpleNamespace:
        if SCRIPT == "untold":
            os.kill(os.getpid(), signal.SIGSEGV)
        inspector = SimpleNamespace(get_engine_information=lambda form: '{"Layers": []}')
        return SimpleNamespace(create_engine_inspector=lambda: inspector)


class OnnxParser:
    num_errors = 1

    def __init__(self, network: SimpleNamespace, logger: ILogger) -> None:
        self.network = network

    def parse(self, data: bytes) -> bool:
        self.network.data = data
        return not (SCRIPT == "no-int8" and b"int8" in data)

    def get_error(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(
            desc=lambda: "Could not infer output types for operation: dequantize",
            node=lambda: 7, node_name=lambda: "conv/DequantizeLinear", node_operator=lambda: "DequantizeLinear",
        )  # fmt: skip


class Builder:
    def __init__(self, logger: ILogger) -> None:
        self.logger = logger

    def create_network(self, flags: int) -> SimpleNamespace:
        assert flags == 0b11, "explicit batch and strong typing"
        return SimpleNamespace(num_outputs=1, num_inputs=0, num_layers=0)

    def create_builder_config(self) -> Config:
        return Config()

    def build_serialized_network(self, network: SimpleNamespace, config: Config) -> bytes | None:
        def say(severity: str, text: str) -> None:
            self.logger.log(Severity[severity], text)  # type: ignore[attr-defined]

        if config.progress_monitor is not None:
            config.progress_monitor.phase_start("Building engine", None, 2)  # type: ignore[attr-defined]
        os.write(1, b"a library prints to standard output\n")
        if SCRIPT == "hang":
            Path(ARGUMENT).write_text(str(os.getpid()))
            time.sleep(600)
        elif SCRIPT == "short":
            say(
                "WARNING",
                "Tactic Device request: 1024MB Available: 500MB. Device memory is insufficient.",
            )
            say("ERROR", "Error Code 10: Could not find any implementation for node {ForeignNode[a...b]}.")
            return None
        elif SCRIPT == "no-int8-kernels" and b"int8" in network.data:
            say("ERROR", "Error Code 4: no INT8 implementation for node conv")
            return None
        elif SCRIPT == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif SCRIPT == "crash":
            sys.stderr.write("CUDA driver: internal fault\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGSEGV)
        elif SCRIPT == "bad-alloc":
            os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
            os.abort()
        elif SCRIPT == "memory-error":
            raise MemoryError
        elif SCRIPT == "fault":
            raise ZeroDivisionError("a fault of the binding")
        made = (
            f"{hashlib.sha256(network.data).hexdigest()} {config.workspace} {config.hardware_compatibility_level.name}"
        )
        return made.encode() * 8
