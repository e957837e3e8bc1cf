"""Build targets: the kind of TensorRT and the GPUs, and the folder name made of them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...errors import UsageError, one_of

TARGETS = ("rtx", "tensorrt")
# TensorRT-RTX 1.7's ComputeCapability enum; no Orin (sm87), no H100 (sm90), no Thor (sm110).
RTX_SMS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
JETSON_SMS = ("sm87", "sm101", "sm110")  # Orin; Thor by the names of CUDA 12 and 13


def version_numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparisons.

    >>> version_numbers("10.3.0.30-1+cuda12.5")
    (10, 3, 0, 30)
    """
    leading = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(number) for number in leading.group().split(".")) if leading else (0,)


def default_target(jetson: bool, compute_capability: str | None) -> str:
    """The default target: 'tensorrt' where TensorRT-RTX cannot run, else 'rtx'.

    Args:
        jetson: whether this is one.
        compute_capability: of the GPU here, such as 'sm87'; None without one: TensorRT-RTX needs none to build.
    """
    known = compute_capability is None or compute_capability in RTX_SMS
    return "rtx" if known and not jetson else "tensorrt"


def check_target(target: str) -> str:
    """Accept 'rtx' or 'tensorrt'.

    Raises:
        UsageError: another name.
    """
    if target not in TARGETS:
        raise UsageError(f"Unknown target {target!r}; there are {one_of(TARGETS)}.")
    return target


def check_sms(sms: Sequence[str]) -> tuple[str, ...]:
    """Accept compute capabilities that TensorRT-RTX builds for, each once.

    Raises:
        UsageError: an unknown name, or one twice.
    """
    unknown = [sm for sm in sms if sm not in RTX_SMS]
    if unknown:
        raise UsageError(
            f"TensorRT-RTX does not build for {one_of(unknown)}; it builds for {one_of(RTX_SMS)}.",
            cause="Jetson boards (sm87, sm110) and H100 (sm90) take TensorRT engines, built on the device itself",
            next="name one of these, or build on the device with --target tensorrt",
        )
    if len(set(sms)) != len(sms):
        raise UsageError(f"A compute capability stands twice in {one_of(sms)}.")
    return tuple(sms)


def folder_name(target: str, version: str, sms: Sequence[str]) -> str:
    """The folder below `engines/` for engines of one kind; safe on every file system.

    >>> folder_name("rtx", "1.7.1.116", ["sm75", "sm86"])
    'rtx1.7.1-sm75+sm86'
    >>> folder_name("tensorrt", "10.3.0", ["sm87"])
    'tensorrt10.3.0-sm87'
    """
    numbers = ".".join(re.findall(r"[0-9]+", version)[:3])
    return f"{check_target(target)}{numbers}-" + "+".join(re.sub(r"[^a-z0-9]", "", sm) for sm in sms)
