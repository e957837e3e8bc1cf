"""TensorRT's builder, as far as ours uses it: it watches that networks are strongly typed and TF32 is off."""

from __future__ import annotations

from typing import Any

from .container import DTYPES, host_memory, pack, register, say, session_of


class Builder:
    def __init__(self, logger: Any) -> None:
        register(self._module, logger)
        self._logger = logger

    def create_network(self, flags: int = 0) -> Any:
        network = object.__new__(self._module.INetworkDefinition)
        strong = self._module.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        major = int(self._module.__version__.split(".")[0])
        network._strong = bool(flags >> int(strong) & 1) or self._module._rtx or major >= 11
        network._onnx = None
        return network

    def create_builder_config(self) -> Any:
        config = object.__new__(self._module.IBuilderConfig)
        config._flags, config._pools, config._sms = {self._module.BuilderFlag.TF32}, {}, {}
        config._value_builder_optimization_level, config._value_max_aux_streams = 3, 4
        config.hardware_compatibility_level = self._module.HardwareCompatibilityLevel.NONE
        config.profiling_verbosity = self._module.ProfilingVerbosity.LAYER_NAMES_ONLY
        return config

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        module = self._module
        gpu = module._gpu
        if not network._strong:
            gpu.blame("a weakly typed network was built")
        if module.BuilderFlag.TF32 in config._flags:
            gpu.blame("built with TF32")
        fault = gpu._faults.get("build")
        if fault:
            say(self._logger, "ERROR", str(fault[0][1]))
            return None
        monitor = config.__dict__.get("_value_progress_monitor")
        if monitor is not None:
            monitor.phase_start("Building Engine", None, 2)
            for step in range(2):
                if not monitor.step_complete("Building Engine", step):
                    return None
            monitor.phase_finish("Building Engine")
        if not module._rtx:  # kernels are measured on the card that is current
            gpu.made.add(gpu.here())
            gpu.built_on.append(gpu.here())
        target = "rtx" if module._rtx else "tensorrt"
        own_memory = getattr(module.BuilderFlag, "REQUIRE_USER_ALLOCATION", None) in config._flags
        kept = {"own_memory": own_memory, "verbosity": config.profiling_verbosity.name}
        return host_memory(module, pack(module.__version__, target, network._onnx, **kept))


class IBuilderConfig:
    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag)

    def get_flag(self, flag: Any) -> bool:
        return flag in self._flags

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[pool] = pool_size

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._pools.get(pool, self._module._gpu.total)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        cache = object.__new__(self._module.ITimingCache)
        cache._data = bytes(serialized_timing_cache)
        return cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        """A cache that says it is of this TensorRT, or a new one, is taken."""
        taken = not cache._data or cache._data == self._timings()
        self._cache = cache if taken else None
        return taken

    def get_timing_cache(self) -> Any:
        self._cache._data = self._timings()
        return self._cache

    def _timings(self) -> bytes:
        return b"TIMINGS of " + self._module.__version__.encode()

    def set_compute_capability(self, compute_capability: Any, index: int) -> bool:
        self._sms[index] = compute_capability
        return True


class ITimingCache:
    def serialize(self) -> Any:
        return host_memory(self._module, self._data)


class INetworkDefinition:
    @property
    def num_layers(self) -> int:
        return 1

    @property
    def num_inputs(self) -> int:
        return len(session_of(self._onnx).get_inputs())

    @property
    def num_outputs(self) -> int:
        return len(session_of(self._onnx).get_outputs())

    def get_input(self, index: int) -> Any:
        node = session_of(self._onnx).get_inputs()[index]
        return _tensor(self._module, node)

    def get_layer(self, index: int) -> Any:
        layer = object.__new__(self._module.ILayer)
        layer._outputs = [_tensor(self._module, node) for node in session_of(self._onnx).get_outputs()]
        return layer


class ILayer:
    @property
    def type(self) -> Any:
        return self._module.LayerType.CONVOLUTION

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_output(self, index: int) -> Any:
        return self._outputs[index]


class ITensor:
    @property
    def dtype(self) -> Any:
        return getattr(self._module.DataType, DTYPES[self._node.type[7:-1]])

    @property
    def shape(self) -> Any:
        return self._module.Dims([size if isinstance(size, int) else -1 for size in self._node.shape])


def _tensor(module: Any, node: Any) -> Any:
    tensor = object.__new__(module.ITensor)
    tensor._node = node
    tensor.__dict__["_value_name"] = node.name
    return tensor


class OnnxParser:
    def __init__(self, network: Any, logger: Any) -> None:
        register(self._module, logger)
        self._network, self._errors = network, []

    def parse(self, model: bytes, path: Any = None) -> bool:
        try:
            session_of(bytes(model))
        except Exception as error:  # onnxruntime raises its own undocumented classes
            failed = object.__new__(vars(self._module)["ParserError"])
            failed._said = str(error)
            self._errors = [failed]
            return False
        self._network._onnx = bytes(model)
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]


class ParserError:
    def desc(self) -> str:
        return self._said

    def node(self) -> int:
        return -1

    def node_name(self) -> str:
        return ""

    def node_operator(self) -> str:
        return ""


class IProgressMonitor:
    def __init__(self) -> None:
        return None


ACTING = (
    Builder,
    IBuilderConfig,
    ILayer,
    INetworkDefinition,
    IProgressMonitor,
    ITensor,
    ITimingCache,
    OnnxParser,
    ParserError,
)
