"""A model card for a bundle, from its manifest and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import printable

CARD_FILE = "CARD.md"
UNKNOWN = "not recorded"
_ORIGINS = {"file": "from the file", "option": "from an option", "assumed": "assumed, as published"}


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
    family = _mapping(manifest.get("family"))
    labels = ", ".join(map(_shown, manifest.get("labels", ()))) or UNKNOWN
    lines = [
        f"# Model card: {_shown(model.get('preset', 'a LOGO-Former'))} ({_shown(family.get('title', 'LOGO-Former'))})",
        "",
        "Written by `logoformer export` from `manifest.json`. A card says what was recorded; it proves nothing.",
        "",
        "## Model",
        "",
        f"* Paper of the network: {_shown(family.get('paper', UNKNOWN))}",
        f"* Classes: {labels}",
        f"* Input: {_pattern(sampling)} over {_shown(sampling.get('span_s', '?'))} s, "
        f"face crops of {_shown(_mapping(manifest.get('preprocessing')).get('size', '?'))} pixels",
        f"* Alignment of the crops: {_alignment(manifest)}",
        f"* Attention: {_shown(model.get('attention', UNKNOWN))}; parameters: "
        f"{_shown(_mapping(model.get('complexity')).get('parameters', UNKNOWN))}",
        f"* Checkpoint, SHA-256: {_shown(checkpoint.get('sha256', UNKNOWN))}",
        "",
        "## Data",
        "",
        f"* Training: {_training(extra)}",
        *_unchecked(extra),
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
        *_licence(extra),
        "",
        "## Intended use",
        "",
        "Research and prototypes on people who know of it and agreed to it. A facial expression is not a feeling. Not "
        "for decisions about people, and not on groups of people or cameras that the scores above do not cover.",
    ]
    return "\n".join(lines) + "\n"


def _alignment(manifest: Mapping[str, Any]) -> str:
    found = _mapping(manifest.get("alignment"))
    if not found:
        return UNKNOWN
    if found.get("origin") == "learned":
        return f"learned from {_shown(found.get('crops', '?'))} crops of {_shown(found.get('source', '?'))}"
    return f"uncalibrated, the default ({_shown(found.get('source', '?'))})"


def _training(extra: Mapping[str, Any]) -> str:
    reading, recipe = _mapping(extra.get("reading")), extra.get("recipe")
    if isinstance(recipe, str) and recipe.startswith("init"):
        return "none; random weights, for latency work. The answers mean nothing"
    if imported := _mapping(extra.get("imported")):
        told = [f"{_shown(key)} {_shown(value)}" for key, value in _mapping(imported.get("training")).items()]
        origin = ", ".join([f"{_shown(imported.get('bytes', '?'))} bytes", *told])
        return (
            f"by others: {_shown(imported.get('title', '?'))}, {_shown(imported.get('paper', '?'))}; read from "
            f"'{_shown(imported.get('file', '?'))}' ({origin})"
        )
    if not reading:
        return UNKNOWN
    return (
        f"data set '{_shown(reading.get('data', '?'))}', fold {_shown(reading.get('fold', '?'))}, "
        f"{_shown(reading.get('train_clips', '?'))} clips; whether it is synthetic is not recorded"
    )


def _unchecked(extra: Mapping[str, Any]) -> list[str]:
    """Settings of imported weights that their shapes cannot tell right from wrong."""
    named = []
    for name, one in _mapping(_mapping(extra.get("imported")).get("settings")).items():
        setting = _mapping(one)
        if not setting.get("checked"):
            value = setting.get("value", "?")
            value = ", ".join(map(str, value)) if isinstance(value, list) else value
            origin = _ORIGINS.get(str(setting.get("from")), UNKNOWN)
            named.append(f"{_shown(name)} {_shown(value)} ({origin})")
    return [f"* Believed at import, for no shape of the weights can check it: {'; '.join(named)}"] if named else []


def _scores(extra: Mapping[str, Any]) -> list[str]:
    metrics = _mapping(extra.get("metrics"))
    if not {"uar", "war", "clips"} <= set(metrics):
        return [f"{UNKNOWN.capitalize()}.", *_published(extra)]
    rows = ["| UAR | WAR | held-out clips |", "|---:|---:|---:|"]
    own = f"| {_share(metrics['uar'])} | {_share(metrics['war'])} | {_shown(metrics['clips'])} |"
    return [*rows, own, *_published(extra)]


def _published(extra: Mapping[str, Any]) -> list[str]:
    """Rows that others published about the weights, or about weights like them."""
    listed = extra.get("published")
    rows = [_mapping(row) for row in listed[:20]] if isinstance(listed, list) else []
    if not rows:
        return []
    return [
        "",
        "Published by the authors, in percent; not measured here, and not of this file alone:",
        "",
        "| data set | UAR | WAR | how |",
        "|---|---:|---:|---|",
        *(f"| {' | '.join(_shown(row.get(key, UNKNOWN)) for key in ('data', 'uar', 'war', 'note'))} |" for row in rows),
    ]


def _licence(extra: Mapping[str, Any]) -> list[str]:
    end = (
        "The licence of the code (Apache-2.0) is not that of the weights; weights that were trained on licensed data "
        "follow the terms of that data."
    )
    parts = _mapping(extra.get("licenses"))
    if not parts:
        return [f"{_shown(extra.get('license', UNKNOWN))}. {end}"]
    return [*(f"* {_shown(name)}: {_shown(text)}" for name, text in list(parts.items())[:8]), "", end]


def _pattern(sampling: Mapping[str, Any]) -> str:
    segments, each = sampling.get("segments", "?"), sampling.get("frames_per_segment", "?")
    if sampling.get("stride"):
        return f"{_shown(segments)} frames, one in {_shown(sampling['stride'])},"
    return f"{_shown(segments)} segments x {_shown(each)} frames"


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
