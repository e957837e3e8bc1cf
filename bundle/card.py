"""A model card for a bundle, from its manifest and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import printable

CARD_FILE = "CARD.md"
UNKNOWN = "not recorded"


def card_text(manifest: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        manifest: as `manifest.json` holds it; fields that are missing are said to be not recorded.

    Returns:
        The text of `CARD.md`. Names and texts from the manifest are escaped.
    """
    model = _mapping(manifest.get("model"))
    provenance = _mapping(manifest.get("provenance"))
    checkpoint = _mapping(provenance.get("checkpoint"))
    extra = _mapping(checkpoint.get("extra"))
    sampling = _mapping(manifest.get("sampling"))
    golden = _mapping(manifest.get("golden"))
    labels = ", ".join(map(_shown, manifest.get("labels", ()))) or UNKNOWN
    lines = [
        f"# Model card: {_shown(model.get('preset', 'a LOGO-Former'))}",
        "",
        "Written by `logoformer export` from `manifest.json`. A card says what was recorded; it proves nothing.",
        "",
        "## Model",
        "",
        f"* Classes: {labels}",
        f"* Input: {_shown(sampling.get('segments', '?'))} segments x "
        f"{_shown(sampling.get('frames_per_segment', '?'))} frames over {_shown(sampling.get('span_s', '?'))} s, "
        f"face crops of {_shown(_mapping(manifest.get('preprocessing')).get('size', '?'))} pixels",
        f"* Attention: {_shown(model.get('attention', UNKNOWN))}; parameters: "
        f"{_shown(_mapping(model.get('complexity')).get('parameters', UNKNOWN))}",
        f"* Checkpoint, SHA-256: {_shown(checkpoint.get('sha256', UNKNOWN))}",
        "",
        "## Data",
        "",
        f"* Training: {_training(extra)}",
        f"* Clips for parity: {_shown(_mapping(provenance.get('clips')).get('source', UNKNOWN))}",
        f"* Golden clips in this folder: {_shown(golden.get('clips', '?'))}, {_shown(golden.get('source', UNKNOWN))}",
        "",
        "## Scores",
        "",
        *_scores(extra),
        "",
        "## Verdicts",
        "",
        *_verdicts(_mapping(manifest.get("precisions"))),
        "",
        "## Licence of the weights",
        "",
        f"{_shown(extra.get('license', UNKNOWN))}. The licence of the code (Apache-2.0) is not that of the weights; "
        "weights that were trained on licensed data follow the terms of that data.",
        "",
        "## Intended use",
        "",
        "Research and prototypes on people who know of it and agreed to it. A facial expression is not a feeling. Not "
        "for decisions about people, and not on groups of people or cameras that the scores above do not cover.",
    ]
    return "\n".join(lines) + "\n"


def _training(extra: Mapping[str, Any]) -> str:
    reading, recipe = _mapping(extra.get("reading")), extra.get("recipe")
    if isinstance(recipe, str) and recipe.startswith("init"):
        return "none; random weights, for latency work. The answers mean nothing"
    if not reading:
        return UNKNOWN
    return (
        f"data set '{_shown(reading.get('data', '?'))}', fold {_shown(reading.get('fold', '?'))}, "
        f"{_shown(reading.get('train_clips', '?'))} clips; whether it is synthetic is not recorded"
    )


def _scores(extra: Mapping[str, Any]) -> list[str]:
    metrics = _mapping(extra.get("metrics"))
    if not {"uar", "war", "clips"} <= set(metrics):
        return [f"{UNKNOWN.capitalize()}."]
    rows = ["| UAR | WAR | held-out clips |", "|---:|---:|---:|"]
    return [*rows, f"| {_share(metrics['uar'])} | {_share(metrics['war'])} | {_shown(metrics['clips'])} |"]


def _verdicts(precisions: Mapping[str, Any]) -> list[str]:
    if not precisions:
        return [f"{UNKNOWN.capitalize()}."]
    rows = ["| precision | verdict | reason |", "|---|---|---|"]
    for name, entry in precisions.items():
        found = _mapping(entry)
        rows.append(f"| {_shown(name)} | {_shown(found.get('verdict', UNKNOWN))} | {_shown(found.get('reason', ''))} |")
    return rows


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _share(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else _shown(value)


def _shown(value: Any) -> str:
    """One line of text that cannot end a table cell, open a link or a tag."""
    text = printable(" ".join(str(value).split()), 500)
    for mark in "\\|<>[]`*_#":
        text = text.replace(mark, f"\\{mark}")
    return text
