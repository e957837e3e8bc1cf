"""Is this device well? The golden clips through the very sessions that will answer, at start-up if asked.

`verify` judges a bundle on a machine and keeps the verdict; the self-test judges a machine that is about to work: one
precision, one backend, nothing written. A card that computes wrongly (a driver, a clock, a damaged memory, an engine
of another model) is found before the first frame.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..errors import VerificationError, command
from .golden import Check, check_engine
from .runtime import Runtime


@dataclass(frozen=True)
class SelftestReport:
    """What was found.

    Attributes:
        bundle: its path.
        backend: who answered, such as 'onnxruntime 1.24.4 CPU'.
        precision: of the graphs.
        golden_clips: how many were answered, each by the clip graph and by the streaming pair.
        checks: one for each of the two.
    """

    bundle: str
    backend: str
    precision: str
    golden_clips: int
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}

    def require(self) -> None:
        """Raises when a check did not pass.

        Raises:
            VerificationError: names the checks.
        """
        failed = [check for check in self.checks if not check.passed]
        if failed:
            raise VerificationError(
                f"The self-test failed on {self.backend} in {self.precision}.",
                cause="a device or driver that computes wrongly, or an engine of another model",
                next=command("logoformer", "verify", self.bundle),
                log=[
                    f"{check.what}: an answer is not finite"
                    if check.share is None
                    else f"{check.what}: off by {check.share:.4%} of the deviation between clips; "
                    f"{check.allowed:.2%} is allowed"
                    for check in failed
                ],
            )


def selftest(engine: Runtime) -> SelftestReport:
    """Answers the golden clips on the device, through the engine's own sessions.

    The streaming pair's first ring slots are written, so call it before frames are pushed, or reset the streams after.

    Args:
        engine: on the thread that owns it.

    Raises:
        RefusedError: the golden clips are not what the index promises.
        UsageError: another thread owns the engine.
        DeviceLostError: the device is gone.
    """
    golden = engine.bundle.golden()
    checks = check_engine(engine, golden)
    return SelftestReport(str(engine.bundle.path), engine.backend, engine.precision, len(golden.clips), checks)
