"""Every verb in one run, from synthetic faces to a camera, on a machine without a GPU.

synth -> train tiny -> evaluate -> export -> build -> verify -> bench -> run -> watch. Every step is the function behind
the verb of that name, nothing is shortened but the model, the data set and the benchmark, which leaves out
`torch.compile`: that takes longer to compile than everything else takes to measure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..benchmarks.report.text_tables import table
from ..bundle.files import dump_json, foreign_paths, write_atomic
from ..bundle.writer import PATHS
from ..camera.answers.contract import UNCERTAIN
from ..errors import UsageError, command
from ..model.data.clips import Progress

VIDEOS = 4
PEOPLE, ROUNDS = 2, 2  # of the scene that is watched
MARKER = "demo.json"
# Every path that a demo makes, also one that was killed: an older demo is replaced as a whole, and nothing else is.
_LISTS, _CLIPS = r"(train|test)\(single-labeled\)(/set_\d\.csv)?", r"clip_224x224(/\d+(/\d+\.jpg)?)?"
_FACES = rf"faces(/EmoLabel_DataSplit(/{_LISTS})?|/Clip(/{_CLIPS})?)?"
_MADE = re.compile(
    r"\.demo|(demo|bench)\.json|(video-\d+|scene)\.(mp4|json)|answers\.(mp4|jsonl)|watch\.mp4"
    r"|checkpoint(/config\.json|/model\.safetensors|\.log\.jsonl|\.state\.pt)?"
    rf"|{_FACES}|face\.bundle(/{PATHS})?"
    r"|(.*/)?\.part-[0-9a-f]{16}[^/]*|\.(faces|checkpoint)-[A-Za-z0-9_-]+(/.*)?"
)


@dataclass(frozen=True)
class DemoReport:
    """Results of the demo.

    Attributes:
        rows: (step, figure, file or folder).
        seconds: the whole run.
        figures: the same as JSON values.
    """

    rows: tuple[tuple[str, str, str], ...]
    seconds: float
    figures: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**self.figures, "seconds": self.seconds}

    def table(self) -> str:
        """The rows, and the limits of what they show."""
        return (
            table([("step", "result", "made"), *self.rows])
            + f"\n{self.seconds:.0f} s in all. Synthetic faces: nothing here says how well a model reads people, and "
            + "nothing says how fast a GPU is."
        )


def demo(out: str | os.PathLike[str], *, seed: int = 0, progress: Progress, say: Callable[[str], None]) -> DemoReport:
    """Runs everything into one folder; an older demo there is replaced.

    Args:
        out: the folder.
        seed: of data, weights and order.
        progress: called with (stage, done, total).
        say: receives a line when a step is done.

    Raises:
        UsageError: the folder holds something else.
        VerificationError: a step did not give what it must.
    """
    from ..benchmarks.baselines.contract import COMPILED, OTHERS
    from ..benchmarks.bench import BenchConfig, bench
    from ..benchmarks.report.report import write_report
    from ..camera.answers.video import OverlaySink
    from ..camera.run import run_source
    from ..camera.sources.open import open_source
    from ..camera.spans import score_spans
    from ..camera.watch import Watch
    from ..engine import load
    from ..engine.builder.bundle import build_bundle
    from ..engine.trust.index import NOT_RUN, VERIFIED
    from ..engine.verify import verify
    from ..export.exporter import ExportConfig
    from ..model.synthetic.layout import synth, write_scene, write_untrimmed
    from ..model.synthetic.recordings import FIRST_VIDEO_IDENTITY
    from ..model.training.recipe import TrainConfig
    from .evaluate import evaluate_on
    from .export import export_checkpoint
    from .train import train_on

    folder = _fresh(Path(out))
    began = time.perf_counter()
    rows: list[tuple[str, str, str]] = []
    figures: dict[str, Any] = {}

    def note(step: str, result: str, made: Path | str, **found: Any) -> None:
        rows.append((step, result, str(made)))
        figures[step] = found
        say(f"[{time.perf_counter() - began:5.0f} s] {step}: {result}")

    faces = synth(folder / "faces", seed=seed, progress=progress)
    videos = [folder / f"video-{n}.mp4" for n in range(VIDEOS)]
    for n, video in enumerate(videos):
        write_untrimmed(video, seed=seed, identity=FIRST_VIDEO_IDENTITY + n, progress=progress)
    note("synth", f"{faces.clips} clips, {faces.frames} frames, {VIDEOS} videos", faces.path, **faces.to_json())

    trained = train_on(faces.path, folder / "checkpoint", "tiny", TrainConfig(seed=seed), progress=progress)
    note("train", f"{trained.duration_s:.0f} s on {trained.device}", trained.checkpoint, **trained.to_json())

    scores = {
        order: evaluate_on([trained.checkpoint], faces.path, order=order, progress=progress).answers.metrics()
        for order in ("forward", "reversed", "shuffled")
    }
    uars = ", ".join(f"{order} {m.uar:.3f}" for order, m in scores.items())
    note("evaluate", f"UAR {uars} (chance 0.143)", "", **{order: m.to_json() for order, m in scores.items()})

    bundle = export_checkpoint(
        trained.checkpoint, folder / "face.bundle", ExportConfig(), align_from=faces.path, seed=seed, progress=progress
    )  # fmt: skip
    verdicts = ", ".join(f"{name} {p['verdict']}" for name, p in bundle.precisions.items())
    note("export", verdicts, bundle.path, precisions=bundle.precisions)

    built = build_bundle(bundle.path, plan_sm="sm86", progress=progress)
    megabytes = sum(e.size for e in built.engines) / 1e6
    note("build", f"{len(built.engines)} TensorRT-RTX engines, {megabytes:.1f} MB, built, not run", built.folder)

    report = verify(bundle.path, progress=progress)
    report.require()
    verified = sorted({row.precision for row in report.rows if row.verdict == VERIFIED})
    waiting = sum(row.verdict == NOT_RUN for row in report.rows)
    result = f"{', '.join(verified)} verified on {report.golden_clips} golden clips; {waiting} engines built, not run"
    note("verify", result, bundle.path, **report.to_json())

    timed = bench(BenchConfig(bundle.path, iterations=140, others=tuple(o for o in OTHERS if o != COMPILED)), progress)
    write_report(timed, folder / "bench.json")
    p50 = {row.name: found.value_ms for row in timed.rows if (found := row.summary.at(50.0)) is not None}
    shown = ", ".join(f"{name} {p50[name]:.2f} ms" for name in ("clip", "stream", "torch") if name in p50)
    note("bench", f"p50 on this CPU: {shown}", folder / "bench.json", p50_ms=p50)

    with load(bundle.path) as engine:
        score = score_spans(engine, videos, progress)
        answers: list[str] = []
        with open_source(videos[0]) as source:
            done = run_source(
                engine, source, out=folder / "answers.mp4", on_result=lambda line: answers.append(json.dumps(line)),
                progress=progress,
            )  # fmt: skip
        scene = folder / "scene.mp4"
        write_scene(scene, seed=seed, people=PEOPLE, rounds=ROUNDS, progress=progress)
        sink = OverlaySink(folder / "watch.mp4", engine.labels)
        with Watch(engine, [scene], sinks=[sink]) as watch:
            watched = [(answer.face, answer.label) for answer in watch]
    write_atomic(folder / "answers.jsonl", ("\n".join(answers) + "\n").encode())
    result = f"UAR {score.stream_uar:.3f} at {score.spans} spans (last frames only: {score.naive_uar:.3f})"
    note("run", f"{done.results} answers; {result}", folder / "answers.mp4", **score.to_json())
    faces_seen, said = len({face for face, _ in watched}), len({label for _, label in watched} - {UNCERTAIN})
    result = f"{len(watched)} answers for {faces_seen} faces that were found and followed, {said} expressions"
    note("watch", result, folder / "watch.mp4", answers=len(watched), faces=faces_seen, expressions=said)
    finished = DemoReport(tuple(rows), time.perf_counter() - began, figures)
    write_atomic(folder / MARKER, dump_json(finished.to_json()))
    return finished


def _fresh(folder: Path) -> Path:
    """An empty folder in place of an older demo; anything else is left alone."""
    started = folder / ".demo"
    if os.path.lexists(folder):
        if folder.is_symlink() or (not started.exists() and any(folder.iterdir())):
            raise UsageError(
                f"{folder} exists and is not a demo; it was left alone.",
                next=command("logoformer", "demo", "-o", "new"),
            )
        foreign = next(foreign_paths(folder, _MADE), None)
        if foreign is not None:
            raise UsageError(
                f"{folder} holds {foreign}, which the demo did not make; the folder was left alone.",
                cause="a file of yours in the folder of an older demo, which is replaced as a whole",
                next=f"move {folder / foreign} elsewhere, or: {command('logoformer', 'demo', '-o', 'new')}",
            )
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    started.touch()
    return folder
