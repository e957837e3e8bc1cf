"""Documented peak rates of devices, each with its source; an undocumented one is None.

All rates are *dense*: nothing in this project is 2:4-sparse, so a figure that NVIDIA prints "with sparsity" is halved
here, and the row says so. For FP16 the faster accumulator counts (GeForce cards do FP16 products with FP32 sums at half
rate): a floor must not be above what any kernel could reach. FP32 is the rate of the plain cores, because engines are
built with TF32 cleared. One multiply-accumulate is two operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...errors import UsageError, one_of

_ORIN_SHEET = "NVIDIA Jetson AGX Orin Series Data Sheet DS-10662-001"
_SUPER = "https://developer.nvidia.com/blog/nvidia-jetson-orin-nano-developer-kit-gets-a-super-boost/"
_NX_SHEET = "NVIDIA Jetson Orin NX Series Data Sheet DS-10712-001"
_THOR = "NVIDIA Jetson Thor Series Modules Data Sheet; Jetson Orin to Thor Migration Application Note, table 1"
_AMPERE = "NVIDIA Ampere GA102 GPU Architecture whitepaper V2, appendix A"
_ADA = "NVIDIA Ada GPU Architecture whitepaper V2.01, appendix A"
_BLACKWELL = "NVIDIA RTX Blackwell GPU Architecture whitepaper V1.1, appendix A"
_HOPPER = "NVIDIA H100 Tensor Core GPU Architecture whitepaper; https://resources.nvidia.com/en-us-tensor-core"


@dataclass(frozen=True)
class Device:
    """Peak rates of a device.

    Attributes:
        name: with the variant and, on a Jetson, the power mode that the figures belong to.
        memory_gb_s: of its memory, 1e9 bytes a second; None when it is not documented.
        peak_tops: dense, 1e12 operations a second by precision; a precision that is not documented is left out.
        source: the documents.
        note: how a figure was read out of them.
        measured: True for a machine that was measured here instead of looked up.
        aliases: what the device calls itself, word for word (device tree, driver); a laptop's card is another device.
    """

    name: str
    memory_gb_s: float | None
    peak_tops: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    note: str = ""
    measured: bool = False
    aliases: tuple[str, ...] = ()


def _geforce(name: str, memory_gb_s: float, fp32: float, fp16: float, source: str) -> Device:
    """A desktop card: INT8 is twice as fast as FP16, FP16 with FP32 sums half as fast."""
    note = f"Dense. FP16 with FP16 accumulate; {fp16 / 2:.4g} with FP32 accumulate."
    rates = {"fp32": fp32, "fp16": fp16, "int8": 2 * fp16}
    return Device(name, memory_gb_s, rates, source, note, aliases=(f"NVIDIA {name}",))


DEVICES = (
    Device(
        "Jetson Orin Nano 8GB (Super, 25 W)",
        102.0,
        {"fp32": 2.09, "fp16": 17.0, "int8": 33.0},
        _SUPER,
        "INT8 dense as printed (67 with sparsity). FP32 = 2 x 1024 cores x 1.020 GHz, both printed there.",
        aliases=("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",),
    ),
    Device(
        "Jetson Orin NX 16GB (25 W)",
        102.4,
        {"fp32": 1.88},
        _NX_SHEET,
        "FP32 = 2 x 1024 cores x 0.918 GHz. The 100 TOPS on its first page add the two DLAs to the GPU; its GPU's own "
        "tensor rate was not found in a document and is left open.",
    ),
    Device(
        "Jetson AGX Orin 64GB (MAXN)",
        204.8,
        {"fp32": 5.32, "fp16": 42.5, "int8": 85.0},
        _ORIN_SHEET,
        "Tensor cores of the GPU alone, printed with sparsity (170 INT8 TOPS, 85 FP16 TFLOPS) and halved; the 275 TOPS "
        "of its first page add the DLAs.",
        aliases=("NVIDIA Jetson AGX Orin Developer Kit",),
    ),
    Device(
        "Jetson T5000 / AGX Thor (130 W)",
        273.0,
        {"fp32": 8.06, "fp16": 258.5, "int8": 517.5},
        _THOR,
        "INT8 (1035) and FP16 (517) are printed with sparsity and halved. FP32 = 2 x 2560 cores x 1.575 GHz.",
        aliases=("NVIDIA Jetson AGX Thor Developer Kit",),
    ),
    _geforce("GeForce RTX 3090", 936.0, fp32=35.6, fp16=142.0, source=_AMPERE),
    _geforce("GeForce RTX 4090", 1008.0, fp32=82.6, fp16=330.3, source=_ADA),
    _geforce("GeForce RTX 5090", 1792.0, fp32=104.8, fp16=419.0, source=_BLACKWELL),
    Device(
        "H100 SXM",
        3350.0,
        {"fp32": 66.9, "fp16": 989.4, "int8": 1978.9},
        _HOPPER,
        "Tensor rates are printed with sparsity (1978.9 and 3957.8) and halved.",
        aliases=("NVIDIA H100 80GB HBM3",),
    ),
)


def find_devices(name: str | None) -> tuple[Device, ...]:
    """The devices whose name holds a text; all without one.

    Raises:
        UsageError: none does.
    """
    found = tuple(device for device in DEVICES if name is None or name.casefold() in device.name.casefold())
    if not found:
        raise UsageError(
            f"No device in the table is called {name!r}.",
            next=f"choose from {one_of([device.name for device in DEVICES])}",
        )
    return found
