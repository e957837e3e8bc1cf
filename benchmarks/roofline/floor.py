"""The roofline: a lower bound of a graph's time on a device, computed, not measured.

    floor = max( sum over precisions of 2 * MACs / peak,  compulsory bytes / memory bandwidth )

No run can be faster, as long as weights come from memory in each run (a cache that holds them all, as on some desktop
cards, breaks only the second half). Beside it stands what the work would take if *each kernel alone* ran at its own
roofline and left nothing in a cache for the next one: that is where the time goes, kernel by kernel. Kernels are those
of the engine's plan where TensorRT-RTX is installed (it compiles without a GPU), else the nodes of the ONNX graph.

Williams, Waterman and Patterson, Roofline, CACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...bundle import Bundle, GraphEntry
from ...engine.builder.proof import xray
from ...errors import MachineError, VerificationError
from .devices import Device
from .graph_costs import Piece, graph_cost

SM = "sm86"  # of the plan: the compute capability nearest to Orin's that TensorRT-RTX compiles for
HEAVIEST = 5


@dataclass(frozen=True)
class Work:
    """Multiply-accumulates and bytes of one run of a graph.

    Attributes:
        graph: 'clip', 'frame' or 'temporal'.
        precision: as the bundle calls it.
        macs: multiply-accumulates by the precision of their operands.
        compulsory_bytes: weights, inputs and outputs, once each.
        touched_bytes: of all pieces together: what moves when no cache helps.
        pieces: kernels or nodes.
        plan: what `pieces` are, such as 'TensorRT-RTX 1.7.1.116, sm86' or 'ONNX nodes, nothing fused (why)'.
    """

    graph: str
    precision: str
    macs: Mapping[str, int]
    compulsory_bytes: int
    touched_bytes: int
    pieces: tuple[Piece, ...]
    plan: str


@dataclass(frozen=True)
class Heavy:
    """A piece that takes much of the sum."""

    name: str
    role: str
    share: float
    bound: str


@dataclass(frozen=True)
class Floor:
    """One graph on one device. Every time here is computed; see the module's text.

    Attributes:
        device: its name.
        graph: 'clip', 'frame' or 'temporal'.
        precision: as the bundle calls it.
        compute_ms: all products at the peak; None when a peak is not documented.
        memory_ms: compulsory bytes at the peak bandwidth; None when that is not documented.
        floor_ms: the larger of the two; None unless both are known.
        bound: 'compute' or 'memory', whichever is larger; 'unknown' without a floor.
        pieces_ms: the sum over kernels, each at its own roofline; None like `floor_ms`.
        heaviest: the kernels that take most of that sum.
        reason: why there is no floor; empty when there is one.
    """

    device: str
    graph: str
    precision: str
    compute_ms: float | None
    memory_ms: float | None
    floor_ms: float | None
    bound: str
    pieces_ms: float | None
    heaviest: tuple[Heavy, ...]
    reason: str


def work_of(bundle: Bundle, entry: GraphEntry) -> Work:
    """Counts one graph of a bundle, by TensorRT-RTX's plan where that is installed.

    Raises:
        RefusedError: the file is not what the index promises, or cannot be read.
    """
    data = bundle.read_graph(entry)
    cost = graph_cost(data, entry.file)
    try:
        found = xray(data, SM, shown=entry.file)
    except (MachineError, VerificationError) as error:
        pieces = tuple(node for node in cost.nodes if node.bytes)
        plan = f"ONNX nodes, nothing fused ({str(error).splitlines()[0]})"
    else:
        pieces = tuple(
            Piece(step.name, step.role, step.precision, macs, step.bytes)
            for step, macs in zip(found.steps, found.macs, strict=True)
            if step.role != "sync"
        )
        plan = f"{found.compiler}, {SM}"
    return Work(
        graph=entry.graph,
        precision=entry.precision,
        macs=cost.macs_by_precision,
        compulsory_bytes=cost.compulsory_bytes,
        touched_bytes=sum(piece.bytes for piece in pieces),
        pieces=pieces,
        plan=plan,
    )


def floor(work: Work, device: Device) -> Floor:
    """One graph on one device."""
    unknown = [precision for precision in work.macs if precision not in device.peak_tops]
    compute = None if unknown else sum(_compute_ms(macs, device.peak_tops[p]) for p, macs in work.macs.items())
    memory = None if device.memory_gb_s is None else work.compulsory_bytes / device.memory_gb_s / 1e6
    if compute is None or memory is None:
        missing = [f"its {precision} peak" for precision in unknown] + ["its memory's bandwidth"] * (memory is None)
        reason = f"{' and '.join(missing)} is not in the table"
        return Floor(device.name, work.graph, work.precision, compute, memory, None, "unknown", None, (), reason)
    times = [_piece_ms(piece, device) for piece in work.pieces]
    total = sum(ms for ms, _ in times)
    order = sorted(range(len(times)), key=lambda index: -times[index][0])[:HEAVIEST]
    heaviest = tuple(
        Heavy(work.pieces[i].name, work.pieces[i].role, times[i][0] / total, times[i][1]) for i in order if total
    )
    bound = "compute" if compute >= memory else "memory"
    return Floor(
        device.name, work.graph, work.precision, compute, memory, max(compute, memory), bound, total, heaviest, ""
    )


def _compute_ms(macs: int, tops: float) -> float:
    return 2 * macs / tops / 1e9


def _piece_ms(piece: Piece, device: Device) -> tuple[float, str]:
    """(milliseconds, what bounds it); a piece of unknown precision counts its bytes alone."""
    peak = device.peak_tops.get(piece.precision)
    compute = _compute_ms(piece.macs, peak) if piece.macs and peak else 0.0
    memory = piece.bytes / (device.memory_gb_s or 1.0) / 1e6
    return max(compute, memory), "compute" if compute >= memory else "memory"
