"""Does this machine give the golden answers?

Every precision's clip graph and streaming pair answer the golden clips through the same sessions that will run them,
and are held against the PyTorch answers in the bundle. So is every engine that this machine can run
(`verify_engines.py`); one that it cannot run is reported as built, not run, and nothing is concluded from it.
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
from .golden import Check, check_engine
from .runtime import Runtime, load
from .trust.index import FAILED, VERIFIED, add_to_index, engines_folder, read_index
from .verify_engines import EngineCheck, check_engines

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
        why_not: why an engine was not run here; empty when it was.
    """

    what: str
    precision: str
    evaluator: str
    share: float | None
    agreement: float | None
    verdict: str
    why_not: str = ""


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
            engines = all(row.what.endswith(".engine") for row in failed)
            again = ("build", self.bundle) if engines else ("export", "CHECKPOINT", "-o", self.bundle)
            raise VerificationError(
                f"{len(failed)} of {len(self.rows)} checks failed on the golden clips.",
                cause="a runtime with a wrong kernel, or a graph of another checkpoint",
                next=command("logoformer", *again),
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
    for done, precision in enumerate(bundle.runnable):
        if progress is not None:
            progress("golden clips", done, len(bundle.runnable))
        with load(bundle, backend="onnxruntime", precision=precision, threads=threads) as engine:
            rows += [_row(check, engine) for check in check_engine(engine, golden)]
    graphs = len(rows)
    folder = engines_folder(bundle.path, engines_dir)
    checked = check_engines(
        bundle,
        golden,
        folder,
        read_index(folder),
        threads,
        lambda done, total: progress("engines", done, total) if progress is not None else None,
    )
    rows += [_engine_row(found) for found in checked]
    if progress is not None:
        progress("golden clips", len(bundle.runnable), len(bundle.runnable))
    verdicts = {name: str(entry.get("verdict", "none")) for name, entry in bundle.precisions.items()}
    report = VerifyReport(str(bundle.path), len(golden.clips), tuple(rows), verdicts)
    if write:
        try:
            # Engines keep their verdicts in their own index: the manifest would outlive them. They come first: a failed
            # one must not be chosen again, whatever becomes of the bundle.
            new = [replace(c.entry, verdict=c.verdict) for c in checked if c.check and c.verdict != c.entry.verdict]
            if new:
                add_to_index(folder, new)
            verification = {"machine": machine_name(), "rows": [asdict(row) for row in rows[:graphs]]}
            replace_manifest(bundle, {**bundle.manifest, "verification": verification})
        except MachineError as error:  # a read-only bundle is verified all the same
            report = replace(report, unrecorded=error.what)
    return report


def machine_name() -> str:
    """What a verdict holds for: operating system, processor and Python; no host name."""
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"


def _engine_row(found: EngineCheck) -> Row:
    share, agreement = (found.check.share, found.check.agreement) if found.check else (None, None)
    name = Path(found.entry.file).name
    return Row(name, found.entry.precision, found.evaluator, share, agreement, found.verdict, found.why_not)


def _row(check: Check, engine: Runtime) -> Row:
    verdict = FAILED if not check.passed else VERIFIED if engine.precision == "fp32" else HIDES
    return Row(check.what, engine.precision, engine.backend, check.share, check.agreement, verdict)
