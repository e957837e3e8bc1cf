"""`python -m logoformer.studies.complexity`: costs of attention schemes on this CPU.

Writes `benchmarks/results/complexity.json`, `docs/complexity.svg`, and the tables between the markers of
`docs/complexity.md`. The JSON is read back before anything is drawn, so that all three show the same figures.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..benchmarks.report import fields
from ..bundle.files import write_atomic
from ..cli.terminal import Bar
from ..model.networks.logoformer.config import ATTENTIONS
from ..workflows.complexity import (
    PARTS,
    REFERENCE,
    Cost,
    SchemeCosts,
    figures_of,
    inspect_complexity,
    macs_text,
    schemes_svg,
    settings_text,
)
from .results import FOLDER, read_results, show_results, write_results

COMMAND = "python -m logoformer.studies.complexity"
RESULTS = FOLDER / "complexity.json"
PAGE, PICTURE = Path("docs/complexity.md"), Path("docs/complexity.svg")


def read_costs(path: Path) -> SchemeCosts:
    """Reads a committed result back.

    Raises:
        TypeError: a field is missing, unknown or of another type.
        RefusedError: it is not JSON.
    """
    return fields.read(SchemeCosts, {name: value for name, value in read_results(path).items() if name != "command"})


def complexity_tables(costs: SchemeCosts) -> str:
    """The tables of the page: by T, then by S, for each part."""
    axes = (
        (costs.against_frames, lambda r: f"T = {r.frames}", f"S = {costs.tokens_per_frame}"),
        (costs.against_tokens, lambda r: f"S = {r.tokens_per_frame}", f"T = {costs.frames}"),
    )
    lines = []
    for part, title in PARTS.items():
        for against, head, fixed in axes:
            columns = [head(r) for r in against(REFERENCE)]
            lines += [f"**{title[0].upper()}{title[1:]}, {fixed}**: MACs · CPU time · times that of `{REFERENCE}`", ""]
            lines += [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
            for scheme in ATTENTIONS:
                lines.append(f"| {scheme} | {' | '.join(_cell(r, part) for r in against(scheme))} |")
            lines.append("")
    return "\n".join([*lines, settings_text(costs)]) + "\n"


def _cell(r: Cost, part: str) -> str:
    macs, ms, found = figures_of(r, part)
    shown = f"{ms:.0f}" if ms >= 100 else f"{ms:.3g}"
    return f"{macs_text(macs)} · {shown} ms · {found.value:.2f}"


def main() -> int:
    """Measures and writes all three files."""
    bar = Bar()
    found = inspect_complexity(name="base", progress=bar)
    bar.clear()
    write_results(RESULTS, {"command": COMMAND, **found.to_json()})
    costs = read_costs(RESULTS)
    write_atomic(PICTURE, schemes_svg(costs).encode())
    show_results(PAGE, {"complexity": complexity_tables(costs)})
    print(complexity_tables(costs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
