"""Sensors of a discrete NVIDIA card by NVML (`nvidia-ml-py`, imported only when used)."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from .jetson import GPU
from .telemetry import GPU_LOAD_BEFORE, OTHER_GPU_USERS, POWER_MODE, TOTAL_POWER, Sensor

BOARD_POWER = "board power"
# NVML's clock event reasons that mean a card runs slower than it could: HW slowdown, SW thermal, HW thermal, power
# brake. Idle (0x1), clocks set by the user (0x2) and the power cap (0x4) are states of a healthy card.
THROTTLED = 0x08 | 0x20 | 0x40 | 0x80


class Nvml:
    """One card.

    Args:
        nvml: the module `pynvml`.
        bus_id: of the card, as CUDA gives it; empty: NVML's first one, which with several cards may be another.

    Raises:
        Exception: what NVML raises where there is no driver or no such card.
    """

    def __init__(self, nvml: Any, bus_id: str = "") -> None:
        nvml.nvmlInit()
        self._nvml = nvml
        self._card = nvml.nvmlDeviceGetHandleByPciBusId(bus_id) if bus_id else nvml.nvmlDeviceGetHandleByIndex(0)

    def sensors(self) -> list[Sensor]:
        """Those that this card and driver answer for."""
        n, card = self._nvml, self._card
        reasons = (
            getattr(n, "nvmlDeviceGetCurrentClocksEventReasons", None) or n.nvmlDeviceGetCurrentClocksThrottleReasons
        )
        asked: list[tuple[str, str, str, str, Callable[[], float]]] = [
            (BOARD_POWER, "power", "W", "nvmlDeviceGetPowerUsage", lambda: n.nvmlDeviceGetPowerUsage(card) / 1e3),
            ("gpu clock", "clock", "MHz", "nvmlDeviceGetClockInfo(SM)",
             lambda: float(n.nvmlDeviceGetClockInfo(card, n.NVML_CLOCK_SM))),
            ("gpu temperature", "temperature", "C", "nvmlDeviceGetTemperature",
             lambda: float(n.nvmlDeviceGetTemperature(card, n.NVML_TEMPERATURE_GPU))),
            ("gpu load", "load", "%", "nvmlDeviceGetUtilizationRates",
             lambda: float(n.nvmlDeviceGetUtilizationRates(card).gpu)),
            ("gpu throttle", "throttle", "", "nvmlDeviceGetCurrentClocksEventReasons",
             lambda: float(reasons(card) & THROTTLED)),
            ("fan", "fan", "%", "nvmlDeviceGetFanSpeed", lambda: float(n.nvmlDeviceGetFanSpeed(card))),
        ]  # fmt: skip
        found = []
        for name, kind, unit, source, read in asked:
            answer = functools.partial(self._answer, read)
            try:
                answer()
            except ValueError:
                continue  # not supported by this card: a laptop has no fan sensor, a vGPU no power
            found.append(Sensor(name, kind, unit, source, answer))
        return found

    def facts(self) -> dict[str, str]:
        """Card, driver, power limit, load and foreign processes; unreadable ones are left out."""
        n, card = self._nvml, self._card
        found = {}
        for fact, read in {
            GPU: lambda: n.nvmlDeviceGetName(card),
            "driver": lambda: n.nvmlSystemGetDriverVersion(),
            POWER_MODE: lambda: f"limit {n.nvmlDeviceGetEnforcedPowerLimit(card) / 1e3:.0f} W",
            GPU_LOAD_BEFORE: lambda: n.nvmlDeviceGetUtilizationRates(card).gpu,
            OTHER_GPU_USERS: lambda: len(
                [p for p in n.nvmlDeviceGetComputeRunningProcesses(card) if p.pid != os.getpid()]
            ),
            TOTAL_POWER: lambda: BOARD_POWER if n.nvmlDeviceGetPowerUsage(card) else "",
        }.items():
            try:
                value = self._answer(read)
            except ValueError:
                continue
            found[fact] = value.decode() if isinstance(value, bytes) else str(value)
        return found

    def _answer(self, read: Callable[[], Any]) -> Any:
        """Calls NVML.

        Raises:
            ValueError: it does not say it.
        """
        try:
            return read()
        except self._nvml.NVMLError as error:
            raise ValueError(str(error)) from error


def open_nvml(bus_id: str = "") -> Nvml | None:
    """The card at that address, or None without `nvidia-ml-py`, driver or card."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        return Nvml(pynvml, bus_id)
    except pynvml.NVMLError:
        return None
