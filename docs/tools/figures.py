"""Write README's table of figures from benchmarks/results/*.json: `make figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from logoformer.benchmarks.report.readme import replace_between
from logoformer.bundle.files import parse_json

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TABLE = ("<!-- figures:begin -->", "<!-- figures:end -->")
CLAIM = ("<!-- claim:begin -->", "<!-- claim:end -->")


def read(name: str) -> Any:
    """A committed result."""
    path = ROOT / "benchmarks" / "results" / name
    return parse_json(path.read_bytes(), name, max_bytes=16 << 20)


def ratios() -> dict[tuple[str, str], dict[str, float]]:
    """Median over median of the committed CPU run, by (numerator, denominator)."""
    return {(c["numerator"], c["denominator"]): c["ratio"] for c in read("cpu-base.json")["comparisons"]}


def claim() -> str:
    """The one sentence of README's first screen."""
    ratio = ratios()["stream", "naive re-run"]
    return (
        f"A streamed answer costs {ratio['value']:.2f} of running the clip again "
        f"(99 % interval {ratio['low']:.2f} to {ratio['high']:.2f}, `base`, one CPU): "
        "each frame is computed once.\n"
    )


def figures_table() -> str:
    """The table, at most 8 rows."""
    compared, (run, *_), int8 = ratios(), read("experiments.json")["runs"], read("int8.json")["accuracy_tiny"]["int8"]
    wrapper = read("cpu-base.json")["wrapper"]

    def times(numerator: str, denominator: str) -> str:
        ratio = compared[numerator, denominator]
        return f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"

    rows = [
        ("streamed answer / clip run again", times("stream", "naive re-run"), "`base`, FP32, CPU"),
        ("clip / PyTorch", times("clip", "torch"), "`base`, FP32, CPU"),
        ("clip / OpenVINO (faster than ours)", times("clip", "openvino"), "`base`, FP32, CPU"),
        ("own cost of a call, p50", f"{wrapper['clip_p50_us']:.0f} µs", "CPU"),
        ("bundle against PyTorch", f"{run['fp32_share']:.4%} of the deviation between clips", "`tiny`, FP32"),
        ("streamed spans, UAR", f"{run['stream_uar']:.3f}; last frames only {run['naive_uar']:.3f}", "drawn faces"),
        ("INT8, drop in UAR", f"at most {100 * int8['bound']:.2f} points (95 %)", "`tiny`, drawn faces"),
    ]
    lines = ["| what | figure | of |", "|---|---|---|", *(f"| {what} | {figure} | {of} |" for what, figure, of in rows)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    replace_between(README, *TABLE, figures_table())
    replace_between(README, *CLAIM, claim())
