"""`report.html`: one file, drawn from `report.json` alone, that opens from a disk with no network.

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
from .html_charts import Figure, histogram, over_time, side_by_side, waterfall
from .html_figures import cold_start, floors, idle_gaps, matrix, precisions
from .html_style import STYLE
from .html_svg import element, escape, number
from .records import Pace, Row, TrtexecRun
from .report import Report, write_report

MATRIX = 4  # from so many kinds of rows on, a picture of cells says more than bars side by side
SHOWN = 4  # rows with a histogram of their own; a matrix has many more, all of them in the table
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_both(report: Report, out: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Writes the report for programs and the one for people.

    Args:
        report: what was measured.
        out: the JSON file's name when it ends so, and the page stands beside it; else the folder for `report.json` and
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
    title = f"{report.subject.bundle}: latency of LOGO-Former {report.subject.preset}"
    sections = [_figure(figure) for figure in figures(report)]
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


def figures(report: Report) -> Iterable[Figure]:
    """Every picture that this report can fill, in the order of the page."""
    ours = [row for row in report.rows if _is_ours(row)]
    first = [row for row in ours if row.latency_ms][:SHOWN]
    for index, row in enumerate(first):
        yield histogram(row, f"hist-{index}", index)
    if first:
        yield over_time(first, report.telemetry.series)
    if any(row.stages_p50_ms for row in ours):
        yield waterfall(ours)
    closed = [row for row in report.rows if row.mode == "closed"]
    if len({(row.precision, row.hop, row.streams) for row in closed}) > MATRIX:
        yield matrix(closed)
    elif len(closed) > 1:
        yield side_by_side(closed, report.comparisons, [row.name for row in ours])
    if report.cold is not None:
        yield cold_start(report.cold)
    if report.idle_gaps:
        yield idle_gaps(report.idle_gaps)
    if report.roofline is not None:
        for answer, graphs in ANSWERS.items():
            if {work.graph for work in report.roofline.works} >= set(graphs):
                yield floors(report.roofline, answer)
    if report.accuracy and ours:
        yield precisions([row for row in ours if row.mode == "closed"], report.accuracy)


def _is_ours(row: Row) -> bool:
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
        lines.append(element("ul", [element("li", escape(reason)) for reason in verdict.reasons]))
    tiles = []
    for row in report.rows:
        middle = row.summary.at(50.0)
        if _is_ours(row) and middle is not None:
            value = element("b", escape(f"{number(middle.value_ms)} ms"))
            tiles.append(
                element("div", [value, escape(f"p50, {row.name} ({row.mode}, {row.precision})")], class_="tile")
            )
    for c in report.comparisons:
        if not c.denominator.endswith("again"):
            value = element("b", escape(f"{1 / c.ratio.value:.2f} x" if c.ratio.value else "-"))
            noise = "" if c.noise is None else f" (noise ±{100 * c.noise:.0f} %)"
            what = escape(f"as fast: {c.numerator} over {c.denominator}{noise}")
            tiles.append(element("div", [value, what], class_="tile"))
    return [*lines, element("div", tiles, class_="tiles")]


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
    head = (
        "row",
        "mode",
        "precision",
        "device",
        "streams",
        "hop",
        "n",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "max ms",
        "per s",
        "mJ",
    )
    rows = [
        (
            row.name,
            row.mode,
            row.precision,
            row.device,
            str(row.streams),
            "" if row.hop is None else str(row.hop),
            str(row.summary.n),
            *(_percentile(row, p) for p in (50.0, 90.0, 99.0)),
            number(row.summary.max_ms),
            number(row.throughput_hz),
            "" if row.energy is None else number(row.energy.energy_mj),
        )
        for row in report.rows
    ]
    said = [element("li", [element("b", escape(row.name)), ": ", escape(row.what)]) for row in report.rows]
    said += [
        element("li", [element("b", escape(row.name)), ": ", escape(_paced(row.pace))])
        for row in report.rows
        if row.pace
    ]
    said += [element("li", [element("b", escape(s.name)), " skipped: ", escape(s.reason)]) for s in report.skipped]
    said += [
        element("li", [element("b", escape(f"trtexec, {run.graph}")), ": ", escape(_trtexec(run))])
        for run in report.trtexec
    ]
    parts = [element("h2", "All rows"), _table(head, rows), element("ul", said)]
    return element("section", parts, class_="wide")


def _paced(pace: Pace) -> str:
    middle = pace.service.at(50.0)
    service = "" if middle is None else f"; the work alone p50 {number(middle.value_ms)} ms"
    return (
        f"{number(pace.rate_hz)} frames a second scheduled, {number(pace.achieved_hz)} worked off, {pace.queued} had "
        f"to wait, at most {pace.longest_queue} at once{service}"
    )


def _trtexec(run: TrtexecRun) -> str:
    figures = ", ".join(f"{name} {number(value)}" for name, value in run.gpu_ms)
    return f"by its own definitions, TensorRT {run.version}: GPU time in ms {figures}. Command: {run.command}"


def _percentile(row: Row, percentile: float) -> str:
    found = row.summary.at(percentile)
    if found is not None:
        return number(found.value_ms)
    needed = next((n for p, n in row.summary.withheld if p == percentile), 0)
    return f"needs n={needed}"


def _checks(report: Report) -> str:
    lines = [
        f"{a.precision}: {a.golden_clips} golden clips compared before timing, clip off by {a.clip_share:.3%} and "
        f"frame + temporal by {a.pair_share:.3%} of the deviation between clips; {a.timed_answers} answers that were "
        f"timed within {a.timed_difference:.1e} of the verified ones; verdict {a.verdict}"
        for a in report.accuracy
    ]
    w = report.wrapper
    lines.append(
        f"own cost over a hollow session: runtime(clip) p50 {w.clip_p50_us:.0f} us, stream.push p50 "
        f"{w.push_p50_us:.0f} us{w.worker()}; the load generator adds {report.harness_us:.2f} us to each latency"
    )
    if report.cache is not None:
        c = report.cache
        lines.append(
            f"{'answers come from a cache' if c.cached else 'no answer from a cache'}: the same clip again takes "
            f"{c.repeated.value:.2f} of a new one's time (A/A noise {100 * c.noise:.1f} %), and {c.answers} answers "
            f"took {c.calls} runs of the graph"
        )
    lines += list(report.qualification.held) + list(report.notes)
    return element("section", [element("h2", "What was checked"), _list(lines)])


def _machine(report: Report) -> str:
    m = report.machine
    facts = {"machine": m.line(), "Python": m.python, **m.packages, **report.telemetry.facts}
    if m.revision:
        facts["revision"] = m.revision
    parts = [element("h2", "The machine"), _table(("", ""), list(facts.items()))]
    if report.telemetry.unreadable:
        parts.append(_list([f"not readable: {item}" for item in report.telemetry.unreadable]))
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
