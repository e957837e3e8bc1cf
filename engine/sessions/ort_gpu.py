"""ONNX Runtime on a card: its CUDA and TensorRT providers, for where no engine was built or TensorRT is not to be had.

ONNX Runtime answers on the CPU, without a word, when the provider that it was asked for does not load, and it does so
with its own fallback switched off. So the provider's library is opened first, for the reason why it does not load; CPU
nodes are forbidden; and the session is asked in the end who computes (`ort.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...bundle import GraphEntry
from ...errors import DeviceLostError, MachineError, command
from ..cuda.layer import STICKY
from .contract import Session
from .ort import OrtSession, Provider, import_onnxruntime

GPU_PROVIDERS = {"onnxruntime-cuda": "CUDAExecutionProvider", "onnxruntime-tensorrt": "TensorrtExecutionProvider"}
_LIBRARIES = {"onnxruntime-cuda": "cuda", "onnxruntime-tensorrt": "tensorrt"}
_DOCTOR = command("logoformer", "doctor")
_CAUSE = "no card that this provider can use, too little memory on it, or a node without a kernel there"


class GpuSession(OrtSession):
    """One graph on a card, by way of host buffers; the tokens of a stream go through the host too."""

    _lost = ""

    def run(self) -> None:
        if self._lost:
            raise _lost_device(self._lost)
        try:
            # A bound host input is copied to the card when it is bound, not when the graph runs: bound once, the first
            # frame would be answered for ever.
            for name in self.inputs:
                self._binding.bind_input(name, *self._address(name))
            self._binding.synchronize_inputs()
            super().run()
            self._binding.synchronize_outputs()
        except Exception as error:  # onnxruntime raises its own undocumented classes
            said = str(error)
            if any(name in said or text in said for name, text in STICKY.items()):
                self._lost = said
                raise _lost_device(said) from error
            raise MachineError("ONNX Runtime failed on the card.", cause=_CAUSE, next=_DOCTOR, log=[said]) from error


def find_provider(backend: str, precision: str, device: int) -> Provider:
    """A provider on a card, once nothing speaks against it.

    Args:
        backend: a key of `GPU_PROVIDERS`.
        precision: of the graphs.
        device: which card, from 0.

    Raises:
        MachineError: another onnxruntime is installed, its libraries are missing, or TF32 cannot be kept out of FP32.
    """
    runtime = import_onnxruntime()
    name = GPU_PROVIDERS[backend]
    _require_library(runtime, backend, name)
    # Every switch by name: what is not given, the TensorRT provider takes from ORT_TENSORRT_* in the environment.
    cuda = {"device_id": str(device), "use_tf32": "0"}
    settings = {"session.disable_cpu_ep_fallback": "1"}
    if backend == "onnxruntime-cuda":
        return Provider(name, cuda, (), settings, _CAUSE, _DOCTOR)
    if precision == "fp32" and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0":
        raise MachineError(
            "ONNX Runtime's TensorRT provider has no switch for TF32: FP32 would be computed with 10 bits of mantissa.",
            next="set NVIDIA_TF32_OVERRIDE=0 in the environment, before the program starts; or name another precision",
        )
    options = {
        "device_id": str(device),
        # An engine from a cache would be native code that nobody vouched for.
        "trt_engine_cache_enable": "0",
        "trt_timing_cache_enable": "0",
        # TensorRT may not choose narrower types than those of the graph, which was judged with them.
        "trt_fp16_enable": "0",
        "trt_int8_enable": "0",
    }
    return Provider(name, options, (("CUDAExecutionProvider", cuda),), settings, _CAUSE, _DOCTOR)


def open_session(data: bytes, entry: GraphEntry, options: Mapping[str, Any], provider: Provider) -> Session:
    """The backend's entry point; `options` may hold `threads`."""
    return GpuSession(data, entry, options.get("threads"), provider)


def _require_library(runtime: Any, backend: str, name: str) -> None:
    if name not in runtime.get_available_providers():
        raise MachineError(
            f"This onnxruntime ({runtime.__version__}) has no {name}.",
            cause="the wheel onnxruntime is for CPUs; onnxruntime-gpu is another one, of the same module",
            next="pip uninstall onnxruntime && pip install 'logoformer[gpu]'",
        )
    if hasattr(runtime, "preload_dlls"):  # from 1.21 on: CUDA that pip brought is not where the loader looks
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find; that is asked for below
            runtime.preload_dlls(msvc=False)
    folder = Path(runtime.__file__).parent / "capi"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / f"libonnxruntime_providers_{_LIBRARIES[backend]}.so"))
    except OSError as error:
        title = name.removesuffix("ExecutionProvider")
        tensorrt = "; for libnvinfer: TensorRT 10" if backend == "onnxruntime-tensorrt" else ""
        raise MachineError(
            f"ONNX Runtime {runtime.__version__} cannot load its {title} provider: {error}",
            cause="a machine without an NVIDIA GPU, or without the CUDA 12 and cuDNN 9 that it is built for",
            next=f"pip install 'onnxruntime-gpu[cuda,cudnn]=={runtime.__version__}'{tensorrt}; "
            "without a GPU: backend='onnxruntime'",
        ) from error


def _lost_device(said: str) -> DeviceLostError:
    return DeviceLostError(
        "The card is lost to this process.",
        cause="a kernel crashed, the card fell off the bus, or the driver was restarted: no call can mend the context",
        next="end this process and start it again; its supervisor may do so on exit code 7",
        log=[said],
    )
