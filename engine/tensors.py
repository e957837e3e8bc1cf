"""The verb `inspect --tensors`: what a program that is not Python must know to feed the graphs itself.

Names, types, shapes, the meaning of every axis, and how a clip, a ring and an `order` are laid out in memory; and what
stands between DeepStream's tensors and ours.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from ..bundle import Bundle, TensorSpec
from ..clips import pattern_ages

AXES = {
    "clip": "N T H W C",
    "frame": "N H W C",
    "tokens": "N cell channel",
    "ring": "row channel",
    "order": "place",
    "probabilities": "N class",
}


def tensors(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Every tensor of every graph, as JSON values.

    Args:
        path: the bundle.

    Raises:
        BadInputError: there is no bundle.
        RefusedError: its index is damaged, hostile or too new.
    """
    found = []
    for entry in Bundle(path).graphs:
        for kind, specs in (("input", entry.inputs), ("output", entry.outputs)):
            for spec in specs:
                found.append(
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
                )
    return found


def tensors_text(path: str | os.PathLike[str]) -> str:
    """The same for people, with the layouts.

    Args:
        path: the bundle.

    Raises:
        BadInputError: there is no bundle.
        RefusedError: its index is damaged, hostile or too new.
    """
    bundle = Bundle(path)
    lines = [f"{bundle.path}: static shapes, row-major, no padding, no alignment beyond the type's", ""]
    for entry in bundle.graphs:
        lines.append(f"{entry.graph} {entry.precision} b{entry.batch}  {entry.file}")
        for head, specs in (("in ", entry.inputs), ("out", entry.outputs)):
            lines += [f"  {head}  {spec!s:<40}{AXES[spec.name]:<16}{_bytes(spec)} bytes" for spec in specs]
    return "\n".join([*lines, "", *_layouts(bundle), "", *_deepstream(bundle)])


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
        "order          which row of `ring` stands at each place. A row outside of the ring is undefined behaviour on",
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
