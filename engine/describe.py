"""The verb `inspect`: contents of a bundle, layouts of its tensors, kernel plans.

Only the kernel plans need TensorRT-RTX.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..bundle import Bundle, GraphEntry, TensorSpec
from ..bundle.sealed import reading_fields
from ..clips import Sampling, pattern_ages
from ..errors import UsageError, command, one_of
from .builder.proof import Proof, prove
from .machine.log import Progress
from .trust.index import engines_folder, read_index, verdict_of

PUBLISHED_MACS = 10.27e9  # SurveyFER's "10.27 GFLOPs" for LOGO-Former; that field counts MACs

_AS_IN_THE_MANIFEST = ("preprocessing", "sampling", "stream", "graphs", "precisions", "golden", "provenance")
AXES = {
    "clip": "N T H W C",
    "frame": "N H W C",
    "tokens": "N cell channel",
    "ring": "row channel",
    "order": "place",
    "probabilities": "N class",
}


def describe(path: str | os.PathLike[str], engines_dir: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The contents of the manifest and of the index of engines, as JSON values.

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
            "family": m.get("family", {}).get("title", "LOGO-Former"),
            "model": m["model"],
            "labels": list(bundle.labels),
            **{name: m[name] for name in _AS_IN_THE_MANIFEST},
            "verification": m.get("verification", {}),
            "void": bundle.void_notes(),
            "engines": [
                {
                    "file": e.file,
                    "size": e.size,
                    "gpus": list(e.compute_capabilities),
                    "built_on": ", ".join(filter(None, (e.gpu, e.power_mode))),
                    "plan": dict(e.plan),
                    "verdict": verdict_of(e, bundle.graphs),
                }
                for e in engines
            ],
        }


def describe_text(d: Mapping[str, Any]) -> str:
    """The description as text.

    Raises:
        RefusedError: a field that only the text needs is missing, or of another kind than it should be.
    """
    with reading_fields(f"{d['bundle']}/manifest.json"):
        return _text(d)


def _text(d: Mapping[str, Any]) -> str:
    model, c = d["model"], d["model"]["complexity"]
    s, sampling, side = d["stream"], Sampling.from_json(d["sampling"]), d["preprocessing"]["size"]
    exported = c["clip_macs_exported"] if "clip_macs_exported" in c else c["clip_macs_cls_only"]  # so until 0.1
    own = model.get("family", "logoformer") == "logoformer"
    published = f"; the paper's network is published at {PUBLISHED_MACS / 1e9:.2f} G" if own else ""
    lines = [
        f"{d['bundle']}: {d['family']} '{model['preset']}', {len(d['labels'])} classes ({', '.join(d['labels'])})",
        f"  input       {s['frames']} frames of {side} x {side}, RGB uint8; {sampling}",
        f"  tokens      {c['tokens']} of {c.get('token_channels', s['embed_dim'])} channels; a frame is "
        f"{s['grid'] ** 2} rows of {s['embed_dim']}, windows {' x '.join(map(str, s['window']))}",
        f"  parameters  {c['parameters'] / 1e6:.3f} M",
        f"  MACs        clip {c['clip_macs'] / 1e9:.3f} G with attention products; as exported, with only what is "
        f"read after the last block, {exported / 1e9:.3f} G",
        f"              one streamed answer at hop 1: {c['stream_macs'] / 1e9:.3f} G "
        f"({c['stream_macs'] / exported:.2f} of a clip){published}",
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
        where = f"{row['evaluator']}, {row.get('machine', d['verification']['machine'])}"
        lines.append(f"    {row['what']} {row['precision']} on {where}: {row['verdict']}")
    for row in d["verification"].get("accuracy", []):
        lines.append(f"    {row['precision']} on {row['evaluator']}: {row['verdict']} - {row['reason']}")
    lines += [f"    {note}" for note in d["void"]]
    build = command("logoformer", "build", d["bundle"])
    lines.append("  engines" if d["engines"] else f"  engines     none; next: {build}")
    for e in d["engines"]:
        built_on = f"; built on {e['built_on']}" if e["built_on"] else ""
        lines.append(f"    {e['file']}  {e['size'] / 1e6:.2f} MB  {e['verdict']}{built_on}")
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
    """Compiles graphs by TensorRT-RTX, without a GPU, and proves their promised precision.

    Args:
        path: the bundle.
        graphs: which; all when empty.
        precisions: which; all when empty.
        sm: for which GPU.
        progress: called with (stage, done, total).

    Returns:
        Proofs by name, such as 'temporal fp16'; each holds its kernel plan.

    Raises:
        UsageError: no graph of the bundle was chosen.
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
        raise UsageError(f"{bundle.path} has no such graph.", next=f"choose from {one_of(have)}")
    found = {}
    for done, entry in enumerate(wanted):
        if progress is not None:
            progress("compile", done, len(wanted))
        name = f"{entry.graph} {entry.precision}" + (f" b{entry.batch}" if entry.batch > 1 else "")
        found[name] = prove(bundle.read_graph(entry), bundle, entry, sm)
    return found


# -------------------------------------------------------------------------------------------------------------- tensors
def tensors(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Every tensor of every graph, as JSON values, for programs that are not Python.

    Args:
        path: the bundle.

    Raises:
        BadInputError: there is no bundle.
        RefusedError: its index is damaged, hostile or too new.
    """
    return [
        {
            "graph": entry.graph,
            "precision": entry.precision,
            "batch": entry.batch,
            "file": entry.file,
            "kind": kind,
            "name": spec.name,
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "axes": AXES[spec.name],
            "bytes": _bytes(spec),
        }
        for entry in Bundle(path).graphs
        for kind, spec in _specs(entry)
    ]


def tensors_text(path: str | os.PathLike[str]) -> str:
    """Tensors as text, with memory layouts and the settings for DeepStream.

    Raises:
        BadInputError, RefusedError: as `tensors`.
    """
    bundle = Bundle(path)
    lines = [f"{bundle.path}: static shapes, row-major, no padding, no alignment beyond the type's", ""]
    for entry in bundle.graphs:
        lines.append(f"{entry.graph} {entry.precision} b{entry.batch}  {entry.file}")
        for kind, spec in _specs(entry):
            head = "in " if kind == "input" else "out"
            lines.append(f"  {head}  {spec!s:<40}{AXES[spec.name]:<16}{_bytes(spec)} bytes")
    return "\n".join([*lines, "", *_layouts(bundle), "", *_deepstream(bundle)])


def _specs(entry: GraphEntry) -> Iterator[tuple[str, TensorSpec]]:
    yield from (("input", spec) for spec in entry.inputs)
    yield from (("output", spec) for spec in entry.outputs)


def _bytes(spec: TensorSpec) -> int:
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def _layouts(bundle: Bundle) -> list[str]:
    s, side = bundle.stream, bundle.image_size
    f, h, w = s.window
    cells = s.tokens_per_frame
    ages = " ".join(f"{age:.2f}" for age in pattern_ages(bundle.sampling))
    return [
        "clip           RGB, 0..255, as the camera gives it: scaling is inside the graph. Oldest frame first.",
        f"               byte of (t, y, x, c): ((t*{side} + y)*{side} + x)*3 + c",
        f"               seconds before the newest frame, by t: {ages}",
        f"frame          one such picture; byte of (y, x, c): (y*{side} + x)*3 + c",
        f"tokens         {cells} rows of {s.embed_dim} values, row y*{s.grid} + x of the {s.grid} x {s.grid} map",
        f"ring           {s.faces} faces x {s.slots} slots x {cells} rows. The rows of a frame's `tokens` begin at",
        f"               (face*{s.slots} + slot)*{cells}; the oldest slot of a face is the next. Nothing is shifted.",
        "order          which row of `ring` is at each place. A row outside of the ring is undefined behaviour on",
        "               a GPU: check it. With slot[t] holding the frame for t, places follow as in these loops:",
        f"               for T0 in 0..{s.frames // f}, Y0 in 0..{s.grid // h}, X0 in 0..{s.grid // w}, "
        f"dt in 0..{f}, dy in 0..{h}, dx in 0..{w} (each end exclusive):",
        f"                 t = T0*{f} + dt;  cell = (Y0*{h} + dy)*{s.grid} + X0*{w} + dx;  "
        f"order[place++] = (face*{s.slots} + slot[t])*{cells} + cell",
        f"probabilities  they sum to 1; classes: {', '.join(bundle.labels)}",
    ]


def _deepstream(bundle: Bundle) -> list[str]:
    shape = f"1;3;{bundle.frames};{bundle.image_size};{bundle.image_size}"
    return [
        "DeepStream (from its documentation; not run here)",
        "  Its sequence library hands nvinfer float32 NCDHW, D being time; `clip` is NDHWC. Put one node before it,",
        "    Transpose(perm=[0, 2, 3, 4, 1]):  clip[n, t, y, x, c] = tensor[n, c, t, y, x]",
        "  and let it give float32: the graph's first node casts whatever comes. docs/embedding.md has the ten lines.",
        f"  nvdspreprocess  network-input-shape={shape}  network-input-order=2  network-color-format=0 (RGB)",
        "                  tensor-data-type=0 (FP32)  tensor-name as the first input of that graph",
        "                  custom-tensor-preparation-function=CustomSequenceTensorPreparation",
        "                  channel-scale-factors=1;1;1  channel-mean-offsets=0;0;0  (scaling is inside the graph)",
        "  nvinfer         input-tensor-meta=1",
        "  That library takes evenly spaced frames; training saw the pattern above, which is not evenly spaced.",
    ]
