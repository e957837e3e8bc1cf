"""Write README's table of figures and those that follow from it, from benchmarks/results/*.json: `make figures`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from logoformer.benchmarks.report.readme import replace_between
from logoformer.bundle.files import parse_json
from logoformer.studies.field import field_table
from logoformer.studies.serving.capacity import PAGE as CAPACITY
from logoformer.studies.serving.capacity import RESULTS as FLEETS
from logoformer.studies.serving.capacity import capacity_texts

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TABLE = ("<!-- figures:begin -->", "<!-- figures:end -->")
INT8 = ("<!-- openvino:begin -->", "<!-- openvino:end -->")
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
    works = {work["graph"]: sum(work["macs"].values()) for work in read("cpu-base.json")["roofline"]["works"]}
    share = (works["frame"] + works["temporal"]) / works["clip"]
    return (
        f"A streamed answer takes {ratio['value']:.2f} of the time of running the clip again "
        f"(99 % interval {ratio['low']:.2f} to {ratio['high']:.2f}, `base`, one CPU) and {share:.2f} of its "
        "multiply-accumulates: each frame is computed once.\n"
    )


def figures_table() -> str:
    """The table, at most 8 rows."""
    compared, (run, *_), int8 = ratios(), read("experiments.json")["runs"], read("int8.json")["accuracy_tiny"]["int8"]
    wrapper = read("cpu-base.json")["wrapper"]

    def times(numerator: str, denominator: str) -> str:
        ratio = compared[numerator, denominator]
        return f"{ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"

    faster = " (faster; our other CPU backend)" if compared["clip", "openvino"]["low"] > 1 else ""
    rows = [
        ("streamed answer / clip run again", times("stream", "naive re-run"), "`base`, FP32, CPU"),
        ("clip / PyTorch", times("clip", "torch"), "`base`, FP32, CPU"),
        (f"clip / OpenVINO{faster}", times("clip", "openvino"), "`base`, FP32, CPU"),
        ("own cost of a call, p50", f"{wrapper['clip_p50_us']:.0f} µs", "CPU"),
        ("bundle against PyTorch", f"{run['fp32_share']:.4%} of the deviation between clips", "`tiny`, FP32"),
        ("streamed spans, UAR", f"{run['stream_uar']:.3f}; last frames only {run['naive_uar']:.3f}", "drawn faces"),
        ("INT8, drop in UAR", f"at most {100 * int8['bound']:.2f} points (95 %)", "`tiny`, drawn faces"),
    ]
    lines = ["| what | figure | of |", "|---|---|---|", *(f"| {what} | {figure} | {of} |" for what, figure, of in rows)]
    return "\n".join(lines) + "\n"


def openvino_table() -> str:
    """The table of docs/benchmarks.md: ratios of one interleaved run, and the verdict on the graphs that were timed."""
    found = read("openvino.json")
    programs, judged, machine = found["programs"], found["accuracy"], found["machine"]
    lines = ["| what | ratio [99 %] | promised | |", "|---|---:|---:|---|"]
    for row in found["ratios"]:
        ratio = row["ratio"]
        holds = "holds" if row["holds"] else "**missed**"
        shown = f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"
        lines.append(f"| {row['numerator']} / {row['denominator']} | {shown} | at most {row['promised']} | {holds} |")
    times = ", ".join(f"{name} {one['p50_ms']:.1f} ms" for name, one in programs.items())
    backends = ", ".join(dict.fromkeys(one["backend"] for one in programs.values()))
    dots = "with" if found["int8_dot_products"] else "without"
    ran = f"one interleaved run of {found['seconds']:.0f} s on {machine['cpu']}, {dots} INT8 dot products"
    weights = f"{found['artifact']['weights']} weights, {judged['clips']} clips of {judged['source']}"
    off = f"p99 {judged['p99_share']:.1%}, largest {judged['max_share']:.1%}"
    text = f"""
`{found["artifact"]["preset"]}`, {found["threads"]} threads, {ran}, load before it {machine["load_1min"]}; {backends}.
'torch' and 'openvino' are those programs without us; the INT8 stream answers by `frame` and `temporal`. p50: {times}.

The accuracy gate on the very graphs that were timed ({weights}), by {judged["evaluator"]}'s own answers:
**{judged["verdict"]}**, {judged["reason"]}. RMS {judged["rms_share"]:.1%} of the deviation between clips, {off}.
`{found["command"]}`, then `make figures`.
"""
    return "\n".join(lines) + "\n" + text


if __name__ == "__main__":
    if (ROOT / "benchmarks" / "results" / "openvino.json").exists():
        replace_between(ROOT / "docs" / "benchmarks.md", *INT8, openvino_table())
    replace_between(README, *TABLE, figures_table())
    replace_between(README, *CLAIM, claim())
    page = ROOT / "docs" / "first-hour.md"
    replace_between(page, "<!-- field:begin -->", "<!-- field:end -->", field_table(ROOT / "benchmarks/results/field"))
    for name, text in capacity_texts(read(FLEETS.name)).items():
        replace_between(ROOT / CAPACITY, f"<!-- {name}:begin -->", f"<!-- {name}:end -->", text)
