"""Opening of a CUDA device with the layer that is installed."""

from __future__ import annotations

import os

from ...errors import LogoformerError, MachineError, UsageError, one_of
from .layer import Cuda
from .queue import PRIORITIES, WAITS

LAYERS = ("cuda-python", "pycuda")  # preferred first: only cuda-python can capture CUDA graphs


def open_cuda(layer: str = "auto", device: int = 0, wait: str = "auto", priority: str = "normal") -> Cuda:
    """Open a CUDA device.

    Args:
        layer: 'auto', 'cuda-python' or 'pycuda'.
        device: the card's number, as CUDA counts them.
        wait: one of `queue.WAITS`, see `queue.Queue`.
        priority: one of `queue.PRIORITIES`; pycuda knows 'normal' alone.

    Raises:
        UsageError: another layer, wait or priority, or a negative device.
        MachineError: the layer is not installed or cannot do this, there is no driver, or no such card.
    """
    if layer not in ("auto", *LAYERS):
        raise UsageError(f"Unknown CUDA layer {layer!r}.", next=f"choose from {one_of(('auto', *LAYERS))}")
    if wait not in WAITS:
        raise UsageError(f"Unknown way to wait {wait!r}.", next=f"choose from {one_of(WAITS)}")
    if priority not in PRIORITIES:
        raise UsageError(f"Unknown priority {priority!r}.", next=f"choose from {one_of(PRIORITIES)}")
    if device < 0:
        raise UsageError(f"device={device}: cards are counted from 0.", next="give device 0, the first")
    # Read when the driver starts: kernels are loaded when first needed, which saves hundreds of megabytes on a Jetson.
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")
    errors: list[LogoformerError] = []
    for name in LAYERS if layer == "auto" else (layer,):
        try:
            if name == "cuda-python":
                from .bindings import CudaPython

                return CudaPython(device, wait, priority)
            from .pycuda import PyCuda

            return PyCuda(device, wait, priority)
        except MachineError as error:
            errors.append(error)
    # With 'auto' the second layer's complaint would hide that the first is installed and says why it cannot work.
    raise next((error for error in errors if not isinstance(error.__cause__, ImportError)), errors[0])
