"""`bench`: one run, one report.

The order matters. The machine's state is read first; answers are verified before anything is timed; all baselines are
timed in one interleaved run; and the answers they gave *while* being timed are compared with the verified ones, so that
nobody is fast by being wrong. Sensors are read beside everything that is timed.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from ..bundle import Bundle
from ..engine import Runtime, load
from ..errors import UsageError, command, one_of
from .accuracy import (
    Accuracy,
    TimedAnswer,
    check_after,
    graph_digests,
    judge_baselines,
    recording,
    sampled,
    stream_answers,
    verify_before,
)
from .baselines.contract import (
    CLIP,
    CLIP_AGAIN,
    CLIP_REPEATED,
    OTHERS,
    STREAM,
    STREAM_AGAIN,
    Baseline,
    Inputs,
    Skipped,
    StepAnswer,
    answer_of,
    clip_baseline,
    faces_baseline,
    open_ours,
    stream_baseline,
)
from .baselines.programs import Opening, open_others
from .baselines.trtexec import compare_trtexec
from .load.closed import LoadConfig, Progress, overhead_us
from .load.first_answer import cold_starts, idle_gaps
from .load.modes import run_closed
from .load.offline import offline
from .load.overhead import cache_check, measure_wrapper
from .load.paced import paced
from .qualify import notes_of, qualify
from .report.records import CPU, MODES, CacheCheck, ColdStart, IdleGap, ReportRow, RowComparison, Settings, Subject
from .report.report import Report
from .report.rows import comparisons_of, make_row, with_energy
from .roofline.report import floors
from .sensors.find import Sensors, device_of, this_machine
from .sensors.machine import read_machine, usable_cpus
from .sensors.telemetry import Sampler
from .statistics import FloatArray, ratio

ROUNDS, FEWEST_ROUNDS = 40, 20  # what intervals are made of; 20 are about half as sharp
REST_S = 0.05  # twice as long as the thread pools of any baseline were seen to spin after their last work
IDLE_S = 1.0  # of power samples before the run, where there is a power sensor
FLAGS = {
    "iterations": "--iterations", "warmup": "--warmup", "threads": "--threads", "precision": "--precision",
    "others": "--baselines", "seed": "--seed", "modes": "--mode", "backend": "--backend", "rate_hz": "--rate",
    "hop": "--hop", "streams": "--streams", "trtexec": "--compare", "device": "--device", "strict": "--strict",
}  # fmt: skip


@dataclass(frozen=True)
class BenchConfig:
    """Settings of one benchmark run.

    Attributes:
        bundle: its folder.
        iterations: timed results of each baseline, at least FEWEST_ROUNDS; ROUNDS rounds where there are as many, all
            alike. 662 give a p99.
        warmup: untimed results of each baseline before.
        threads: CPU threads of each baseline; None: every CPU that this process may use.
        precision: 'verdict', or one by name.
        others: which of `baselines.contract.OTHERS` to time beside ours, in the mode 'closed'.
        seed: of the order within the rounds.
        modes: some of `records.MODES`.
        backend: of `logoformer.load`.
        rate_hz: frames per second of the mode 'paced'; None: those that the model was trained for.
        hop: frames for one answer of the modes 'paced' and 'multi'.
        streams: faces of the mode 'multi'; None: as many as the bundle's arena holds.
        trtexec: whether to run trtexec on the bundle's engines, where it is installed.
        roofline: whether the computed floors go into the report; compiling the plans takes seconds.
        device, strict: of `logoformer.load`.
    """

    bundle: Path
    iterations: int = 140
    warmup: int = 10
    threads: int | None = None
    precision: str = "verdict"
    others: tuple[str, ...] = OTHERS
    seed: int = 0
    modes: tuple[str, ...] = ("closed",)
    backend: str = "onnxruntime"
    rate_hz: float | None = None
    hop: int = 1
    streams: int | None = None
    trtexec: bool = False
    roofline: bool = True
    device: int = 0
    strict: bool = False

    def command(self, matrix: bool = False) -> str:
        """The command that gives this run again, with the name of the bundle's folder."""
        words = ["logoformer", "bench", self.bundle.resolve().name, *["--matrix"] * matrix]
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in FLAGS and value != option.default:
                text = ",".join(value) or "none" if isinstance(value, tuple) else "trtexec" if value is True else value
                words += [FLAGS[option.name], *([] if option.name == "strict" else [str(text)])]
        return command(*words)

    def __post_init__(self) -> None:
        if self.iterations < FEWEST_ROUNDS:
            raise UsageError(
                f"{self.iterations} iterations are too few: each of {FEWEST_ROUNDS} interleaved rounds needs one.",
                next=command("logoformer", "bench", self.bundle, "--iterations", "140"),
            )
        if self.warmup < 0 or (self.threads is not None and self.threads < 1):
            raise UsageError(f"warmup must be at least 0 and threads at least 1; got {self.warmup} and {self.threads}.")
        for what, given, known in (("baseline", self.others, OTHERS), ("mode", self.modes, MODES)):
            unknown = [name for name in given if name not in known]
            if unknown:
                raise UsageError(f"Unknown {what} {one_of(unknown)}.", next=f"choose from {one_of(known)}")
        if not self.modes:
            raise UsageError("No mode was asked for.", next=f"choose from {one_of(MODES)}")
        if self.hop < 1 or (self.rate_hz is not None and not 0 < self.rate_hz <= 10_000):
            raise UsageError(f"hop must be at least 1 and the rate 0..10000 Hz; got {self.hop} and {self.rate_hz}.")
        if self.streams is not None and self.streams < 2:
            raise UsageError(f"The mode 'multi' needs at least 2 streams; got {self.streams}.")


def bench(
    config: BenchConfig,
    progress: Progress | None = None,
    sensors: Sensors | None = None,
    kind: type[BenchRun] | None = None,
) -> Report:
    """Measures a bundle on this machine beside its sensors, and checks the answers.

    Args:
        config: what to run.
        progress: called with (stage, done, total).
        sensors: what is read beside the run; None: all of this machine's.
        kind: what measures something else than `BenchRun` does.

    Raises:
        BadInputError: there is no bundle.
        RefusedError: something in it is not what its index promises.
        UsageError: more streams than the bundle's arena holds.
        VerificationError: its answers are not the golden ones, or were others while it was timed.
        MachineError: the backend cannot run here, or says GPU on a machine without one.
    """
    machine = read_machine()
    sensors = sensors or this_machine(config.device)
    with contextlib.ExitStack() as closing:
        run = (kind or BenchRun)(config, sensors, closing, progress)
        sampler = Sampler(sensors.sensors, sensors.facts)
        with sampler:
            if any(sensor.kind == "power" for sensor in sensors.sensors):
                time.sleep(IDLE_S)
            run.zero_ns = time.perf_counter_ns()
            run.measure()
            seconds = (time.perf_counter_ns() - run.zero_ns) / 1e9
        telemetry = sampler.result(run.zero_ns)
        accuracy = run.checked()
        wrapper = measure_wrapper(run.bundle, run.runtime.precision, run.inputs)
        preset = str(run.bundle.manifest["model"].get("preset", ""))
        name, runtime = run.bundle.path.resolve().name, run.runtime
        subject = Subject(name, preset, runtime.precision, runtime.backend, run.device, graph_digests(runtime))
        asked = run.bundle, run.runtime.precision, sensors, config.device
        trtexec, skipped = compare_trtexec(*asked) if config.trtexec else ((), ())
    rows = with_energy(run.rows, telemetry)
    ours = [row for row in rows if row.name not in run.foreign]
    return Report(
        command=config.command(matrix=kind is not None),
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        machine=machine,
        subject=subject,
        settings=Settings(
            **asdict(run.load),
            modes=tuple(mode for mode in MODES if mode in config.modes),
            threads=run.threads,
            inputs=len(run.inputs.clips),
            rate_hz=run.rate_hz,
        ),
        rows=rows,
        skipped=(*run.skipped, *skipped),
        comparisons=tuple(run.comparisons),
        accuracy=accuracy,
        cache=run.cache,
        cold=run.cold_start,
        idle_gaps=run.gaps,
        telemetry=telemetry,
        qualification=qualify(ours, machine, telemetry, run.cache),
        trtexec=trtexec,
        roofline=floors(run.bundle, subject, run.threads, rows, progress) if config.roofline else None,
        wrapper=wrapper,
        harness_us=harness_us(),
        seconds=seconds,
        notes=(*notes_of(machine, run.device, run.runtime.precision, run.foreign), *other_devices(rows)),
    )


def other_devices(rows: Sequence[ReportRow]) -> list[str]:
    """A note that names the rows of other devices than the first row's, which are in no ratio."""
    others = [f"{row.name} ({row.device})" for row in rows if row.device != rows[0].device]
    if not others:
        return []
    return [f"In no ratio, because they ran on another device than {rows[0].device}: {', '.join(others)}."]


def harness_us() -> float:
    """Microseconds that generator and recording add to one latency: median over no work."""
    empty = StepAnswer(np.empty(0, np.float32), {})
    return overhead_us(recording(lambda _index: empty, {}))


class BenchRun:
    """The runtimes of one run and what its modes gave; each mode is a method of its name.

    Raises:
        UsageError: 'multi' with fewer than two streams, or with more than the bundle's ring arena holds.
        VerificationError: an answer to a golden clip is too far from the PyTorch model's; nothing was timed.
        LogoformerError: as `logoformer.load`.
    """

    def __init__(
        self, config: BenchConfig, sensors: Sensors, closing: contextlib.ExitStack, progress: Progress | None
    ) -> None:
        self.config, self.closing, self.progress = config, closing, progress
        self.threads = config.threads or usable_cpus()
        rounds = min(ROUNDS, config.iterations)
        block = -(-config.iterations // rounds)
        self.load = LoadConfig(rounds, block, settle=2, rest_s=REST_S, warmup=config.warmup, seed=config.seed)
        self.bundle = Bundle(config.bundle)
        self.inputs = Inputs.of(self.bundle)
        self.rate_hz = config.rate_hz or self.inputs.fps
        self.faces = config.streams or self.bundle.stream.faces
        if "multi" in config.modes and not 2 <= self.faces <= self.bundle.stream.faces:
            raise UsageError(
                f"{self.faces} streams were asked for; this bundle's ring arena holds "
                f"{self.bundle.stream.faces}, and 'multi' needs at least 2.",
                next=command("logoformer", "export", "CHECKPOINT", "-o", config.bundle, "--faces", "8"),
            )
        runtimes = [self.open(precision) for precision in self.precisions()]
        self.runtime = runtimes[0]
        self.device, self.gpu = device_of(self.runtime.backend, sensors), sensors.gpu
        self.proofs = [verify_before(runtime, self.bundle.golden()) for runtime in runtimes]
        self.zero_ns = 0
        self.rows: list[ReportRow] = []
        self.answers: list[TimedAnswer] = []
        self.comparisons: list[RowComparison] = []
        self.skipped: list[Skipped] = []
        self.foreign: tuple[str, ...] = ()
        self.cache: CacheCheck | None = None
        self.cold_start: ColdStart | None = None
        self.gaps: tuple[IdleGap, ...] = ()

    def open(self, precision: str | None = None) -> Runtime:
        """One more runtime, in the precision of the configuration unless another is named."""
        wanted = precision or self.config.precision
        c = self.config
        return open_ours(self.bundle, wanted, self.threads, self.closing, c.backend, c.device, c.strict)

    def precisions(self) -> tuple[str, ...]:
        """Those whose answers are verified before anything is timed."""
        return (self.config.precision,)

    def measure(self) -> None:
        """Runs the modes of the configuration."""
        for mode in MODES:
            if mode in self.config.modes:
                getattr(self, mode)()

    def checked(self) -> tuple[Accuracy, ...]:
        """Compares what was answered while it was timed with what was verified before."""
        return tuple(check_after(proof, self.inputs, self.answers) for proof in self.proofs)

    def interleaved(self, baselines: Sequence[Baseline], mode: str = "closed") -> Mapping[str, FloatArray]:
        """Times baselines in one closed loop; gives the latencies by baseline, float64 `[R, K]`."""
        rows, answers, result = run_closed(baselines, self.load, self.zero_ns, self.progress, mode=mode)
        self.rows += rows
        self.answers += answers
        return result.latency_ms

    def closed(self) -> None:
        """The next begins when the last is answered; all baselines interleaved."""
        runtimes = [self.runtime, *(self.open() for _ in range(4))]
        clips = zip(runtimes[:3], (CLIP, CLIP_AGAIN, CLIP_REPEATED), strict=True)
        streams = zip(runtimes[3:], (STREAM, STREAM_AGAIN), strict=True)
        ours = [clip_baseline(runtime, self.inputs, name, self.device) for runtime, name in clips]
        ours += [stream_baseline(runtime, self.inputs, name, self.device) for runtime, name in streams]
        opening = Opening(
            self.bundle, self.runtime.precision, self.threads, self.inputs, self.closing, self.gpu,
            self.config.backend, self.device, self.config.device, self.config.strict,
        )  # fmt: skip
        opened, skipped = open_others(self.config.others, opening, self.progress)
        others, wrong = judge_baselines(self.proofs[0], self.inputs, opened)
        self.skipped += [*skipped, *wrong]
        self.foreign = tuple(baseline.name for baseline in others)
        taken = self.interleaved([*ours, *others])
        self.comparisons += comparisons_of(taken, {one.name: one.device for one in (*ours, *others)})
        repeated, noise = ratio(taken[CLIP_REPEATED], taken[CLIP]), ratio(taken[CLIP], taken[CLIP_AGAIN]).noise
        self.cache = cache_check(self.runtime, self.inputs, repeated, noise)

    def paced(self) -> None:
        """One stream at a camera's rate, latency from the scheduled arrival of each frame."""
        runtime, inputs, hop, rate = self.open(), self.inputs, self.config.hop, self.rate_hz
        answers: dict[int, StepAnswer] = {}
        with runtime.stream(hop=hop, color="rgb", warmup="repeat") as stream:

            def step(index: int) -> bool:
                result = stream.push(inputs.frame(index), index / inputs.fps)
                if result is not None:
                    answers[index] = answer_of([result])
                return result is not None

            first = self.load.warmup * hop
            for index in range(first):
                step(index)
            result = paced(step, rate, self.load.samples * hop, first=first, progress=self.progress)
        what = f"stream.push at {rate:g} frames/s, hop {hop}: scheduled arrival of the frame -> probabilities"
        baseline = Baseline(
            f"paced {rate:g} Hz", what, runtime.precision, True, answers.__getitem__, runtime.backend, self.device, hop
        )
        steps = [int(step) for step in result.steps]
        due_s = (result.due_ns - self.zero_ns) / 1e9
        self.rows.append(make_row(
            baseline, "paced", due_s[None], result.latency_ms[None], [answers[step] for step in steps],
            throughput_hz=result.pace.achieved_hz / hop, pace=result.pace,
        ))  # fmt: skip
        for step_ in sampled(steps):
            self.answers += stream_answers(step_, answers[step_], baseline)

    def multi(self) -> None:
        """One new frame of each of several faces, beside one face alone and beside itself."""
        many, again, one = f"{self.faces} streams", f"{self.faces} streams again", "1 stream alone"
        baselines = [
            faces_baseline(self.open(), self.inputs, name, self.config.hop, count, self.device)
            for name, count in ((many, self.faces), (again, self.faces), (one, 1))
        ]
        taken = self.interleaved(baselines, "multi")
        noise = ratio(taken[many], taken[again])
        self.comparisons.append(RowComparison(many, one, ratio(taken[many], taken[one]), noise.noise))
        self.comparisons.append(RowComparison(many, again, noise, noise.noise))

    def offline(self) -> None:
        """As many clips at once as the machine takes."""
        workers = self.threads if self.device == CPU else 2  # on a GPU one copies while one computes
        precision, c = self.runtime.precision, self.config
        options = {"backend": c.backend, "precision": precision, "device": c.device, "strict": c.strict}
        answers: dict[int, StepAnswer] = {}

        @contextlib.contextmanager
        def open_step() -> Iterator[Callable[[int], None]]:
            threads = max(self.threads // workers, 1)
            with load(Bundle(c.bundle), threads=threads, **options) as runtime:  # type: ignore[arg-type]
                yield recording(clip_baseline(runtime, self.inputs, CLIP, self.device).answer, answers)

        result = offline(open_step, workers, self.load.samples, max(self.load.warmup, 1))
        what = f"{workers} threads, each with a runtime of its own: latency of one clip among them"
        baseline = Baseline("offline", what, precision, True, answers.__getitem__, self.runtime.backend, self.device)
        given = [answers[index] for index in range(self.load.samples)]
        start_s, latency = (result.start_ns - self.zero_ns) / 1e9, result.latency_ns / 1e6
        self.rows.append(
            make_row(baseline, "offline", start_s[None], latency[None], given, throughput_hz=result.throughput_hz)
        )
        self.answers += [TimedAnswer(index, answer.probabilities, baseline) for index, answer in enumerate(given)]

    def cold(self) -> None:
        c = self.config
        self.cold_start = cold_starts(
            c.bundle, c.backend, self.runtime.precision, self.threads, progress=self.progress, device=c.device,
            strict=c.strict,
        )  # fmt: skip

    def idle(self) -> None:
        baseline = clip_baseline(self.open(), self.inputs, CLIP, self.device)
        self.gaps = idle_gaps(baseline.answer, progress=self.progress, seed=self.config.seed)
