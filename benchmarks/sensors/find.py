"""All sensors of this machine, and the decision which GPU it has.

A GPU is what the machine itself shows: a Jetson's device tree and devfreq node, NVML's answer, or that of the driver's
library. That a backend says so is not enough. The doubles of the tests say so too, and no double may give a latency.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...engine.machine.environment import bus_id, find_gpu, is_jetson
from ...errors import MachineError, command
from ..report.records import CPU
from .cpu import cpu_facts, cpu_sensors
from .jetson import GPU, jetson_facts, jetson_sensors
from .nvml import Nvml, open_nvml
from .telemetry import Sensor


@dataclass(frozen=True)
class Sensors:
    """Sensors and facts of one machine.

    Attributes:
        sensors: names all different.
        facts: see `records.Telemetry`; holds 'GPU' where there is one.
    """

    sensors: tuple[Sensor, ...]
    facts: dict[str, str]

    @property
    def gpu(self) -> str | None:
        """Its name; None: this machine has none."""
        return self.facts.get(GPU)


def find_sensors(root: Path = Path("/"), nvml: Nvml | None = None, card: str | None = None) -> Sensors:
    """Looks for sensors.

    Args:
        root: where `proc`, `sys`, `etc` and `var` stand.
        nvml: an opened card; None: there is none.
        card: its name by the driver, for a machine without NVML; None: there is none.
    """
    sensors, facts = cpu_sensors(root), cpu_facts(root)
    if is_jetson(root):
        sensors += jetson_sensors(root)
        facts |= jetson_facts(root)
    elif nvml is None and card is not None:
        facts[GPU] = card
    if nvml is not None:
        # On a Thor both answer: its own files first, NVML for what they lack.
        taken = {sensor.name for sensor in sensors}
        sensors += [sensor for sensor in nvml.sensors() if sensor.name not in taken]
        facts = {**nvml.facts(), **facts}
    return Sensors(tuple(sensors), facts)


def this_machine(device: int = 0) -> Sensors:
    """The sensors of the machine that runs this, and of one of its GPUs, by CUDA's number of it."""
    gpu = find_gpu(device)
    # An integrated GPU is the only one, and its PCI address means nothing to NVML.
    address = "" if gpu is None or gpu.integrated else bus_id(device)
    return find_sensors(nvml=open_nvml(address), card=None if gpu is None else gpu.name)


def device_of(backend: str, sensors: Sensors) -> str:
    """The device that a backend's figures belong to: 'cpu', or the GPU that this machine shows.

    Args:
        backend: such as 'onnxruntime 1.24.4 CPU'.
        sensors: of this machine.

    Raises:
        MachineError: the backend is a GPU's and the machine shows none.
    """
    if backend.split()[-1:] == ["CPU"]:
        return CPU
    if sensors.gpu is None:
        raise MachineError(
            f"{backend} says that it runs on a GPU, but this machine shows none. Nothing was timed.",
            cause="no driver, a container without the device, or a test's double",
            next=command("logoformer", "doctor"),
        )
    return sensors.gpu
