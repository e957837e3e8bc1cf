"""What an import did, for people, for `--json` and for the checkpoint's provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import printable
from ..foreign.prefixes import who_puts
from ..networks.contract import NetworkConfig
from ..networks.family import Family
from .origins import SettingOrigin, origin_lines, origins_json
from .plan import ImportPlan
from .states import FoundWeights


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    Attributes:
        file: its name.
        size: its bytes.
        format: 'torch', 'torch before 1.6' or 'safetensors'.
        names: classes and functions that the file mentions; none was run.
        family: of the network.
        found: which weights were taken.
        plan: which tensor became which.
        facts: what the file says of its training.
        settings: where each setting is from, and which of them no shape can check.
        checkpoint: the folder; None for a dry run.
    """

    file: str
    size: int
    format: str
    names: Sequence[str]
    family: Family
    found: FoundWeights
    plan: ImportPlan
    facts: Mapping[str, Any]
    settings: Sequence[SettingOrigin]
    checkpoint: Path | None = None

    @property
    def config(self) -> NetworkConfig:
        """Of the network."""
        return self.plan.config

    def provenance(self) -> dict[str, Any]:
        """The checkpoint's `extra`: where the weights are from, and under which terms."""
        licences = self.family.licences
        return {
            "recipe": f"import: {self.family.title}, weights of other people",
            "imported": {
                "family": self.family.name,
                "title": self.family.title,
                "paper": self.family.paper,
                "file": self.file,
                "bytes": self.size,
                "format": self.format,
                "weights_at": self.found.where,
                "prefix": self.found.prefix,
                "matched": len(self.plan.steps),
                "ignored": len(self.plan.ignored),
                "dtypes": dict(self.plan.dtypes),
                "training": dict(self.facts),
                "settings": origins_json(self.settings),
            },
            "license": f"code: {licences.code}. Weights: {licences.weights}. Data: {licences.data}",
            "licenses": asdict(licences),
            "published": [asdict(row) for row in self.family.published_for(self.config)],
        }

    def to_json(self) -> dict[str, Any]:
        return {
            **self.provenance(),
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            "config": self.config.to_json(),
            "tensors": {
                "matched": len(self.plan.steps),
                "missing": 0,
                "unexpected": list(self.plan.ignored),
                "filled": list(self.plan.counters),
            },
            "casts": dict(self.plan.casts),
            "names_not_run": list(self.names),
            "other_weights": list(self.found.others),
        }

    def text(self) -> str:
        """The report as lines."""
        c, plan, found = self.config, self.plan, self.found
        labels = ", ".join(c.labels)
        lines = [
            f"{self.file}: {self.family.title} ({self.family.paper}), {self.format}",
            f"{len(plan.steps)} of {len(plan.steps)} tensors matched, 0 missing, {len(plan.ignored)} unexpected",
            f"{c.frames} frames of {c.image_size} pixels, {c.sampling}, {c.classes} classes: {labels}",
        ]
        lines += origin_lines(self.settings)
        if found.where or found.prefix:
            place = f"weights taken from {found.where!r}" if found.where else "weights"
            prefix = f", prefix {found.prefix!r} ({who_puts(found.prefix)}) stripped" if found.prefix else ""
            lines.append(f"{place}{prefix}")
        if plan.ignored:
            lines.append(f"not taken: {', '.join(plan.ignored[:4])}{', ...' if len(plan.ignored) > 4 else ''}")
        for dtype, count in plan.casts.items():
            lines.append(f"{count} tensors are {dtype} in the file; they were cast to float32")
        if plan.counters:
            lines.append(
                f"{len(plan.counters)} counters (num_batches_tracked) were missing and became 0: no answer needs them"
            )
        for other in found.others[:3]:
            lines.append(f"the file also has weights at {other!r}: --weights takes those instead")
        if self.names:
            lines.append(f"named in the file and not run: {', '.join(self.names[:6])}")
        if self.facts:
            lines.append("the file says: " + ", ".join(f"{key} {value}" for key, value in self.facts.items()))
        licences = self.family.licences
        lines += [f"code: {licences.code}", f"weights: {licences.weights}", f"data: {licences.data}"]
        for row in self.family.published_for(c):
            lines.append(
                f"published on {row.data}, of the paper's network, not of this file: UAR {row.uar}, WAR {row.war} "
                f"({row.note})"
            )
        return "\n".join(printable(line, 2000) for line in lines)
