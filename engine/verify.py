"""Does this machine give the golden answers?

Every precision's clip graph and streaming pair answer the golden clips through the same sessions that will run them,
and are held against the PyTorch answers in the bundle. An engine that this machine cannot run is reported as built, not
run; nothing is concluded from it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..bundle import Bundle, Golden, replace_manifest
from ..clips import window_order
from ..errors import MachineError, VerificationError, command
from .engine import Engine, load
from .engine_index import FAILED, VERIFIED, engines_folder, read_engine, read_index, verdict_of

Progress = Callable[[str, int, int], None]
SHARES = {"fp32": 0.001, "fp16": 0.05, "int8": 0.25}  # of the deviation between clips
HIDES = "agrees, not judged: ONNX Runtime's CPU kernels hide FP16 overflow; the export's rounding reference decided"


@dataclass(frozen=True)
class Row:
    """One verdict.

    Attributes:
        what: 'clip', 'frame + temporal', or an engine's file.
        precision: of it.
        evaluator: who ran it.
        share: largest logit difference over the deviation between golden clips; None when it was not run.
        agreement: share of golden clips with PyTorch's class; None when it was not run.
        verdict: 'verified', 'failed', 'built, not run', or a sentence that begins with 'agrees, not judged'.
    """

    what: str
    precision: str
    evaluator: str
    share: float | None
    agreement: float | None
    verdict: str


@dataclass(frozen=True)
class VerifyReport:
    """What was found.

    Attributes:
        bundle: its path.
        golden_clips: how many were answered.
        rows: the verdicts.
        export_verdicts: what the export decided, by precision.
        unrecorded: why the rows could not be written into the bundle; empty when they were, or need not be.
    """

    bundle: str
    golden_clips: int
    rows: tuple[Row, ...]
    export_verdicts: dict[str, str]
    unrecorded: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def require(self) -> None:
        """Raises when a row failed.

        Raises:
            VerificationError: names the rows.
        """
        failed = [row for row in self.rows if row.verdict == FAILED]
        if failed:
            raise VerificationError(
                f"{len(failed)} of {len(self.rows)} checks failed on the golden clips.",
                cause="a runtime with a wrong kernel, or a graph of another checkpoint",
                next=command("logoformer", "export", "CHECKPOINT", "-o", self.bundle),
                log=[f"{row.what} {row.precision}: {row.share} of the deviation on {row.evaluator}" for row in failed],
            )


def verify(
    path: str | os.PathLike[str],
    *,
    engines_dir: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    write: bool = True,
    progress: Progress | None = None,
) -> VerifyReport:
    """Verifies a bundle on this machine.

    Args:
        path: the bundle.
        engines_dir: where its engines live, if not inside.
        threads: CPU threads.
        write: record the rows in the manifest.
        progress: called with (stage, done, total).

    Raises:
        RefusedError: something is not what its index promises (engine files are hashed too).
    """
    bundle = Bundle(path)
    golden = bundle.golden()
    rows: list[Row] = []
    for done, precision in enumerate(bundle.precisions):
        if progress is not None:
            progress("golden clips", done, len(bundle.precisions))
        with load(bundle, precision=precision, threads=threads) as engine:
            rows.append(_row("clip", engine, golden, clip_answers(engine, golden)))
            rows.append(_row("frame + temporal", engine, golden, pair_answers(engine, golden)))
    graphs = len(rows)
    folder = engines_folder(bundle.path, engines_dir)
    for entry in read_index(folder):
        read_engine(folder, entry)  # proves that the file is whole
        builder = f"TensorRT {entry.tensorrt_version} ({entry.target})"
        verdict = verdict_of(entry, bundle.graphs)
        rows.append(Row(Path(entry.file).name, entry.precision, builder, None, None, verdict))
    if progress is not None:
        progress("golden clips", len(bundle.precisions), len(bundle.precisions))
    verdicts = {name: str(entry.get("verdict", "none")) for name, entry in bundle.precisions.items()}
    report = VerifyReport(str(bundle.path), len(golden.clips), tuple(rows), verdicts)
    if write:
        # Engines keep their verdicts in their own index: the manifest would outlive them.
        verification = {"machine": machine_name(), "rows": [asdict(row) for row in rows[:graphs]]}
        try:
            replace_manifest(bundle, {**bundle.manifest, "verification": verification})
        except MachineError as error:  # a read-only bundle is verified all the same
            report = replace(report, unrecorded=error.what)
    return report


def machine_name() -> str:
    """What a verdict holds for: operating system, processor and Python; no host name."""
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"


def clip_answers(engine: Engine, golden: Golden) -> npt.NDArray[np.float32]:
    """Probabilities of the golden clips by the clip graph, float32 `[G, C]`."""
    session = engine.session("clip")
    answers = []
    for clip in golden.clips:
        np.copyto(session.input("clip")[0], clip)
        session.run()
        answers.append(session.output("probabilities")[0].copy())
    return np.stack(answers)


def pair_answers(engine: Engine, golden: Golden) -> npt.NDArray[np.float32]:
    """The same by `frame` and `temporal`, the frames filed in the ring's first slots, float32 `[G, C]`."""
    spec = engine.bundle.stream
    frame, temporal = engine.session("frame"), engine.session("temporal")
    order = window_order(spec.frames, spec.grid, spec.window)
    answers = []
    for clip in golden.clips:
        for slot, image in enumerate(clip):
            np.copyto(frame.input("frame")[0], image)
            frame.run()
            temporal.take(frame, "tokens", "ring", slot * spec.tokens_per_frame)
        np.copyto(temporal.input("order"), order, casting="same_kind")
        temporal.run()
        answers.append(temporal.output("probabilities")[0].copy())
    return np.stack(answers)


def distance(answers: npt.NDArray[np.float32], truth: npt.NDArray[np.float32]) -> tuple[float, float]:
    """How far answers are from the truth.

    Centred log-probabilities are the logits up to a constant. Their difference is taken as a share of the standard
    deviation *between clips*: an untrained network answers alike for every clip, and an absolute bound would prove
    nothing on it.

    Args:
        answers: float32 `[N, C]`.
        truth: float32 `[N, C]`, for the same clips.

    Returns:
        (largest difference over the deviation, share of clips with the same class); infinite when an answer is not
        finite, or when all clips have one answer.
    """
    wanted = centred_logits(truth)
    deviation = float(np.sqrt(wanted.var(0).mean()))
    if not np.isfinite(answers).all() or deviation == 0:
        return float("inf"), 0.0
    share = float(np.abs(centred_logits(answers) - wanted).max()) / deviation
    return share, float((answers.argmax(1) == truth.argmax(1)).mean())


def centred_logits(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Logits of mean zero: `[N, C]` -> `[N, C]`."""
    logs = np.log(np.maximum(probabilities.astype(np.float64), 1e-45))
    centred: npt.NDArray[np.float64] = logs - logs.mean(1, keepdims=True)
    return centred


def _row(what: str, engine: Engine, golden: Golden, answers: npt.NDArray[np.float32]) -> Row:
    share, agreement = distance(answers, golden.probabilities)
    good = share <= SHARES[engine.precision]
    verdict = FAILED if not good else VERIFIED if engine.precision == "fp32" else HIDES
    shown = share if np.isfinite(share) else None
    return Row(what, engine.precision, engine.backend, shown, agreement, verdict)
