"""The verb `inspect`: what a bundle is, what is in it, what was proven of it. Needs numpy alone; the plan needs RTX."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..bundle import Bundle
from ..bundle.sealed import reading_fields
from ..errors import UsageError, one_of
from .builder.proof import Proof, prove
from .plan.kernels import KernelPlan
from .trust.index import engines_folder, read_index, verdict_of

Progress = Callable[[str, int, int], None]
FIELDS_PUBLISHED_MACS = 10.27e9  # SurveyFER's "10.27 GFLOPs" for LOGO-Former; that field counts MACs


def describe(path: str | os.PathLike[str], engines_dir: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Everything that the indexes say, as JSON values.

    Raises:
        BadInputError: there is no bundle.
        RefusedError: an index is damaged, hostile or too new.
    """
    bundle = Bundle(path)
    engines = read_index(engines_folder(bundle.path, engines_dir))
    m = bundle.manifest
    with reading_fields(f"{bundle.path}/manifest.json"):
        return {
            "bundle": str(bundle.path),
            "digest": m["digest"],
            "model": m["model"],
            "labels": list(bundle.labels),
            "preprocessing": m["preprocessing"],
            "sampling": m["sampling"],
            "stream": m["stream"],
            "graphs": m["graphs"],
            "precisions": m["precisions"],
            "golden": m["golden"],
            "provenance": m["provenance"],
            "verification": m.get("verification", {}),
            "engines": [
                {
                    "file": e.file,
                    "size": e.size,
                    "gpus": list(e.compute_capabilities),
                    "plan": dict(e.plan),
                    "verdict": verdict_of(e, bundle.graphs),
                }
                for e in engines
            ],
        }


def describe_text(d: Mapping[str, Any]) -> str:
    """`describe`'s answer for people.

    Raises:
        RefusedError: a field that only people read is missing, or of another kind than it should be.
    """
    with reading_fields(f"{d['bundle']}/manifest.json"):
        return _text(d)


def _text(d: Mapping[str, Any]) -> str:
    model, c = d["model"], d["model"]["complexity"]
    s, sampling, side = d["stream"], d["sampling"], d["preprocessing"]["size"]
    lines = [
        f"{d['bundle']}: LOGO-Former '{model['preset']}', {len(d['labels'])} classes ({', '.join(d['labels'])})",
        f"  input       {s['frames']} frames of {side} x {side}, RGB uint8; "
        f"{sampling['segments']} segments x {sampling['frames_per_segment']} over {sampling['span_s']} s",
        f"  tokens      {c['tokens']} of {s['embed_dim']} channels, windows {' x '.join(map(str, s['window']))}",
        f"  parameters  {c['parameters'] / 1e6:.3f} M",
        f"  MACs        clip {c['clip_macs'] / 1e9:.3f} G with attention products; as exported, with only [CLS] after "
        f"the last block, {c['clip_macs_cls_only'] / 1e9:.3f} G",
        f"              one streamed answer at hop 1: {c['stream_macs'] / 1e9:.3f} G "
        f"({c['stream_macs'] / c['clip_macs_cls_only']:.2f} of a clip); the paper's network is published at "
        f"{FIELDS_PUBLISHED_MACS / 1e9:.2f} G",
        f"  stream      {s['faces']} faces x {s['slots']} slots in the ring arena",
        "  graphs",
    ]
    for g in d["graphs"]:
        macs = ", ".join(f"{n / 1e9:.3f} G {p}" for p, n in sorted(g["macs"].items()))
        name = g["graph"] if g["batch"] == 1 else f"{g['graph']} b{g['batch']}"
        lines.append(f"    {name:<9} {g['precision']}  {g['size'] / 1e6:8.2f} MB  {macs}")
    lines.append("  verdicts")
    for name, p in d["precisions"].items():
        lines.append(f"    {name}: {p['verdict']} - {p['reason']}")
        if "graphs" in p:
            lines.append("      " + ", ".join(f"{graph} in {chosen}" for graph, chosen in p["graphs"].items()))
        kept = {item["node"]: item["reason"] for items in p["kept_fp32"].values() for item in items}
        lines += [f"      stays fp32: {node}: {reason}" for node, reason in sorted(kept.items())]
    for row in d["verification"].get("rows", []):
        where = f"{row['evaluator']}, {d['verification']['machine']}"
        lines.append(f"    {row['what']} {row['precision']} on {where}: {row['verdict']}")
    lines.append("  engines" if d["engines"] else "  engines     none; next: logoformer build")
    for e in d["engines"]:
        lines.append(f"    {e['file']}  {e['size'] / 1e6:.2f} MB  {e['verdict']}")
        for sm, plan in e["plan"].items():
            lines.append(
                f"      {sm}: {plan['kernels']} kernels + {plan['sync']} sync, {plan['fused_attentions']} fused "
                f"attentions, {plan['movement']} data movement, {plan['bytes'] / 1e6:.1f} MB touched (a plan)"
            )
    return "\n".join(lines)


def proofs(
    path: str | os.PathLike[str],
    *,
    graphs: Sequence[str] = (),
    precisions: Sequence[str] = (),
    sm: str = "sm86",
    progress: Progress | None = None,
) -> dict[str, Proof]:
    """Each graph compiled here by TensorRT-RTX, without a GPU, and held against the precision that it promises.

    Args:
        path: the bundle.
        graphs: which; all when empty.
        precisions: which; all when empty.
        sm: for which GPU.
        progress: called with (stage, done, total).

    Returns:
        Proofs by name, such as 'temporal fp16'; each holds its kernel plan.

    Raises:
        UsageError: nothing in the bundle is meant.
        MachineError: TensorRT-RTX is not installed.
    """
    bundle = Bundle(path)
    wanted = [
        entry
        for entry in bundle.graphs
        if (not graphs or entry.graph in graphs) and (not precisions or entry.precision in precisions)
    ]
    if not wanted:
        have = sorted({f"{entry.graph} {entry.precision}" for entry in bundle.graphs})
        raise UsageError(f"{bundle.path} has no graph that is meant.", next=f"choose from {one_of(have)}")
    found = {}
    for done, entry in enumerate(wanted):
        if progress is not None:
            progress("compile", done, len(wanted))
        name = f"{entry.graph} {entry.precision}" + (f" b{entry.batch}" if entry.batch > 1 else "")
        found[name] = prove(bundle.read_graph(entry), bundle, entry, sm)
    return found


def plans(path: str | os.PathLike[str], **selection: Any) -> dict[str, KernelPlan]:
    """The kernel plans of `proofs` alone."""
    return {name: proof.plan for name, proof in proofs(path, **selection).items()}
