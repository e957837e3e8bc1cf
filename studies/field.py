"""Field kits that people with cards send: checked, kept, shown in docs/first-hour.md.

    python -m logoformer.studies.field kit.zip

A kit that holds together is kept as JSON in `benchmarks/results/field/`, whole: every latency, the sensors, what failed
and why. The page's table is printed from those files alone.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..benchmarks.baselines.contract import CLIP, STREAM
from ..benchmarks.field.check import CheckedKit, check_kit
from ..benchmarks.report.report import Report
from ..benchmarks.report.text_tables import ms
from ..bundle.files import dump_json, parse_json, sha256
from ..errors import LogoformerError, RefusedError, command
from .results import FOLDER, show_results, write_results

KITS = FOLDER / "field"
PAGE = Path("docs/first-hour.md")
MAX_BYTES = 64 << 20
NONE = "No kit has come from a card yet: nothing here says how fast a GPU is.\n"


def accept_kit(path: Path, folder: Path = KITS) -> Path:
    """Checks a kit and keeps it; the same kit is kept once.

    Raises:
        BadInputError: there is no such file.
        RefusedError: it does not hold together, or has no figure of a GPU.
    """
    checked = check_kit(path)
    if checked.kit.gpu is None or not {"bench-closed", "bench-paced"} & set(checked.reports):
        raise RefusedError(
            f"{path} is sound, and holds no figure of a GPU: nothing that is missing here.",
            cause="it was made on a machine without a GPU, or its benchmarks did not run",
            next=command("logoformer", "fieldtest", "--check", path),
        )
    kept = _stored(checked)
    name = re.sub(r"[^a-z0-9]+", "-", f"{checked.kit.machine.board or ''} {checked.kit.gpu.name}".lower()).strip("-")
    place = folder / f"{name[:60]}-{sha256(dump_json(kept))[:8]}.json"
    folder.mkdir(parents=True, exist_ok=True)
    write_results(place, kept)
    return place


def _stored(checked: CheckedKit) -> dict[str, Any]:
    return {"kit": asdict(checked.kit), "results": dict(checked.results)}


def field_table(folder: Path = KITS) -> str:
    """One row for each kit that is kept, and what did not run there."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        lines += _row(path.name, parse_json(path.read_bytes(), path.name, max_bytes=MAX_BYTES))
    if not lines:
        return NONE
    head = ["machine", "runs", "`stream` p50", "`clip` p50", "paced p50", "cold start", "energy an answer", "verdict"]
    return "\n".join([_cells(head), _cells(["---"] * len(head)), *lines]) + "\n"


def _row(name: str, kept: Mapping[str, Any]) -> list[str]:
    kit, results = kept["kit"], kept["results"]
    reports = {
        step["name"]: Report.from_json(results[step["result"]], name)
        for step in kit["steps"]
        if step["name"] in ("bench-closed", "bench-paced", "bench-cold") and step["result"]
    }
    closed, paced, cold = (reports.get(f"bench-{mode}") for mode in ("closed", "paced", "cold"))
    stream = closed.row(STREAM) if closed else None
    gpu = f"{kit['gpu']['name']}, {kit['gpu']['multiprocessors']} multiprocessors"
    machine = ", ".join(filter(None, (kit["machine"]["board"], gpu, kit["power_mode"])))
    verdicts = {label.qualification.line() for label in (closed, paced) if label}
    missing = [f"{step['name']}: {step['status']} ({step['why'][:80]})" for step in kit["steps"] if step["why"]]
    start = sorted(cold.cold.total_ms)[len(cold.cold.total_ms) // 2] if cold and cold.cold else None
    return [
        _cells([
            f"{machine} ({kit['created']}, `{name}`)",
            f"{kit['preset']} {kit['precision']}, {closed.subject.backend if closed else kit['backend']}",
            _p50(closed, STREAM), _p50(closed, CLIP), _p50(paced, paced.rows[0].name if paced else ""),
            "–" if start is None else f"{ms(start)} ms",
            f"{stream.energy.energy_mj:.1f} mJ" if stream and stream.energy else "–",
            "; ".join([*sorted(verdicts), *missing]),
        ])
    ]  # fmt: skip


def _p50(report: Report | None, name: str) -> str:
    """The median, and the bound that it stays below with 99 % confidence."""
    row = report.row(name) if report else None
    found = row.summary.at(50.0) if row else None
    return f"{ms(found.value_ms)} ({ms(found.upper_ms)}) ms" if found else "–"


def _cells(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def main(argv: list[str] | None = None) -> int:
    """Accepts the kits that are named, and prints the page's table anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kits", nargs="*", type=Path, metavar="KIT")
    try:
        for path in parser.parse_args(argv).kits:
            print(accept_kit(path))
        show_results(PAGE, {"field": field_table()})
    except LogoformerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
