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

from ..bundle import Bundle, replace_manifest
from ..errors import MachineError, VerificationError, command
from .engine import Engine, load
from .engine_index import FAILED, VERIFIED, engines_folder, read_engine, read_index, verdict_of
from .golden import Check, check_engine

Progress = Callable[[str, int, int], None]
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
            rows += [_row(check, engine) for check in check_engine(engine, golden)]
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


def _row(check: Check, engine: Engine) -> Row:
    verdict = FAILED if not check.passed else VERIFIED if engine.precision == "fp32" else HIDES
    return Row(check.what, engine.precision, engine.backend, check.share, check.agreement, verdict)
