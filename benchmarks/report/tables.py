"""A report as text: for the terminal, and as the table that stands in README between two markers.

Both are printed from `report.json`'s content and nothing else. A percentile that too few samples stand behind is not
printed: its place says how many it needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...bundle.files import write_atomic
from ...errors import BadInputError, RefusedError, one_of, printable
from ..statistics import Summary
from .records import CPU, Comparison, Row
from .report import Report
from .text_tables import columns as aligned
from .text_tables import ms as _ms
from .texts import details

BEGIN = "<!-- bench:begin -->"
END = "<!-- bench:end -->"
SHOWN = (50.0, 90.0, 95.0, 99.0)
MAX_README_BYTES = 4 << 20


# ------------------------------------------------------------------------------------------------------------ terminal
def text(report: Report) -> str:
    """The whole report for a terminal, at most 120 columns where names allow it."""
    subject, settings = report.subject, report.settings
    lines = [
        f"{subject.bundle} ({subject.preset}, {subject.precision}) on {subject.backend}",
        report.machine.line(),
        f"{', '.join(settings.modes)}; {settings.threads} threads each, {settings.rounds} rounds x {settings.block}"
        f" steps interleaved, {settings.inputs} inputs in rotation, seed {settings.seed}",
        report.qualification.line(),
        "",
    ]
    if report.rows:
        head = ["baseline", "precision", "n", "mean ms", "CoV", *(f"p{p:g} ms" for p in SHOWN), "max ms", "1/s"]
        lines += aligned([head, *([*_cells(row), f"{row.throughput_hz:.1f}"] for row in report.rows)])
        lines += ["", "pNN: of the sample (with 99 % confidence the true one is at most the value in brackets)"]
        lines += [f"  {row.name}: {row.what}" for row in report.rows]
    stages = [
        [row.name, *(f"{name} {ms:.3f}" for name, ms in row.stages_p50_ms)] for row in report.rows if row.stages_p50_ms
    ]
    if stages:
        lines += ["", "stages, p50 ms:", *aligned(stages)]
    if report.comparisons:
        lines += ["", "median over median, interval at 99 %, beside the noise of one program against itself (A/A):"]
        lines += aligned([_compared(c) for c in report.comparisons])
    lines += [f"skipped: {item.name}: {item.reason}" for item in report.skipped]
    lines += ["", *details(report), *_checks(report), *(f"note: {note}" for note in report.notes)]
    return "\n".join(printable(line) for line in lines) + "\n"


def _cells(row: Row) -> list[str]:
    s = row.summary
    shown = (_percentile(s, p) for p in SHOWN)
    return [row.name, row.precision, str(s.n), _ms(s.mean_ms), f"{100 * s.cov:.1f} %", *shown, _ms(s.max_ms)]


def _percentile(summary: Summary, percentile: float) -> str:
    found = summary.at(percentile)
    if found is None:
        needed = next((n for p, n in summary.withheld if p == percentile), 0)
        return f"(needs n={needed})"
    return f"{_ms(found.value_ms)} ({_ms(found.upper_ms)})"


def _compared(c: Comparison) -> list[str]:
    noise = "" if c.noise is None else f"A/A ±{100 * c.noise:.1f} %"
    return [
        f"{c.numerator} / {c.denominator}",
        f"{c.ratio.value:.3f}",
        f"[{c.ratio.low:.3f}, {c.ratio.high:.3f}]",
        noise,
    ]


def _checks(report: Report) -> Iterable[str]:
    w = report.wrapper
    for a in report.accuracy:
        yield (
            f"answers in {a.precision}: {a.golden_clips} golden clips before timing: clip {a.clip_share:.3%}, frame + "
            f"temporal {a.pair_share:.3%} of the deviation between clips, same class {a.agreement:.1%}"
        )
        yield (
            f"  while timed: {a.timed_answers} to clips within {a.timed_difference:.1e} of the verified ones; "
            f"{a.stream_answers} of the stream within {a.stream_share:.3%} of runtime(clip)"
        )
    if report.cache is not None:
        c, r = report.cache, report.cache.repeated
        yield (
            f"cache: one clip again and again takes {r.value:.3f} [{r.low:.3f}, {r.high:.3f}] of clips in rotation, "
            f"A/A ±{100 * c.noise:.1f} %; {c.calls} runs of the graph for {c.answers} answers to one clip"
            f"{': ANSWERS COME FROM A CACHE' if c.cached else ''}"
        )
    yield (
        f"own cost over a hollow session (n={w.n}): runtime(clip) p50 {w.clip_p50_us:.0f} us, "
        f"p95 {w.clip_p95_us:.0f} us; stream.push p50 {w.push_p50_us:.0f} us, p95 {w.push_p95_us:.0f} us"
        + ("" if w.worker_p50_us is None else f"; worker p50 {w.worker_p50_us:.0f} us, p95 {w.worker_p95_us:.0f} us")
    )
    yield f"the load generator adds {report.harness_us:.2f} us to each latency; the run took {report.seconds:.0f} s"
    if report.roofline is not None:
        for item in report.roofline.measured:
            over = f"{item.row} took {item.ratio:.2f} times the {_ms(item.floor_ms)} ms floor of {item.device}"
            yield f"roofline (computed): {over}"
        if not report.roofline.works:
            yield f"roofline {report.roofline.how}"


# -------------------------------------------------------------------------------------------------------------- README
def markdown(report: Report) -> str:
    """The table for README, with what is needed to judge it."""
    subject, settings, machine = report.subject, report.settings, report.machine
    head = ["", "precision", "n", "mean ms", "CoV", *(f"p{p:g} ms" for p in SHOWN)]
    lines = [_bar(head), _bar(["---", "---", *["---:"] * (len(head) - 2)])]
    lines += [_bar(_cells(row)[:-1]) for row in report.rows]
    lines += ["", "| median over median | | 99 % interval | noise of the run |", "|---|---:|---|---|"]
    lines += [_bar(_compared(c)) for c in report.comparisons]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(machine.packages.items()))
    w = report.wrapper
    where = (
        f"`{subject.preset}`, {subject.backend}, {settings.threads} threads for each baseline, closed loop, interleaved "
        f"in one run of {report.seconds:.0f} s. {machine.line()}; Python {machine.python}, {versions}. "
        f"{report.created[:10]}. In brackets: the bound that the true percentile stays below with 99 % confidence "
        f"(MLPerf early stopping). Own cost of the wrapper, p50: `runtime(clip)` {w.clip_p50_us:.0f} µs, "
        f"`stream.push` {w.push_p50_us:.0f} µs{w.worker('µs')}; of the load generator: {report.harness_us:.2f} µs. "
        f"This run is {report.qualification.line()}."
    )
    lines += ["", _escape(where)]
    for item in report.roofline.measured if report.roofline is not None else ():
        lines.append(
            _escape(
                f"`{item.row}` took {item.ratio:.2f} times the roofline's {_ms(item.floor_ms)} ms, which is computed "
                "from a matrix product and a copy that were measured on the same CPU."
            )
        )
    lines += [f"{_escape(item.name)} was skipped: {_escape(item.reason)}." for item in report.skipped]
    lines += ["", *(f"* {_escape(note)}" for note in report.notes)] if report.notes else []
    return "\n".join(lines).replace("<!--", "&lt;!--") + "\n"  # no name may forge a marker


def write_readme_table(report: Report, readme: Path) -> None:
    """Puts the table between this benchmark's markers in README.

    Raises:
        RefusedError: a GPU's figures that are not qualified: they may be read, but not quoted.
        BadInputError: the markers are not there exactly once each, in order.
        MachineError: the file may not be written.
    """
    on_gpu = [row.name for row in report.rows if row.device != CPU]
    if on_gpu and not report.qualification.qualified:
        raise RefusedError(
            f"This run is {report.qualification.line()}. No table was made of {one_of(on_gpu)}.",
            cause="the figures describe this run, not the device",
            next="mend what the reasons name, then run logoformer bench again",
        )
    replace_between(readme, BEGIN, END, markdown(report))


def replace_between(path: Path, begin: str, end: str, body: str) -> None:
    """Replaces what stands between two markers of a file; the rest keeps every byte.

    Raises:
        BadInputError: the markers are not there exactly once each, in order.
        MachineError: the file may not be written.
    """
    try:
        old = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{path} cannot be read: {error}.") from error
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(end) < old.index(begin):
        raise BadInputError(
            f"{path} does not hold {begin} and {end} once each, in this order.",
            next="put the two markers where the table shall stand",
        )
    before, _, rest = old.partition(begin)
    _, _, after = rest.partition(end)
    write_atomic(path, f"{before}{begin}\n{body}{end}{after}".encode())


def _bar(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_escape(cell) for cell in cells) + " |"


def _escape(cell: str) -> str:
    """One table cell or line: nothing of it may end either."""
    return printable(" ".join(cell.replace("|", "\\|").split()))
