"""`bench`: one run, one report.

The order matters. The machine's state is read first; answers are verified before anything is timed; all peers are
timed in one interleaved run; and the answers they gave *while* being timed are compared with the verified ones, so that
nobody is fast by being wrong.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..bundle import Bundle
from ..engine import Engine
from ..errors import UsageError, command, one_of
from .accuracy import check_after, graph_digests, recording, verify_before
from .cache import cache_check
from .energy import row_energy
from .loadgen import Candidate, LoadConfig, LoadResult, Progress, closed_loop
from .machine import Machine, read_machine, usable_cpus
from .overhead import measure_wrapper
from .peer_list import open_others
from .peers import (
    CLIP,
    CLIP_AGAIN,
    CLIP_REPEATED,
    COMPILED,
    EAGER,
    NAIVE,
    OPENVINO,
    ORT,
    ORT_CUDA,
    ORT_TENSORRT,
    OTHERS,
    PER_FRAME,
    POLYGRAPHY,
    STREAM,
    STREAM_AGAIN,
    Answer,
    Inputs,
    Peer,
    clip_peer,
    open_ours,
    stream_peer,
)
from .qualify import judge, timed_windows
from .records import CPU, Comparison, Row, Settings, Subject, Telemetry
from .report import Report
from .roofline_report import Roofline, roofline, with_measured
from .sensors_cpu import cpu_facts, cpu_sensors
from .statistics import Ratio, Summary, ratio
from .telemetry import Sampler

ROUNDS = 20  # what the bootstrap draws from
REST_S = 0.05  # twice as long as the thread pools of any peer were seen to spin after their last work
BUSY = 0.5  # load average per CPU from which on a note says that others were running

# (ours, over which peer, whose noise stands beside it)
_COMPARED = (
    (CLIP, EAGER, CLIP),
    (CLIP, COMPILED, CLIP),
    (CLIP, ORT, CLIP),
    (CLIP, OPENVINO, CLIP),
    (CLIP, ORT_CUDA, CLIP),
    (CLIP, ORT_TENSORRT, CLIP),
    (CLIP, POLYGRAPHY, CLIP),
    (STREAM, NAIVE, STREAM),
    (STREAM, CLIP, STREAM),
    (STREAM, EAGER, STREAM),
    (STREAM, PER_FRAME, STREAM),
    (CLIP, CLIP_AGAIN, CLIP),
    (STREAM, STREAM_AGAIN, STREAM),
)
_AGAIN = {CLIP: CLIP_AGAIN, STREAM: STREAM_AGAIN}


@dataclass(frozen=True)
class BenchConfig:
    """What to run.

    Attributes:
        bundle: its folder.
        iterations: timed results of each peer, at least ROUNDS; rounded up to whole rounds. 662 give a p99.
        warmup: untimed results of each peer before.
        threads: CPU threads of each peer; None: every CPU that this process may use.
        precision: 'verdict', or one by name.
        others: which of `peers.OTHERS` to time beside ours.
        seed: of the order within the rounds.
        roofline: whether the computed floors go into the report; compiling the plans takes seconds.
    """

    bundle: Path
    iterations: int = 140
    warmup: int = 10
    threads: int | None = None
    precision: str = "verdict"
    others: tuple[str, ...] = OTHERS
    seed: int = 0
    roofline: bool = True

    def __post_init__(self) -> None:
        if self.iterations < ROUNDS:
            raise UsageError(
                f"{self.iterations} iterations are too few: each of {ROUNDS} interleaved rounds needs one.",
                next=command("logoformer", "bench", self.bundle, "--iterations", "140"),
            )
        if self.warmup < 0 or (self.threads is not None and self.threads < 1):
            raise UsageError(f"warmup must be at least 0 and threads at least 1; got {self.warmup} and {self.threads}.")
        unknown = [name for name in self.others if name not in OTHERS]
        if unknown:
            raise UsageError(f"Unknown peer {one_of(unknown)}.", next=f"choose from {one_of(OTHERS)}")


def bench(config: BenchConfig, progress: Progress | None = None) -> Report:
    """Measures a bundle on this machine's CPU.

    Args:
        config: what to run.
        progress: called with (stage, done, total).

    Returns:
        The report.

    Raises:
        BadInputError: there is no bundle.
        RefusedError: something in it is not what its index promises.
        VerificationError: its answers are not the golden ones, or were others while it was timed.
    """
    machine = read_machine()
    threads = config.threads or usable_cpus()
    load = load_of(config)
    bundle = Bundle(config.bundle)
    inputs = Inputs.of(bundle)
    with contextlib.ExitStack() as closing:
        engines = [open_ours(bundle, config.precision, threads, closing) for _ in range(5)]
        engine = engines[0]
        verified = verify_before(engine, bundle.golden())
        names = (CLIP, CLIP_AGAIN, CLIP_REPEATED, STREAM, STREAM_AGAIN)
        ours = [clip_peer(one, inputs, name) for one, name in zip(engines[:3], names[:3], strict=True)]
        ours += [stream_peer(one, inputs, name) for one, name in zip(engines[3:], names[3:], strict=True)]
        others, skipped = open_others(config.others, bundle, engine.precision, threads, inputs, closing, progress)
        peers = [*ours, *others]
        answers: dict[str, dict[int, Answer]] = {peer.name: {} for peer in peers}
        candidates = [Candidate(peer.name, recording(peer, answers[peer.name])) for peer in peers]
        with Sampler(cpu_sensors(), cpu_facts()) as sampler:
            zero_ns = time.perf_counter_ns()
            result = closed_loop(candidates, load, progress=progress)
        shown = [peer for peer in peers if peer.name != CLIP_REPEATED]
        accuracy = check_after(engine, inputs, verified, shown, answers, result.steps)
        repeated = ratio(result.latency_ms[CLIP_REPEATED], result.latency_ms[CLIP])
        noise = ratio(result.latency_ms[CLIP], result.latency_ms[CLIP_AGAIN]).noise
        cache = cache_check(engine, inputs, repeated, noise)
    telemetry = sampler.result(zero_ns)
    rows = tuple(closed_row(peer, result, answers[peer.name], zero_ns, telemetry) for peer in shown)
    mine = [row for row in rows if row.name in names]
    return Report(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        machine=machine,
        subject=subject_of(bundle, engine),
        settings=settings_of(load, threads, inputs),
        rows=rows,
        skipped=tuple(skipped),
        comparisons=tuple(compare(result.latency_ms)),
        accuracy=(accuracy,),
        cache=cache,
        cold=None,
        idle_gaps=(),
        telemetry=telemetry,
        qualification=judge(mine, machine, telemetry, cache),
        trtexec=(),
        roofline=floors(bundle, engine.precision, machine, threads, rows, progress) if config.roofline else None,
        wrapper=measure_wrapper(bundle, engine.precision, inputs),
        harness_us=result.overhead_us,
        seconds=result.seconds,
        notes=tuple(notes_of(machine, engine.precision, others)),
    )


def load_of(config: BenchConfig) -> LoadConfig:
    """How much load, and in which pattern."""
    return LoadConfig(
        rounds=ROUNDS,
        block=-(-config.iterations // ROUNDS),
        settle=2,
        rest_s=REST_S,
        warmup=config.warmup,
        seed=config.seed,
    )


def floors(
    bundle: Bundle, precision: str, machine: Machine, threads: int, rows: Sequence[Row], progress: Progress | None
) -> Roofline:
    """The floors of every precision of the bundle, and what was just measured over the floor of this CPU."""
    found = roofline(bundle, list(bundle.precisions), machine, threads, progress=progress)
    medians: dict[str, float] = {}
    for answer, own in ((CLIP, None), (STREAM, 1)):
        for row in rows:
            if (row.name.split()[0], row.hop, row.streams, row.precision) == (answer, own, 1, precision):
                medians.setdefault(answer, float(np.median(row.rounds())))
    return with_measured(found, found.devices[-1].name, precision, medians)


# --------------------------------------------------------------------------------------------------------------- report
def compare(latency_ms: Mapping[str, npt.NDArray[np.float64]]) -> list[Comparison]:
    """The comparisons that this run allows, each beside the A/A noise of its numerator.

    Args:
        latency_ms: by peer, float64 `[R, K]`.
    """
    ratios: dict[tuple[str, str], Ratio] = {
        (a, b): ratio(latency_ms[a], latency_ms[b]) for a, b, _ in _COMPARED if a in latency_ms and b in latency_ms
    }
    found = []
    for a, b, against_itself in _COMPARED:
        if (a, b) in ratios:
            same = ratios.get((against_itself, _AGAIN[against_itself]))
            found.append(Comparison(a, b, ratios[a, b], None if same is None else same.noise))
    return found


def closed_row(
    peer: Peer, result: LoadResult, answers: Mapping[int, Answer], zero_ns: int, telemetry: Telemetry
) -> Row:
    """One row of the closed loop.

    Args:
        peer: who was timed.
        result: all latencies.
        answers: what the peer answered, by step.
        zero_ns: second 0 of the report on the generator's clock.
        telemetry: read beside it.
    """
    latency = result.latency_ms[peer.name]  # [R, K]
    given = [answers[int(step)] for step in result.steps.reshape(-1)]
    device = [answer.device_ms for answer in given if answer.device_ms is not None]
    row = Row(
        name=peer.name,
        what=peer.what,
        mode="closed",
        precision=peer.precision,
        backend=peer.backend,
        device=peer.device,
        streams=1,
        hop=peer.hop,
        summary=Summary.of(latency.reshape(-1)),
        throughput_hz=1e3 / float(latency.mean()),
        stages_p50_ms=stage_medians(given),
        device_ms=Summary.of(device) if device else None,
        energy=None,
        pace=None,
        at_s=_blocks(np.round((result.start_ns[peer.name] - zero_ns) / 1e9, 6)),
        latency_ms=_blocks(latency),
    )
    return replace(row, energy=row_energy(telemetry, timed_windows([row]), latency.size))


def stage_medians(answers: Sequence[Answer]) -> tuple[tuple[str, float], ...]:
    """(stage, median over the answers) in the order they run."""
    return tuple(
        (name, float(np.median([answer.stages_ms[name] for answer in answers]))) for name in answers[0].stages_ms
    )


def _blocks(values: npt.NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(map(float, block)) for block in values)


def settings_of(load: LoadConfig, threads: int, inputs: Inputs) -> Settings:
    """How the run was made."""
    return Settings(
        modes=("closed",),
        threads=threads,
        rounds=load.rounds,
        block=load.block,
        settle=load.settle,
        rest_s=load.rest_s,
        warmup=load.warmup,
        seed=load.seed,
        inputs=len(inputs.clips),
        rate_hz=inputs.fps,
    )


def subject_of(bundle: Bundle, engine: Engine) -> Subject:
    """The artifact that was timed."""
    preset = str(bundle.manifest["model"].get("preset", ""))
    return Subject(bundle.path.resolve().name, preset, engine.precision, engine.backend, CPU, graph_digests(engine))


def notes_of(machine: Machine, precision: str, others: Sequence[Peer]) -> list[str]:
    """What a reader must know before quoting a figure."""
    gpus = sorted({peer.name for peer in others if peer.device != CPU})
    notes = [
        f"{one_of(gpus)} ran on a GPU; every other row is the CPU's."
        if gpus
        else "Measured on the CPU. Nothing here says how fast a GPU would be."
    ]
    if machine.load_1min is not None and machine.load_1min > BUSY * machine.usable_cpus:
        notes.append(
            f"The load average was {machine.load_1min:.2f} on {machine.usable_cpus} CPUs at the start: others were "
            "running. Times are upper limits, and whoever spins on more threads suffers more: measure again when idle."
        )
    if any(peer.name in (EAGER, COMPILED) for peer in others):
        notes.append("torch runs the same architecture with random weights: a bundle holds none for it.")
        if precision != "fp32":
            notes.append(f"torch runs in FP32, the bundle's graphs in {precision}: that ratio mixes two causes.")
    return notes
