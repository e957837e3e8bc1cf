"""The roofline of a report: counted work, devices, floors, and measured over floor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...bundle import Bundle
from ...errors import MachineError, RefusedError, UsageError, one_of, printable
from ..load.closed import Progress
from ..report.records import CPU, ReportRow, Subject
from ..report.text_tables import columns, ms
from ..sensors.machine import read_machine, usable_cpus
from .cpu_probe import measure_cpu
from .devices import DEVICES, Device, find_devices
from .floor import Floor, Work, floor, work_of

COMPUTED = "computed from documents, not measured"
# What one answer runs: the graphs whose floors add up.
ANSWERS: Mapping[str, tuple[str, ...]] = {"clip": ("clip",), "stream": ("frame", "temporal")}


@dataclass(frozen=True)
class OverFloor:
    """A measurement beside the floor of the machine that it was made on.

    Attributes:
        row: the measured row of the report.
        device: whose floor it is.
        precision: of the graphs.
        measured_ms: median.
        floor_ms: of all graphs that one answer runs, one after the other.
        ratio: measured over floor; 1 would be perfect.
    """

    row: str
    device: str
    precision: str
    measured_ms: float
    floor_ms: float
    ratio: float


@dataclass(frozen=True)
class Roofline:
    """The floors of a bundle.

    Attributes:
        how: in words, that this is computed.
        works: what was counted, without the pieces.
        devices: the table, this CPU last.
        floors: one for each graph and device.
        measured: measurements over floors, where both belong to one machine.
        failed: why a device was left out: a measurement was faster than its rates allow, so these are no peaks. Empty
            where none was.
    """

    how: str
    works: tuple[Work, ...]
    devices: tuple[Device, ...]
    floors: tuple[Floor, ...]
    measured: tuple[OverFloor, ...] = ()
    failed: str = ""

    def floor_ms(self, device: str, precision: str, graphs: Sequence[str]) -> float | None:
        """The floor of graphs that run one after the other; None when one of them has none."""
        own = [item for item in self.floors if (item.device, item.precision) == (device, precision)]
        known = [item.floor_ms for item in own if item.graph in graphs and item.floor_ms is not None]
        return sum(known) if len(known) == len(graphs) else None


def roofline(
    bundle: Bundle,
    precision: str,
    threads: int | None,
    *,
    device: str | None = None,
    progress: Progress | None = None,
) -> Roofline:
    """Counts a bundle's graphs, none of which runs, and sets them against devices and this CPU.

    Args:
        bundle: opened for reading.
        precision: one by name, or 'verdict' for all.
        threads: of the CPU that is measured; None: all that this process may use.
        device: only those whose name holds this text; None: all, and this CPU.
        progress: called with (stage, done, total).

    Raises:
        UsageError: no such precision or device.
        MachineError: this CPU could not be measured.
    """
    if precision != "verdict" and precision not in bundle.precisions:
        raise UsageError(
            f"{bundle.path} has no precision {precision!r}.", next=f"choose from {one_of(bundle.precisions)}"
        )
    devices = find_devices(device)
    entries = [entry for entry in bundle.graphs if entry.precision in bundle.precisions and entry.batch == 1]
    entries = [entry for entry in entries if precision in ("verdict", entry.precision)]
    counted = []
    for done, entry in enumerate(entries):
        if progress is not None:
            progress(f"plan of {entry.graph} {entry.precision}", done, len(entries))
        counted.append(work_of(bundle, entry))
    if device is None:
        if progress is not None:
            progress("peak rates of this CPU", len(entries), len(entries) + 1)
        machine = read_machine()
        devices = (*devices, measure_cpu(threads or usable_cpus(), machine.cpu or machine.architecture))
    floors = tuple(floor(work, item) for work in counted for item in devices)
    return Roofline(COMPUTED, tuple(replace(work, pieces=()) for work in counted), devices, floors)


def floors(
    bundle: Bundle, subject: Subject, threads: int, rows: Sequence[ReportRow], progress: Progress | None
) -> Roofline:
    """Floors of every precision of the bundle, and measured medians over the machine's floor.

    Args:
        bundle: opened for reading.
        subject: what was measured.
        threads: CPU threads of the run.
        rows: what was measured; those of one clip and of one stream at hop 1 count.
        progress: called with (stage, done, total).

    Returns:
        The floors; none, and the reason in `how`, where they could not be computed: what was measured stays.
    """
    try:
        found = roofline(bundle, "verdict", threads, progress=progress)
    except (RefusedError, MachineError) as error:
        return Roofline(f"not computed: {str(error).splitlines()[0]}", (), (), ())
    medians: dict[str, float] = {}
    for answer, hop in (("clip", None), ("stream", 1)):
        for row in rows:
            own = row.name.split()[0] == answer and row.mode == "closed" and row.precision == subject.precision
            if own and (row.hop, row.streams) == (hop, 1):
                medians.setdefault(answer, float(np.median(row.rounds())))
    device = found.devices[-1].name if subject.device == CPU else in_table(subject.device)
    return with_measured(found, device, subject.precision, medians) if device else found


def in_table(gpu: str) -> str | None:
    """The device of the table that calls itself so; None when the table does not hold it.

    >>> in_table("NVIDIA GeForce RTX 4090")
    'GeForce RTX 4090'
    >>> in_table("NVIDIA GeForce RTX 4090 Laptop GPU")
    """
    own = gpu.removesuffix(" (integrated)")
    return next((device.name for device in DEVICES if own in device.aliases), None)


def with_measured(found: Roofline, device: str, precision: str, medians_ms: Mapping[str, float]) -> Roofline:
    """Adds measured over floor; where a floor is beaten, takes the device out and says why.

    Args:
        found: the floors.
        device: on which the measurements were made, by its name in the table.
        precision: of the graphs that were measured.
        medians_ms: by a name of `ANSWERS`.
    """
    rows = []
    for name, measured in medians_ms.items():
        least = found.floor_ms(device, precision, ANSWERS[name])
        if least:
            rows.append(OverFloor(name, device, precision, measured, least, measured / least))
    beaten = [row for row in rows if row.ratio < 1.0]
    if not beaten:
        return replace(found, measured=tuple(rows))
    fastest = min(beaten, key=lambda row: row.ratio)
    own = next(item for item in found.devices if item.name == device)
    cause = "the probe was slowed by other programs" if own.measured else "this device is faster than its documents"
    return replace(
        found,
        devices=tuple(item for item in found.devices if item.name != device),
        floors=tuple(item for item in found.floors if item.device != device),
        failed=f"the peak rates of {device} failed: {fastest.row} ran {1 / fastest.ratio:.2f} times as fast as they "
        f"allow ({cause}); nothing is computed from them",
    )


# ----------------------------------------------------------------------------------------------------------------- text
def roofline_text(found: Roofline) -> str:
    """The roofline for a terminal."""
    lines = [f"Roofline: {found.how}. Dense rates; 2 operations for each multiply-accumulate.", ""]
    head = ["graph", "precision", "GMAC", "compulsory MB", "touched MB", "pieces of"]
    lines += columns([head, *(_work_cells(work) for work in found.works)])
    for device in found.devices:
        lines += ["", f"{device.name}: {_peaks(device)}"]
        lines += [f"  source: {device.source}"] if device.source else []
        lines += [f"  note: {device.note}"] if device.note else []
        head = ["  graph", "", "floor ms", "bound by", "compute ms", "memory ms", "each kernel alone ms", "most of it"]
        lines += columns([head, *(_floor_cells(item) for item in found.floors if item.device == device.name)])
    for item in found.measured:
        lines += [
            "",
            f"measured: {item.row} {item.precision} p50 {ms(item.measured_ms)} ms on {item.device}, "
            f"{item.ratio:.2f} x its floor of {ms(item.floor_ms)} ms",
        ]
    lines += ["", found.failed] if found.failed else []
    return "\n".join(printable(line, 400) for line in lines) + "\n"


def _work_cells(work: Work) -> list[str]:
    macs = " + ".join(f"{count / 1e9:.3f} {name}" for name, count in sorted(work.macs.items())) or "0"
    sizes = [f"{work.compulsory_bytes / 1e6:.2f}", f"{work.touched_bytes / 1e6:.2f}"]
    return [work.graph, work.precision, macs, *sizes, work.plan]


def _floor_cells(item: Floor) -> list[str]:
    if item.floor_ms is None or item.pieces_ms is None:
        return [f"  {item.graph}", item.precision, "-", item.reason]
    times = [_short(item.compute_ms), _short(item.memory_ms), _short(item.pieces_ms)]
    heavy = ", ".join(f"{100 * h.share:.0f} % {h.name[:40]} ({h.bound})" for h in item.heaviest[:2])
    return [f"  {item.graph}", item.precision, _short(item.floor_ms), item.bound, *times, heavy]


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if value < 1 else ms(value)


def _peaks(device: Device) -> str:
    peaks = [f"{name} {tops:g} T/s" for name, tops in device.peak_tops.items()]
    memory = "memory bandwidth not documented" if device.memory_gb_s is None else f"{device.memory_gb_s:.1f} GB/s"
    return ", ".join([memory, *peaks])
