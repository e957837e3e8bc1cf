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

from ..bundle import PRECISIONS, Bundle
from ..engine import Engine
from ..errors import UsageError, VerificationError, command, one_of
from .accuracy import Verified, check_after, recording, verify_before
from .bench import BenchConfig, closed_row, floors, load_of, notes_of, settings_of, subject_of
from .layout import columns, ms
from .loadgen import Candidate, Progress, closed_loop
from .machine import read_machine, usable_cpus
from .overhead import measure_wrapper
from .peers import CLIP, STREAM, Answer, Inputs, Peer, clip_peer, open_ours
from .qualify import judge
from .records import Row
from .report import Report
from .sensors_cpu import cpu_facts, cpu_sensors
from .telemetry import Sampler

HOPS = (1, 4, 8)


def bench_matrix(config: BenchConfig, progress: Progress | None = None) -> Report:
    """Measures every cell of a bundle on this machine's CPU.

    Args:
        config: what to run; with the precision 'verdict', all that were accepted. Its peers are not run.
        progress: called with (stage, done, total).

    Raises:
        BadInputError: there is no bundle.
        RefusedError: something in it is not what its index promises.
        UsageError: the bundle has no such precision.
        VerificationError: no precision was accepted, or answers are not the golden ones.
    """
    machine = read_machine()
    threads = config.threads or usable_cpus()
    load = load_of(config)
    bundle = Bundle(config.bundle)
    inputs = Inputs.of(bundle)
    with contextlib.ExitStack() as closing:

        def open_engine(precision: str) -> Engine:
            return open_ours(bundle, precision, threads, closing)

        verified: dict[str, tuple[Engine, Verified]] = {}
        for precision in precisions_of(bundle, config.precision):
            engine = open_engine(precision)
            verified[precision] = engine, verify_before(engine, bundle.golden())
        cells = [cell for precision in verified for cell in _cells(bundle, precision, inputs, open_engine)]
        answers: dict[str, dict[int, Answer]] = {peer.name: {} for peer, _ in cells}
        candidates = [Candidate(peer.name, recording(peer, answers[peer.name])) for peer, _ in cells]
        with Sampler(cpu_sensors(), cpu_facts()) as sampler:
            zero_ns = time.perf_counter_ns()
            result = closed_loop(candidates, load, progress=progress)
        accuracy = tuple(
            check_after(
                engine, inputs, proof, [peer for peer, _ in cells if peer.precision == name], answers, result.steps
            )
            for name, (engine, proof) in verified.items()
        )
        telemetry = sampler.result(zero_ns)
        rows = tuple(
            _for_streams(closed_row(peer, result, answers[peer.name], zero_ns, telemetry), streams)
            for peer, streams in cells
        )
        first = next(iter(verified.values()))[0]
        return Report(
            created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            machine=machine,
            subject=subject_of(bundle, first),
            settings=settings_of(load, threads, inputs),
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
            roofline=floors(bundle, first.precision, machine, threads, rows, progress) if config.roofline else None,
            wrapper=measure_wrapper(bundle, first.precision, inputs),
            harness_us=result.overhead_us,
            seconds=result.seconds,
            notes=tuple(notes_of(machine, first.precision, ())),
        )


def precisions_of(bundle: Bundle, wanted: str) -> list[str]:
    """The precisions to measure: one by name, or all that were accepted.

    Raises:
        UsageError: the bundle has no such precision.
        VerificationError: no precision was accepted.
    """
    if wanted != "verdict":
        if wanted not in bundle.precisions:
            raise UsageError(
                f"{bundle.path} has no precision {wanted!r}.", next=f"choose from {one_of(bundle.precisions)}"
            )
        return [wanted]
    accepted = {name for name, entry in bundle.precisions.items() if str(entry.get("verdict", "")).startswith("accept")}
    found = [name for name in PRECISIONS if name in accepted - bundle.failed]
    if not found:
        raise VerificationError(
            f"No precision of {bundle.path} was accepted.",
            next=command("logoformer", "export", "CHECKPOINT", "-o", bundle.path),
        )
    return found


def _cells(
    bundle: Bundle, precision: str, inputs: Inputs, open_engine: Callable[[str], Engine]
) -> list[tuple[Peer, int]]:
    """(cell, streams) of one precision: the clip graph, then every hop with one stream and with all faces."""
    cells = [(clip_peer(open_engine(precision), inputs, f"{CLIP} {precision}"), 1)]
    for streams in sorted({1, min(2, bundle.stream.faces), bundle.stream.faces}):
        for hop in HOPS:
            name = f"{STREAM} {precision} hop {hop} x {streams}"
            cells.append((streams_peer(open_engine(precision), inputs, name, hop, streams), streams))
    return cells


def streams_peer(engine: Engine, inputs: Inputs, name: str, hop: int, streams: int) -> Peer:
    """`engine.step` for several faces, until each of them is answered; the first one's answer is checked."""
    faces = [engine.stream(hop=hop, color="rgb", warmup="repeat") for _ in range(streams)]

    def answer(index: int) -> Answer:
        for frame in range(index * hop, (index + 1) * hop):
            given = {face: (inputs.frame(frame + 5 * place), frame / inputs.fps) for place, face in enumerate(faces)}
            results = engine.step(given)
        found = [results[face] for face in faces]
        if found[0] is None or None in found:
            raise VerificationError(f"{name} gave no answer at step {index} although {hop} frames were pushed.")
        return Answer(found[0].probabilities, {})

    what = f"engine.step of {streams} faces x {hop} new uint8 frames -> {streams} answers"
    return Peer(name, what, engine.precision, True, answer, engine.backend, hop=hop)


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
