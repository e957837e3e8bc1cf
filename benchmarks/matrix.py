"""`bench --matrix`: precision x graph x hop x streams, every cell in one interleaved run.

A step of a cell is one answer for each of its streams: `hop` frames are pushed to every stream, and the last of them is
answered. So a cell says what a camera program pays for a round of answers, and how many answers a second it gets.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable
from dataclasses import replace

from ..bundle import MIXED, PRECISIONS, Bundle
from ..engine import Runtime
from ..errors import UsageError, VerificationError, command, one_of
from .accuracy import Verified, check_after, graph_digests, verify_before
from .baselines.contract import CLIP, STREAM, Answer, Baseline, Inputs, answer_of, clip_baseline, open_ours
from .bench import BenchConfig, harness_us, load_of, notes_of
from .load.closed import Progress
from .load.modes import APART, run_closed
from .load.overhead import measure_wrapper
from .qualify import judge
from .report.records import Row, Settings, Subject
from .report.report import Report
from .report.rows import with_energy
from .report.text_tables import columns, ms
from .roofline.report import floors
from .sensors.all import Sensors, device_of, this_machine
from .sensors.machine import read_machine, usable_cpus
from .sensors.telemetry import Sampler

HOPS = (1, 4, 8)
Cell = tuple[Baseline, int]  # and its streams


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
    machine, sensors, began = read_machine(), sensors or this_machine(), time.perf_counter_ns()
    threads, load = config.threads or usable_cpus(), load_of(config)
    bundle = Bundle(config.bundle)
    inputs = Inputs.of(bundle)
    with contextlib.ExitStack() as closing:

        def open_runtime(precision: str) -> Runtime:
            return open_ours(bundle, precision, threads, closing, config.backend)

        proofs: dict[str, tuple[Runtime, Verified]] = {}
        for precision in precisions_of(bundle, config.precision):
            runtime = open_runtime(precision)
            proofs[precision] = runtime, verify_before(runtime, bundle.golden())
        first = next(iter(proofs.values()))[0]
        device = device_of(first.backend, sensors)
        cells = [cell for precision in proofs for cell in _cells(bundle, precision, inputs, open_runtime, device)]
        with Sampler(sensors.sensors, sensors.facts) as sampler:
            zero_ns = time.perf_counter_ns()
            part, _ = run_closed([baseline for baseline, _ in cells], load, zero_ns, progress)
            seconds = (time.perf_counter_ns() - began) / 1e9
        of_cell = {baseline.name: baseline.precision for baseline, _ in cells}
        accuracy = tuple(
            check_after(
                runtime,
                inputs,
                proof,
                [answer for answer in part.clips if of_cell[answer.baseline] == precision],
                [answer for answer in part.streams if of_cell[answer.baseline] == precision],
            )
            for precision, (runtime, proof) in proofs.items()
        )
        telemetry = sampler.result(zero_ns)
        counted = zip(part.rows, cells, strict=True)
        rows = with_energy([_for_streams(row, streams) for row, (_, streams) in counted], telemetry)
        preset, name = str(bundle.manifest["model"].get("preset", "")), bundle.path.resolve().name
        subject = Subject(name, preset, first.precision, first.backend, device, graph_digests(first))
        settings = Settings(
            ("closed",), threads, load.rounds, load.block, load.settle, load.rest_s, load.warmup, load.seed,
            len(inputs.clips), inputs.fps,
        )  # fmt: skip
        return Report(
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            machine=machine,
            subject=subject,
            settings=settings,
            rows=rows,
            skipped=(),
            comparisons=(),
            accuracy=accuracy,
            cache=None,
            cold=None,
            idle_gaps=(),
            telemetry=telemetry,
            qualification=judge(rows, machine, telemetry, None),
            trtexec=(),
            roofline=floors(bundle, subject, machine, threads, rows, progress) if config.roofline else None,
            wrapper=measure_wrapper(bundle, first.precision, inputs),
            harness_us=harness_us(),
            seconds=seconds,
            notes=tuple(notes_of(machine, device, first.precision, ())),
        )


def precisions_of(bundle: Bundle, wanted: str) -> list[str]:
    """The precisions to measure: one by name, or all that were accepted.

    Raises:
        UsageError: the bundle has no such precision.
        VerificationError: no precision was accepted.
    """
    if wanted != "verdict":
        if wanted not in bundle.runnable:
            raise UsageError(
                f"{bundle.path} has no precision {wanted!r}.", next=f"choose from {one_of(bundle.runnable)}"
            )
        return [wanted]
    found = [name for name in (*PRECISIONS, MIXED) if name in bundle.accepted]
    if not found:
        raise VerificationError(
            f"No precision of {bundle.path} was accepted.",
            next=command("logoformer", "export", "CHECKPOINT", "-o", bundle.path),
        )
    return found


def _cells(
    bundle: Bundle, precision: str, inputs: Inputs, open_runtime: Callable[[str], Runtime], device: str
) -> list[Cell]:
    """Of one precision: the clip graph, then every hop with one stream, two, and as many as the arena holds."""
    cells: list[Cell] = [(clip_baseline(open_runtime(precision), inputs, f"{CLIP} {precision}", device), 1)]
    for streams in sorted({1, min(2, bundle.stream.faces), bundle.stream.faces}):
        for hop in HOPS:
            name = f"{STREAM} {precision} hop {hop} x {streams}"
            cells.append((streams_baseline(open_runtime(precision), inputs, name, hop, streams, device), streams))
    return cells


def streams_baseline(runtime: Runtime, inputs: Inputs, name: str, hop: int, streams: int, device: str) -> Baseline:
    """`runtime.step` for several faces, until each of them is answered; the first one's answer is checked."""
    faces = [runtime.stream(hop=hop, color="rgb", warmup="repeat") for _ in range(streams)]

    def answer(index: int) -> Answer:
        for frame in range(index * hop, (index + 1) * hop):
            time_s = frame / inputs.fps
            asked = {face: (inputs.frame(frame + APART * place), time_s) for place, face in enumerate(faces)}
            results = runtime.step(asked)
        found = [result for result in results.values() if result is not None]
        if len(found) != streams:
            raise VerificationError(f"{name}: {len(found)} of {streams} faces were answered at step {index}.")
        return answer_of(found[0])

    what = f"runtime.step: {hop} new uint8 frame(s) of each of {streams} face(s) -> {streams} x probabilities"
    return Baseline(name, what, runtime.precision, True, answer, runtime.backend, device, hop)


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


def _cell(row: Row) -> str:
    found = row.summary.at(50.0)
    return f"{ms(found.value_ms) if found else '-'} ({row.throughput_hz:.0f}/s)"


def _for_streams(row: Row, streams: int) -> Row:
    """A step answers every stream: its latency is theirs together, and so many answers a second more."""
    return replace(row, streams=streams, throughput_hz=row.throughput_hz * streams)
