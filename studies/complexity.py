"""`python -m logoformer.studies.complexity`: what each attention scheme costs on `base`, measured on this CPU.

Writes `benchmarks/results/complexity.json`, `docs/complexity.svg`, and the tables between the markers of
`docs/complexity.md`. The JSON is read back before anything is drawn, so that all three show the same figures.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..benchmarks.report import fields
from ..benchmarks.report.readme import replace_between
from ..bundle.files import dump_json, parse_json, write_atomic
from ..cli.terminal import Bar
from ..workflows.scheme_costs import SchemeCosts
from ..workflows.scheme_plot import plot
from ..workflows.scheme_report import inspect_complexity, markdown

COMMAND = "python -m logoformer.studies.complexity"
RESULTS = Path("benchmarks/results/complexity.json")
PAGE, PICTURE = Path("docs/complexity.md"), Path("docs/complexity.svg")
MARKERS = ("<!-- complexity:begin -->", "<!-- complexity:end -->")


def read_costs(path: Path) -> SchemeCosts:
    """Reads a committed result back.

    Raises:
        TypeError: a field is missing, unknown or of another type.
        RefusedError: it is not JSON.
    """
    data = parse_json(path.read_bytes(), str(path))
    return fields.read(SchemeCosts, {name: value for name, value in data.items() if name != "command"})


def show(costs: SchemeCosts) -> None:
    """Writes the picture and the page's tables, and prints these."""
    write_atomic(PICTURE, plot(costs).encode())
    replace_between(PAGE, *MARKERS, markdown(costs))
    print(markdown(costs))


def main() -> int:
    """Measures and writes all three files."""
    bar = Bar()
    found = inspect_complexity(name="base", progress=bar)
    bar.clear()
    write_atomic(RESULTS, dump_json({"command": COMMAND, **found.to_json()}))
    show(read_costs(RESULTS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
