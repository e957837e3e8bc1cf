"""`report.html`: one file without outside references, drawn from `report.json` alone.

There is no script in it, and a content policy forbids everything but its own style sheet: whatever a name in a report
tries, nothing is loaded and nothing runs. It follows the reader's choice of light or dark and fits a phone.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from ...bundle.files import write_atomic
from ..baselines.contract import OTHERS
from ..roofline.report import ANSWERS
from .figures import (
    cold_figure,
    floors_figure,
    histogram_figure,
    idle_figure,
    matrix_figure,
    precision_figure,
    side_by_side_figure,
    stages_figure,
    time_figure,
)
from .records import ReportRow
from .report import Report, write_report
from .svg import DRAWING, Figure, element, escape, number
from .terminal import ROW_HEAD, checks, details, row_cells

MATRIX = 4  # from so many kinds of rows on, a picture of cells says more than bars side by side
SHOWN = 4  # rows with a histogram of their own; a matrix has many more, all of them in the table
POLICY = "default-src 'none'; style-src 'unsafe-inline'"

STYLE = (
    DRAWING
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header, main, footer { max-width: 1400px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 4px; }
p { margin: 4px 0 8px; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.verdict { display: inline-block; padding: 2px 10px; border: 2px solid; border-radius: 14px; font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); }
.tiles { display: grid; gap: 10px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 150px), 1fr)); }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.2; }
main { columns: 380px; column-gap: 14px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px;
  margin: 0 0 14px; break-inside: avoid; }
section.wide { column-span: all; margin-top: 14px; }
.chart { display: block; width: 100%; height: auto; max-width: 560px; margin: 6px auto 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 8px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.text { text-align: left; white-space: normal; min-width: 16em; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; }
details { margin-top: 8px; } summary { cursor: pointer; color: var(--soft); }
summary:focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
ul { margin: 4px 0; padding-left: 20px; } li { overflow-wrap: anywhere; }
code { font-size: 12px; overflow-wrap: anywhere; }
"""
)


def write_both(report: Report, out: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Writes the report for programs and the one for people.

    Args:
        report: what was measured.
        out: the JSON file's name when it ends so, and the page lies next to it; else the folder for `report.json` and
            `report.html`.

    Returns:
        Both paths.

    Raises:
        MachineError: the disk is full or the folder may not be written.
    """
    json = Path(out) if Path(out).suffix == ".json" else Path(out) / "report.json"
    page = json.with_suffix(".html")
    write_report(report, json)
    write_atomic(page, html(report).encode())
    return json, page


def html(report: Report) -> str:
    """The whole page."""
    report.require_measured()
    title = f"{report.subject.bundle}: latency of {report.subject.preset}"
    sections = [_figure(figure) for figure in page_figures(report)]
    sections += [_rows(report), _checks(report), _machine(report)]
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        element("title", escape(title)),
        element("style", STYLE),
    ]
    body = [
        element("header", [element("h1", escape(title)), *_summary(report)]),
        element("main", sections),
        element("footer", _footer(report), class_="soft"),
    ]
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>{"".join(head)}</head>\n<body>{"".join(body)}</body>\n</html>\n'


def page_figures(report: Report) -> Iterable[Figure]:
    """Every picture that this report can fill, in the order of the page."""
    ours = [row for row in report.rows if _is_ours(row)]
    first = [row for row in ours if row.latency_ms][:SHOWN]
    for index, row in enumerate(first):
        yield histogram_figure(row, f"hist-{index}", index)
    if first:
        yield time_figure(first, report.telemetry.series)
    if any(row.stages_p50_ms for row in ours):
        yield stages_figure(ours)
    closed = [row for row in report.rows if row.mode == "closed"]
    if len({(row.precision, row.hop, row.streams) for row in closed}) > MATRIX:
        yield matrix_figure(closed)
    elif len(closed) > 1:
        yield side_by_side_figure(closed, report.comparisons, [row.name for row in ours])
    if report.cold is not None:
        yield cold_figure(report.cold)
    if report.idle_gaps:
        yield idle_figure(report.idle_gaps)
    if report.roofline is not None:
        for answer, graphs in ANSWERS.items():
            if {work.graph for work in report.roofline.works} >= set(graphs):
                yield floors_figure(report.roofline, answer)
    if report.accuracy and ours:
        yield precision_figure([row for row in ours if row.mode == "closed"], report.accuracy)


def _is_ours(row: ReportRow) -> bool:
    return row.name not in OTHERS and not row.name.endswith(("again", "repeated"))


# ------------------------------------------------------------------------------------------------------------- sections
def _summary(report: Report) -> list[str]:
    subject, verdict = report.subject, report.qualification
    kind = "good" if verdict.qualified else "bad"
    lines = [
        element("p", escape(f"{subject.precision} on {subject.backend}. {report.machine.line()}. {report.created}.")),
        element("p", element("span", "qualified" if verdict.qualified else "unqualified", class_=f"verdict {kind}")),
    ]
    if verdict.reasons:
        lines.append(_list(verdict.reasons))
    tiles = []
    for row in report.rows:
        middle = row.summary.at(50.0)
        if _is_ours(row) and middle is not None:
            tiles.append((f"{number(middle.value_ms)} ms", f"p50, {row.name} ({row.mode}, {row.precision})"))
    for c in report.comparisons:
        if not c.denominator.endswith("again"):
            noise = "" if c.noise is None else f" (noise ±{100 * c.noise:.0f} %)"
            times = f"{1 / c.ratio.value:.2f} x" if c.ratio.value else "-"
            tiles.append((times, f"as fast: {c.numerator} over {c.denominator}{noise}"))
    drawn = [element("div", [element("b", escape(value)), escape(what)], class_="tile") for value, what in tiles]
    return [*lines, element("div", drawn, class_="tiles")]


def _figure(figure: Figure) -> str:
    table = element("details", [element("summary", "The figures as a table"), _table(figure.head, figure.rows)])
    heading = element("h2", escape(figure.title))
    return element("section", [heading, element("p", escape(figure.text), class_="soft"), figure.picture, table])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    titles = element("tr", [element("th", escape(cell), scope="col") for cell in head])
    lines = [
        element("tr", [element("td", escape(cell), class_="text" if len(cell) > 40 else None) for cell in row])
        for row in rows
    ]
    inside = element("table", [element("thead", titles), element("tbody", lines)])
    return element("div", inside, class_="scroll", tabindex=0)


def _rows(report: Report) -> str:
    head = ["row", *ROW_HEAD, "per s", "mJ", "mode", "device", "streams", "hop"]
    rows = []
    for row in report.rows:
        energy, hop = "" if row.energy is None else number(row.energy.energy_mj), str(row.hop or "")
        where = (row.mode, row.device, str(row.streams), hop)
        rows.append((*row_cells(row), number(row.throughput_hz), energy, *where))
    said = [element("li", [element("b", escape(row.name)), ": ", escape(row.what)]) for row in report.rows]
    said += [element("li", [element("b", escape(s.name)), " skipped: ", escape(s.reason)]) for s in report.skipped]
    parts = [element("h2", "All rows"), _table(head, rows), element("ul", said)]
    return element("section", parts, class_="wide")


def _checks(report: Report) -> str:
    lines = [*details(report), *checks(report), *report.qualification.held, *report.notes]
    return element("section", [element("h2", "What was checked"), _list(lines)])


def _machine(report: Report) -> str:
    m = report.machine
    facts = {"machine": m.line(), "Python": m.python, **m.packages, **report.telemetry.facts}
    facts |= {"revision": m.revision} if m.revision else {}
    parts = [element("h2", "The machine"), _table(("", ""), list(facts.items()))]
    return element("section", parts)


def _list(lines: Sequence[str]) -> str:
    return element("ul", [element("li", escape(line)) for line in lines])


def _footer(report: Report) -> str:
    s = report.settings
    graphs = ", ".join(f"{name} {digest[:12]}" for name, digest in report.subject.graphs.items())
    return escape(
        f"{s.threads} threads each, {s.rounds} rounds x {s.block} steps, {s.inputs} inputs in rotation, seed {s.seed}; "
        f"timed for {report.seconds:.0f} s. Graphs: {graphs}. Drawn from report.json and nothing else."
    )
