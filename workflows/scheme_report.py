"""`inspect --complexity` in words: the table of the terminal, and the tables of the documentation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..benchmarks.report.text_tables import table
from ..benchmarks.statistics import Ratio
from ..bundle.files import write_atomic
from ..errors import UsageError
from ..model.networks.config import ATTENTIONS
from .scheme_costs import REFERENCE, Cost, Progress, SchemeCosts, centre_of, measure, points
from .scheme_plot import plot

_PARTS = (("attention", "attention products"), ("temporal", "behind the frames"), ("clip", "whole model, one clip"))
_HEADS = [f"{part} {what}" for part, _ in _PARTS for what in ("MACs", "CPU ms", f"x {REFERENCE} [99 %]")]


def inspect_complexity(
    bundle: str | os.PathLike[str] | None = None,
    name: str | None = None,
    *,
    frames: Sequence[int] = (),
    sizes: Sequence[int] = (),
    out: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> SchemeCosts:
    """Measures what the six schemes cost around one configuration, and draws it.

    Args:
        bundle: whose configuration is varied.
        name: of a preset, where there is no bundle; `base` by default.
        frames: T; see `points`.
        sizes: of the pictures; see `points`.
        out: the SVG file, if one is wanted.
        progress: called with (stage, done, total).

    Raises:
        UsageError: both a bundle and a preset, sizes that windows do not divide, or no place for the picture.
        BadInputError: there is no bundle, or its configuration is of another version.
        RefusedError: the bundle's index is damaged.
        MachineError: torch is not installed, or the disk is full.
    """
    centre = centre_of(bundle, name)
    chosen = points(centre, frames, sizes)
    if out is not None and (Path(out).is_dir() or not Path(out).absolute().parent.is_dir()):
        raise UsageError(f"No picture can be written to {out}.", next="name a file in a folder that exists")
    costs = measure(centre, chosen, progress)
    if out is not None:
        write_atomic(out, plot(costs).encode())
    return costs


def text(costs: SchemeCosts) -> str:
    """One line for each scheme at each point."""
    rows = [["scheme", "T", "S", *_HEADS]]
    for r in costs.rows:
        rows.append([r.scheme, str(r.frames), str(r.tokens_per_frame)])
        for part, _ in _PARTS:
            macs, ms, found = _figures(r, part)
            rows[-1] += [_macs(macs), f"{ms:.2f}", f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"]
    parts = "; ".join(f"{part}: {title}" for part, title in _PARTS)
    return f"{table(rows)}\n{parts}.\n{_settings(costs)}"


def markdown(costs: SchemeCosts) -> str:
    """The tables of the documentation: by T, then by S, for each part."""
    axes = (
        (costs.against_frames, lambda r: f"T = {r.frames}", f"S = {costs.tokens_per_frame}"),
        (costs.against_tokens, lambda r: f"S = {r.tokens_per_frame}", f"T = {costs.frames}"),
    )
    lines = []
    for part, title in _PARTS:
        for against, head, fixed in axes:
            columns = [head(r) for r in against(REFERENCE)]
            lines += [f"**{title[0].upper()}{title[1:]}, {fixed}**: MACs · CPU time · times that of `{REFERENCE}`", ""]
            lines += [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
            for scheme in ATTENTIONS:
                lines.append(f"| {scheme} | {' | '.join(_short(r, part) for r in against(scheme))} |")
            lines.append("")
    return "\n".join([*lines, _settings(costs)]) + "\n"


def _settings(costs: SchemeCosts) -> str:
    f, h, w = costs.window
    load, machine = costs.load, costs.machine
    ratios = [_figures(r, part)[2] for r in costs.rows if r.scheme != REFERENCE for part, _ in _PARTS]
    widest = max(max(abs(r.high - r.value), abs(r.value - r.low)) / r.value for r in ratios)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(machine.packages.items()) if name == "torch")
    return (
        f"{costs.preset}: d = {costs.embed_dim}, {costs.heads} heads, {costs.depth} blocks, windows {f} x {h} x {w}; "
        f"the readable model in FP32 on {costs.threads} thread, CPU time of the process, medians of {load.samples} "
        f"interleaved rounds, random weights. No 99 % interval of a ratio reaches further than {widest:.0%} from it. "
        f"{machine.line()}; Python {machine.python}, {versions}."
    )


def _figures(r: Cost, part: str) -> tuple[int, float, Ratio]:
    return {
        "attention": (r.attention_macs, r.attention_ms, r.attention_ratio),
        "temporal": (r.temporal_macs, r.temporal_ms, r.temporal_ratio),
        "clip": (r.clip_macs, r.clip_ms, r.clip_ratio),
    }[part]


def _macs(count: int) -> str:
    return f"{count / 1e9:.3g} G" if count >= 1e9 else f"{count / 1e6:.3g} M"


def _short(r: Cost, part: str) -> str:
    macs, ms, found = _figures(r, part)
    shown = f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"
    return f"{_macs(macs)} · {shown} ms · {found.value:.2f}"
