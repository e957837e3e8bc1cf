"""Costs of the attention schemes against T and S: MACs by formula, CPU time as measured.

One configuration is the centre; T varies at its S, and S (through the size of the pictures) at its T. Everything is
timed in one interleaved run: in each round every scheme at every point runs once, in an order drawn anew. What is
compared is a scheme with `space`, which does not look along time, at the same point and in the same rounds.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from ..benchmarks.load.closed import Candidate, LoadConfig, closed_loop
from ..benchmarks.report.text_tables import table
from ..benchmarks.sensors.machine import Machine, read_machine
from ..benchmarks.statistics import FloatArray, Ratio, ratio
from ..bundle import Bundle
from ..bundle.files import write_atomic
from ..bundle.sealed import reading_fields
from ..clips import Sampling
from ..errors import UsageError, advising, command, missing_package
from ..model.data.clips import Progress
from ..model.networks.configs import complexity, config_from_json
from ..model.networks.logoformer.complexity import attention_macs
from ..model.networks.logoformer.config import ATTENTIONS, LogoFormerConfig, logoformer_preset
from .pictures import Panel, lines_svg

REFERENCE = "space"
LOAD = LoadConfig(rounds=10, block=1, settle=1, warmup=1)
MAX_BYTES = 2 << 30  # of joint's attention weights and the parameters, at one point
PARTS = {"attention": "attention products", "temporal": "behind the frames", "clip": "whole model, one clip"}


@dataclass(frozen=True)
class Cost:
    """One scheme at one point.

    Attributes:
        scheme: one of `ATTENTIONS`.
        frames: T.
        image_size: side of the pictures.
        tokens_per_frame: S.
        attention_macs: of QK^T and weights V of all blocks.
        temporal_macs: of everything behind the frames.
        clip_macs: of the whole model, one clip.
        attention_ms, temporal_ms, clip_ms: CPU time of these, medians. The whole model is the frames, which are the
            same work for every scheme and run once a round, and the rest, which ran in the same round.
        attention_ratio, temporal_ratio, clip_ratio: to `REFERENCE` at the same point.
    """

    scheme: str
    frames: int
    image_size: int
    tokens_per_frame: int
    attention_macs: int
    temporal_macs: int
    clip_macs: int
    attention_ms: float
    temporal_ms: float
    clip_ms: float
    attention_ratio: Ratio
    temporal_ratio: Ratio
    clip_ratio: Ratio


@dataclass(frozen=True)
class SchemeCosts:
    """Everything measured in one run.

    Attributes:
        preset: the configuration's name.
        frames, tokens_per_frame: T and S of the centre.
        window: (f, h, w), the same everywhere.
        embed_dim, heads, depth: d, H and the number of blocks.
        rows: every scheme at every point.
        load: how it was timed.
        threads: of the CPU.
        seconds: CPU time of the whole run.
        machine: where.
    """

    preset: str
    frames: int
    tokens_per_frame: int
    window: tuple[int, int, int]
    embed_dim: int
    heads: int
    depth: int
    rows: tuple[Cost, ...]
    load: LoadConfig
    threads: int
    seconds: float
    machine: Machine

    def against_frames(self, scheme: str) -> list[Cost]:
        """One scheme at the centre's S, by T."""
        found = [r for r in self.rows if r.scheme == scheme and r.tokens_per_frame == self.tokens_per_frame]
        return sorted(found, key=lambda r: r.frames)

    def against_tokens(self, scheme: str) -> list[Cost]:
        """One scheme at the centre's T, by S."""
        found = [r for r in self.rows if r.scheme == scheme and r.frames == self.frames]
        return sorted(found, key=lambda r: r.tokens_per_frame)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def centre_of(bundle: str | os.PathLike[str] | None, name: str | None) -> LogoFormerConfig:
    """The configuration that is varied: the bundle's, or a preset; `base` if neither is named.

    Raises:
        UsageError: both are named, or there is no such preset.
        BadInputError: there is no bundle, or its configuration is of another version.
        RefusedError: the bundle's index is damaged.
    """
    if bundle is None:
        return logoformer_preset(name or "base")
    if name is not None:
        raise UsageError("A bundle has its own configuration.", next="leave out --preset, or leave out the bundle")
    opened = Bundle(bundle)
    with reading_fields(f"{opened.path}/manifest.json"):
        fields = {key: value for key, value in opened.manifest["model"].items() if key != "complexity"}
    with advising(command("logoformer", "export", "CHECKPOINT", "-o", opened.path)):
        found = config_from_json(fields)
    if not isinstance(found, LogoFormerConfig):
        raise UsageError(
            f"{opened.path} holds a {found.family}; the schemes are compared around a LOGO-Former.",
            next="name a preset instead: --preset base",
        )
    return found


def points(
    centre: LogoFormerConfig, frames: Sequence[int] = (), sizes: Sequence[int] = ()
) -> tuple[LogoFormerConfig, ...]:
    """The centre at other T and at other sizes, each pair once; windows stay what they are.

    Args:
        centre: what is varied.
        frames: T; by default 1, 2, 4 and 8 times the window's frames, and the centre's.
        sizes: of the pictures; by default those that give 1, 2, 3 and 4 windows a side, and the centre's.

    Raises:
        UsageError: windows would not divide the tokens, or joint attention would not fit into memory.
    """
    f, h, w = centre.window
    usual = [_at(centre, f * 2**k, centre.image_size) for k in range(4)]
    usual_frames = sorted({centre.frames, *(c.frames for c in usual if _bytes(c) <= MAX_BYTES)})
    usual_sizes = _usual_sizes(centre)
    for count in frames:
        if count < 1 or count % f:
            raise UsageError(
                f"{count} frames cannot be cut into windows of {f}.",
                next=f"choose such as {_words('frames', usual_frames)}",
            )
    for size in sizes:
        grid = replace(centre, window=(1, 1, 1), image_size=size).grid
        if grid % h or grid % w:
            raise UsageError(
                f"Pictures of {size} pixels give {grid} x {grid} tokens, which windows of {h} x {w} do not divide.",
                next=f"choose such as {_words('sizes', usual_sizes)}",
            )
    found = [_at(centre, count, centre.image_size) for count in sorted(set(frames)) or usual_frames]
    found += [_at(centre, centre.frames, size) for size in sorted(set(sizes)) or usual_sizes]
    for config in found:
        if _bytes(config) > MAX_BYTES:
            raise UsageError(
                f"Joint attention over {config.tokens} tokens would take {_bytes(config) / 2**30:.1f} GiB.",
                cause="its memory grows with the square of T times S",
                next=f"choose fewer frames or smaller pictures, such as {_words('frames', usual_frames)} "
                f"{_words('sizes', usual_sizes)}",
            )
    return tuple({(c.frames, c.image_size): c for c in found}.values())


def _at(centre: LogoFormerConfig, frames: int, size: int) -> LogoFormerConfig:
    """Only T of the sampling matters here; the span is widened where it would hold fewer frames."""
    span_s = max(centre.sampling.span_s, frames / centre.sampling.fps)
    sampling = Sampling(frames, 1, span_s, centre.sampling.fps)
    return replace(centre, image_size=size, sampling=sampling)


def _usual_sizes(centre: LogoFormerConfig) -> list[int]:
    """Sides that give one to four windows a side, the centre's own among them."""
    _, h, w = centre.window
    halvings = 1 + len(centre.stage_widths)
    grids = {centre.grid, *(math.lcm(h, w) * k for k in range(1, 5))}
    sizes = [centre.image_size if grid == centre.grid else grid << halvings for grid in sorted(grids)]
    return [s for s in sizes if s == centre.image_size or _bytes(_at(centre, centre.frames, s)) <= MAX_BYTES]


def _bytes(config: LogoFormerConfig) -> int:
    """Of joint attention's weights before and after the softmax, and of the parameters."""
    return 4 * (2 * config.heads * (1 + config.tokens) ** 2 + complexity(config).parameters)


def _words(option: str, values: Sequence[int]) -> str:
    return " ".join([f"--{option}", *map(str, values)])


def measure_schemes(
    centre: LogoFormerConfig, chosen: Sequence[LogoFormerConfig], progress: Progress | None = None
) -> SchemeCosts:
    """Times every scheme at every point in one interleaved run: a few minutes for `base`.

    Args:
        centre: what was varied.
        chosen: from `points`.
        progress: called with (stage, done, total).

    Raises:
        MachineError: torch is not installed.
        UsageError: the centre's heads do not suit every scheme.
    """
    try:
        from ..model.networks.families import untrained
        from ..model.networks.logoformer import scheme_steps as steps
    except ModuleNotFoundError as error:
        raise missing_package(error.name or "torch", "train", "inspect --complexity") from error

    machine = read_machine()  # before the load is ours
    models = {scheme: untrained(replace(centre, attention=scheme)) for scheme in ATTENTIONS}
    candidates = []
    for place, config in enumerate(chosen):
        candidates.append(Candidate(f"{place} frames", steps.frames_step(models[REFERENCE], config)))
        for scheme, model in models.items():
            own = replace(config, attention=scheme)
            candidates.append(Candidate(f"{place} {scheme} attention", steps.products_step(own)))
            candidates.append(Candidate(f"{place} {scheme} temporal", steps.temporal_step(steps.resized(model, own))))
    with steps.one_thread():
        result = closed_loop(candidates, LOAD, clock=time.process_time_ns, progress=progress)

    def timed(place: int, scheme: str) -> dict[str, FloatArray]:
        taken = {part: result.latency_ms[f"{place} {scheme} {part}"] for part in ("attention", "temporal")}
        return {**taken, "clip": result.latency_ms[f"{place} frames"] + taken["temporal"]}

    def cost(place: int, config: LogoFormerConfig) -> Cost:
        counted, found = complexity(config), timed(place, config.attention)
        measured: dict[str, Any] = {f"{part}_ms": float(np.median(values)) for part, values in found.items()}
        reference = timed(place, REFERENCE)
        measured |= {f"{part}_ratio": ratio(values, reference[part]) for part, values in found.items()}
        return Cost(
            scheme=config.attention,
            frames=config.frames,
            image_size=config.image_size,
            tokens_per_frame=config.tokens_per_frame,
            attention_macs=config.depth * attention_macs(config),
            temporal_macs=counted.temporal_macs,
            clip_macs=counted.clip_macs,
            **measured,
        )

    shared = ("preset", "frames", "tokens_per_frame", "window", "embed_dim", "heads", "depth")
    return SchemeCosts(
        **{name: getattr(centre, name) for name in shared},
        rows=tuple(cost(place, replace(c, attention=s)) for place, c in enumerate(chosen) for s in ATTENTIONS),
        load=LOAD,
        threads=1,
        seconds=result.seconds,
        machine=machine,
    )


# ---------------------------------------------------------------------------------------------------- picture and table
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
    costs = measure_schemes(centre, chosen, progress)
    if out is not None:
        write_atomic(out, schemes_svg(costs).encode())
    return costs


def schemes_svg(costs: SchemeCosts) -> str:
    """Attention products and the whole model, against T on the left and S on the right. SVG."""
    axes = (
        (f"T, frames of {costs.tokens_per_frame} tokens", costs.against_frames, "frames"),
        (f"S, tokens a frame, {costs.frames} frames", costs.against_tokens, "tokens_per_frame"),
    )
    panels = []
    for part in ("attention", "clip"):
        for unit, figure, scale in (("G MACs", "macs", 1e-9), ("CPU ms", "ms", 1.0)):
            for axis, against, place in axes:
                figures = attrgetter(place, f"{part}_{figure}")
                lines = {s: [(x, scale * y) for x, y in map(figures, against(s))] for s in ATTENTIONS}
                panels.append(Panel(f"{PARTS[part]}, {unit}", axis, lines))
    return lines_svg(f"Six attention schemes in {costs.preset}", panels)


def complexity_text(costs: SchemeCosts) -> str:
    """One line for each scheme at each point."""
    heads = [f"{part} {what}" for part in PARTS for what in ("MACs", "CPU ms", f"x {REFERENCE} [99 %]")]
    rows = [["scheme", "T", "S", *heads]]
    for r in costs.rows:
        rows.append([r.scheme, str(r.frames), str(r.tokens_per_frame)])
        for part in PARTS:
            macs, ms, found = figures_of(r, part)
            rows[-1] += [macs_text(macs), f"{ms:.2f}", f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"]
    parts = "; ".join(f"{part}: {title}" for part, title in PARTS.items())
    return f"{table(rows)}\n{parts}.\n{settings_text(costs)}"


def settings_text(costs: SchemeCosts) -> str:
    """The configuration, how it was timed, how sure the ratios are, and the machine."""
    f, h, w = costs.window
    load, machine = costs.load, costs.machine
    ratios = [figures_of(r, part)[2] for r in costs.rows if r.scheme != REFERENCE for part in PARTS]
    widest = max(max(abs(r.high - r.value), abs(r.value - r.low)) / r.value for r in ratios)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(machine.packages.items()) if name == "torch")
    return (
        f"{costs.preset}: d = {costs.embed_dim}, {costs.heads} heads, {costs.depth} blocks, windows {f} x {h} x {w}; "
        f"the readable model in FP32 on {costs.threads} thread, CPU time of the process, medians of {load.samples} "
        f"interleaved rounds, random weights. No 99 % interval of a ratio reaches further than {widest:.0%} from it. "
        f"{machine.line()}; Python {machine.python}, {versions}."
    )


def figures_of(r: Cost, part: str) -> tuple[int, float, Ratio]:
    """Multiply-accumulates, milliseconds and ratio of one of `PARTS`."""
    return getattr(r, f"{part}_macs"), getattr(r, f"{part}_ms"), getattr(r, f"{part}_ratio")


def macs_text(count: int) -> str:
    """Three digits, in millions or billions."""
    return f"{count / 1e9:.3g} G" if count >= 1e9 else f"{count / 1e6:.3g} M"
