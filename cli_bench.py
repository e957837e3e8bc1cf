"""The verbs that measure: bench."""

from __future__ import annotations

import argparse
from pathlib import Path

from .cli_shared import AddVerb, precision_option, seed_option, show, threads_option
from .terminal import Bar


def _bench(a: argparse.Namespace, bar: Bar) -> int:
    from .benchmarks.bench import BenchConfig, bench
    from .benchmarks.report import write_report
    from .benchmarks.tables import text, write_readme_table

    config = BenchConfig(
        bundle=Path(a.bundle), iterations=a.iterations, warmup=a.warmup, threads=a.threads, precision=a.precision,
        seed=a.seed,
    )  # fmt: skip
    report = bench(config, bar)
    if a.out:
        write_report(report, a.out)
    if a.readme:
        write_readme_table(report, Path(a.readme))
    return show(a, bar, report.to_json(), text(report))


def add(verb: AddVerb) -> None:
    """Adds these verbs to the parser."""
    p = verb("bench", _bench, "measure latency on this machine's CPU", "logoformer bench face.bundle -o report.json")
    p.add_argument("bundle")
    p.add_argument("-o", "--out", metavar="JSON", help="write the report")
    p.add_argument("--readme", metavar="MD", help="put the table between the markers of this file")
    p.add_argument("--iterations", type=int, default=140, metavar="N", help="timed results of each; default 140")
    p.add_argument("--warmup", type=int, default=10, metavar="N", help="untimed results before; default 10")
    precision_option(p)
    threads_option(p)
    seed_option(p)
