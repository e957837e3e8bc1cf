"""A report as a Markdown table, put between two markers of README."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...bundle.files import write_atomic
from ...errors import BadInputError, RefusedError, one_of, printable
from .records import CPU
from .report import Report
from .terminal import ROW_HEAD, ratio_cells, row_cells
from .text_tables import ms

BEGIN = "<!-- bench:begin -->"
END = "<!-- bench:end -->"


def readme_table(report: Report) -> str:
    """The table for README, with what is needed to judge it."""
    report.require_measured()
    subject, settings, machine = report.subject, report.settings, report.machine
    head = ["", *ROW_HEAD[:-1]]
    lines = [_bar(head), _bar(["---", "---", *["---:"] * (len(head) - 2)])]
    lines += [_bar(row_cells(row)[:-1]) for row in report.rows]
    lines += ["", "| median over median, round by round | | 99 % interval | noise of the run |", "|---|---:|---|---|"]
    lines += [_bar(ratio_cells(c)) for c in report.comparisons]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(machine.packages.items()))
    w = report.wrapper
    worker = "" if w.worker_p50_us is None else f", worker {w.worker_p50_us:.0f} µs"
    where = (
        f"`{subject.preset}`, {subject.backend}, {settings.threads} threads for each baseline, closed loop, "
        f"interleaved in one run of {report.seconds:.0f} s. {machine.line()}; Python {machine.python}, {versions}. "
        f"{report.created[:10]}, `{report.command}`. In brackets: the bound that the true percentile stays below with "
        f"99 % confidence (MLPerf early stopping). Own cost of the wrapper, p50: `runtime(clip)` "
        f"{w.clip_p50_us:.0f} µs, `stream.push` {w.push_p50_us:.0f} µs{worker}; of the load generator: "
        f"{report.harness_us:.2f} µs. This run is {report.qualification.line()}."
    )
    lines += ["", _escape(where)]
    for item in report.roofline.measured if report.roofline is not None else ():
        lines.append(
            _escape(
                f"`{item.row}` took {item.ratio:.2f} times the roofline's {ms(item.floor_ms)} ms, which is computed "
                "from the fastest of several products and copies that were measured on the same CPU."
            )
        )
    if report.roofline is not None and report.roofline.failed:
        lines.append(_escape(f"No roofline is shown: {report.roofline.failed}."))
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
    report.require_measured()
    on_gpu = [row.name for row in report.rows if row.device != CPU]
    if on_gpu and not report.qualification.qualified:
        raise RefusedError(
            f"This run is {report.qualification.line()}. No table was made of {one_of(on_gpu)}.",
            cause="the figures describe this run, not the device",
            next="mend what the reasons name, then run logoformer bench again",
        )
    replace_between(readme, BEGIN, END, readme_table(report))


def replace_between(path: Path, begin: str, end: str, body: str) -> None:
    """Replaces what stands between two markers of a file; the rest keeps every byte.

    Raises:
        BadInputError: the markers are not there exactly once each, in order.
        MachineError: the file may not be written.
    """
    before, after = text_around(path, begin, end)
    write_atomic(path, f"{before}{begin}\n{body}{end}{after}".encode())


def text_around(path: Path, begin: str = BEGIN, end: str = END) -> tuple[str, str]:
    """What stands before and behind the place between two markers of a file.

    Raises:
        BadInputError: the markers are not there exactly once each, in order.
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
    return before, rest.partition(end)[2]


def _bar(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_escape(cell) for cell in cells) + " |"


def _escape(cell: str) -> str:
    """One table cell or line: nothing of it may end either."""
    return printable(" ".join(cell.replace("|", "\\|").split()))
