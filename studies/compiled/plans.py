"""`python -m logoformer.studies.compiled.plans`: kernel plans of `base`, answers in INT8.

Writes `benchmarks/results/plans.json` from TensorRT-RTX's compiler, which needs no card, and the text of
docs/benchmarks.md, which also shows the answers of `benchmarks/results/int8.json`. Weights are random: they change no
plan.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cli.terminal import Bar
from ..results import FOLDER, measured, read_results, show_results, write_results

if TYPE_CHECKING:
    import onnx

COMMAND = "python -m logoformer.studies.compiled.plans"
RESULTS, INT8 = FOLDER / "plans.json", FOLDER / "int8.json"
PAGE = Path("docs/benchmarks.md")
PRESET = "base"
SHOWN = ("frame fp32", "frame fp16", "temporal fp32", "temporal fp16")
KEPT = ("sm", "compiler", "kernels", "sync", "fused_attentions", "movement", "bytes", "macs_by_precision")


def graphs_of(precision: str) -> dict[str, onnx.ModelProto]:
    """`frame` and `temporal` as an export makes them."""
    from ...export.graphs import build_graph, example_inputs
    from ...export.precision import Protected, narrow_rows, to_fp16
    from ...export.trace import trace
    from ...model.networks.configs import PRESETS
    from ...model.networks.families import untrained

    config, made = PRESETS[PRESET], {}
    for graph, output in (("frame", "tokens"), ("temporal", "probabilities")):
        inputs = example_inputs(graph, config, 100)
        made[graph] = trace(build_graph(graph, untrained(config)), inputs, output)
        if precision == "fp16":
            last = [node.name for node in made[graph].graph.node if node.op_type == "Softmax"][-1:]
            feed = {name: value.numpy() for name, value in inputs.items()}
            wide = [Protected(name, "the answer") for name in last if graph == "temporal"]
            made[graph] = to_fp16(made[graph], feed, wide)
    if precision == "fp16":
        narrow_rows(made["frame"], made["temporal"])
    return made


def plan_of(model: onnx.ModelProto) -> dict[str, Any]:
    """The plan of one graph for sm86."""
    from ...engine.builder.proof import xray
    from ...export.trace import to_bytes

    summary = xray(to_bytes(model), "sm86").summary()
    return {name: summary[name] for name in KEPT}


def plans_table(found: Mapping[str, Any]) -> str:
    """The table of docs/benchmarks.md."""
    plans = found["plans"]
    first = plans[SHOWN[0]]
    lines = [
        f"{first['compiler']}, `{found['preset']}`, {first['sm']}, *compiled, not run*:",
        "",
        "| graph | precision | kernels | fused attentions | pure data movement |",
        "|---|---|---:|---:|---:|",
    ]
    for key in SHOWN:
        graph, precision = key.split()
        plan = plans[key]
        fused = "–" if graph == "frame" else f"{plan['fused_attentions']} of {found['attentions']}"
        cells = [f"`{graph}`", precision.upper(), plan["kernels"], fused, plan["movement"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, "", f"`{found['command']}`."]) + "\n"


def int8_text(found: Mapping[str, Any]) -> str:
    """What INT8 costs the answers of an untrained `base`, by the committed study."""
    base, less = found["base"], found["base_with_exclusions"]
    most = " and ".join(f"{one['max_share']:.0%}" for one in less["steps"][-1]["sets"])
    left_out = ", ".join(f"`{name}`" for name in less["excluded"])
    return (
        f"Without a layer left out, the logits of an untrained `base` are off by {base['int8']['rms_share']:.0%} of "
        f"their deviation between clips (RMS), by {base['int8']['max_share']:.0%} at most, on {base['int8']['clips']} "
        f"clips that no calibration saw (method `{base['method']}`, compensated rounding). With {left_out} in FP16, by "
        f"at most {most} on two sets of {less['int8']['clips']} clips. `{base['command']}`.\n"
    )


def main() -> int:
    """Compiles and writes both files."""
    from ...model.networks.logoformer.config import LOGOFORMER_PRESETS

    bar, plans = Bar(), {}
    made = {precision: graphs_of(precision) for precision in ("fp32", "fp16")}
    for done, key in enumerate(SHOWN):
        bar(f"plan of {key}", done, len(SHOWN))
        graph, precision = key.split()
        plans[key] = plan_of(made[precision][graph])
    bar.clear()
    # A local and a global one in each block.
    found = measured(COMMAND, preset=PRESET, attentions=2 * LOGOFORMER_PRESETS[PRESET].depth, plans=plans)
    write_results(RESULTS, found)
    show_results(PAGE, {"plans": plans_table(found), "int8": int8_text(read_results(INT8))})
    print(plans_table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
