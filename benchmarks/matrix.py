"""`bench --matrix`: precision x graph x hop x streams, every cell in one interleaved run.

A step of a cell is one answer for each of its streams: `hop` frames are pushed to every stream, and the last of them is
answered. So a cell says what a camera program pays for a round of answers, and how many answers a second it gets.
"""

from __future__ import annotations

from dataclasses import replace

from ..engine.sessions.backends import choose_precisions
from .baselines.contract import CLIP, STREAM, Baseline, clip_baseline, faces_baseline
from .bench import BenchConfig, BenchRun, bench
from .load.closed import Progress
from .report.records import ReportRow
from .report.report import Report
from .report.text_tables import columns, ms
from .sensors.find import Sensors

HOPS = (1, 4, 8)


def bench_matrix(config: BenchConfig, progress: Progress | None = None, sensors: Sensors | None = None) -> Report:
    """Measures every cell of a bundle on this machine.

    Args:
        config: what to run; with the precision 'verdict', all that were accepted. Its modes and baselines are not run.
        progress: called with (stage, done, total).
        sensors: what is read beside the run; None: all of this machine's.

    Raises:
        BadInputError: there is no bundle.
        RefusedError: something in it is not what its index promises.
        UsageError: the bundle has no such precision.
        VerificationError: no precision was accepted, or answers are not the golden ones.
        MachineError: the backend cannot run here, or says GPU on a machine without one.
    """
    return bench(replace(config, modes=("closed",), rate_hz=None, trtexec=False), progress, sensors, MatrixRun)


class MatrixRun(BenchRun):
    """Every cell of precision x graph x hop x streams."""

    def precisions(self) -> tuple[str, ...]:
        return choose_precisions(self.bundle, self.config.precision, "onnxruntime")

    def measure(self) -> None:
        cells = [cell for proof in self.proofs for cell in self._cells(proof.runtime.precision)]
        self.interleaved(cells)

    def _cells(self, precision: str) -> list[Baseline]:
        """The clip graph, then every hop with one stream, two, and as many as the arena holds."""
        cells = [clip_baseline(self.open(precision), self.inputs, f"{CLIP} {precision}", self.device)]
        faces = self.bundle.stream.faces
        for streams in sorted({1, min(2, faces), faces}):
            for hop in HOPS:
                name = f"{STREAM} {precision} hop {hop} x {streams}"
                cells.append(faces_baseline(self.open(precision), self.inputs, name, hop, streams, self.device))
        return cells


# -------------------------------------------------------------------------------------------------------------- report
def grid(report: Report) -> str:
    """The cells as a table for a terminal: p50 of a step, and answers a second."""
    lines = [["", *(f"hop {hop}" for hop in HOPS)]]
    for precision in dict.fromkeys(row.precision for row in report.rows):
        rows = [row for row in report.rows if row.precision == precision]
        for streams in sorted({row.streams for row in rows if row.hop is not None}):
            cells = {row.hop: _cell(row) for row in rows if row.streams == streams and row.hop is not None}
            lines.append([f"{STREAM} {precision} x {streams}", *(cells.get(hop, "") for hop in HOPS)])
        lines += [[f"{CLIP} {precision}", _cell(row)] for row in rows if row.hop is None]
    head = "p50 of a step in ms, and answers a second; a step is one answer for each stream"
    return "\n".join([head, *columns(lines)]) + "\n"


def _cell(row: ReportRow) -> str:
    found = row.summary.at(50.0)
    return f"{ms(found.value_ms) if found else '-'} ({row.throughput_hz:.0f}/s)"
