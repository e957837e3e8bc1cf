"""Steps of a field test: commands of this package, each with a limit in seconds.

The limits add up to less than a quarter of an hour, planned for an Orin Nano and `base`: a step that takes longer is
ended and recorded, and the next one begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CLI = "logoformer"
PROBE = "logoformer.benchmarks.field.probe"
BUNDLE = "BUNDLE"
BENCHES = ("bench-closed", "bench-paced", "bench-cold", "reference")
TARGETS = {"tensorrt": "tensorrt", "tensorrt_rtx": "rtx"}  # by backend


@dataclass(frozen=True)
class FieldStep:
    """One step.

    Attributes:
        name: also of the file that holds its result.
        module: that is run.
        words: its arguments; `BUNDLE` stands for the bundle's path.
        limit_s: seconds that it may take.
        needs_gpu: whether it can do nothing without one.
    """

    name: str
    module: str
    words: tuple[str, ...]
    limit_s: int
    needs_gpu: bool

    def words_for(self, paths: Mapping[str, str]) -> list[str]:
        """The arguments with paths in place of their names."""
        return [paths.get(word, word) for word in self.words]


def plan(backend: str, precision: str, reference: str, iterations: int) -> tuple[FieldStep, ...]:
    """The steps, in their order.

    Args:
        backend: of the GPU, 'tensorrt' or 'tensorrt_rtx'.
        precision: that runs on it.
        reference: precision of the same bundle on this machine's CPU.
        iterations: timed results of each row.
    """
    runs = ("--backend", backend, "--precision", precision)
    timed = ("bench", BUNDLE, *runs, "--iterations", str(iterations), "--json")
    built = ("build", BUNDLE, "--target", TARGETS[backend], "--precision", precision, "--json")
    beside = ("--baselines", "naive re-run,per-frame")
    alone = ("--baselines", "none")
    on_cpu = (
        "bench",
        BUNDLE,
        "--backend",
        "onnxruntime",
        "--precision",
        reference,
        "--iterations",
        "20",
        "--warmup",
        "2",
    )
    return (
        FieldStep("doctor", CLI, ("doctor", "--json"), 45, False),
        FieldStep("power", PROBE, ("power",), 15, False),
        FieldStep("build", CLI, built, 360, backend == "tensorrt"),
        FieldStep("verify", CLI, ("verify", BUNDLE, "--no-write", "--json"), 90, False),
        FieldStep("selftest", CLI, ("selftest", BUNDLE, *runs, "--json"), 30, True),
        FieldStep("bench-closed", CLI, (*timed, "--mode", "closed", *beside), 90, True),
        FieldStep("bench-paced", CLI, (*timed, "--mode", "paced", "--hop", "4", *alone), 60, True),
        FieldStep("bench-cold", CLI, (*timed, "--mode", "cold", *alone), 60, True),
        FieldStep("memory", PROBE, ("memory", BUNDLE, backend, precision), 30, True),
        FieldStep("reference", CLI, (*on_cpu, "--mode", "closed", *alone, "--json"), 110, False),
    )
