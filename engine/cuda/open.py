"""Opening of a CUDA device with the layer that is installed."""

from __future__ import annotations

import os

from ...errors import LogoformerError, MachineError, UsageError, one_of
from .layer import Cuda

LAYERS = ("cuda-python", "pycuda")  # preferred first: only cuda-python can capture CUDA graphs


def open_cuda(layer: str = "auto", device: int = 0) -> Cuda:
    """Open a CUDA device.

    Args:
        layer: 'auto', 'cuda-python' or 'pycuda'.
        device: the card's number, as CUDA counts them.

    Raises:
        UsageError: another layer, or a negative device.
        MachineError: the layer is not installed, there is no driver, or no such card.
    """
    if layer not in ("auto", *LAYERS):
        raise UsageError(f"Unknown CUDA layer {layer!r}.", next=f"choose from {one_of(('auto', *LAYERS))}")
    if device < 0:
        raise UsageError(f"device={device}: cards are counted from 0.", next="device=0")
    # Read when the driver starts: kernels are loaded when first needed, which saves hundreds of megabytes on a Jetson.
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")
    errors: list[LogoformerError] = []
    for name in LAYERS if layer == "auto" else (layer,):
        try:
            if name == "cuda-python":
                from .bindings import CudaPython

                return CudaPython(device)
            from .pycuda import PyCuda

            return PyCuda(device)
        except MachineError as error:
            errors.append(error)
    # With 'auto' the second layer's complaint would hide that the first is installed and says why it cannot work.
    raise next((error for error in errors if not isinstance(error.__cause__, ImportError)), errors[0])
