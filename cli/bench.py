"""The verbs bench and bench-compare."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from . import choices
from .options import AddVerb, backend_option, precision_option, seed_option, show, threads_option
from .parser import comma_list
from .terminal import Bar


def _bench(a: argparse.Namespace, bar: Bar) -> int:
    if a.roofline:
        return _roofline(a, bar)
    from ..benchmarks.baselines.contract import chosen_baselines
    from ..benchmarks.bench import BenchConfig, bench
    from ..benchmarks.matrix import bench_matrix, grid
    from ..benchmarks.report.page import write_both
    from ..benchmarks.report.readme import write_readme_table
    from ..benchmarks.report.terminal import report_text

    config = BenchConfig(
        bundle=Path(a.bundle), iterations=a.iterations, warmup=a.warmup, threads=a.threads, precision=a.precision,
        seed=a.seed, modes=a.mode, backend=a.backend, rate_hz=a.rate, hop=a.hop, streams=a.streams,
        trtexec=a.compare == "trtexec", others=chosen_baselines(",".join(a.baselines)),
    )  # fmt: skip
    report = bench_matrix(config, bar) if a.matrix else bench(config, bar)
    if a.out:
        write_both(report, a.out)
    if a.readme:
        write_readme_table(report, Path(a.readme))
    return show(a, bar, report.to_json(), (f"{grid(report)}\n" if a.matrix else "") + report_text(report))


def _roofline(a: argparse.Namespace, bar: Bar) -> int:
    from ..benchmarks.roofline.report import roofline, roofline_text
    from ..bundle import Bundle

    found = roofline(Bundle(a.bundle), a.precision, a.threads, device=a.device, progress=bar)
    return show(a, bar, asdict(found), roofline_text(found))


def _compare(a: argparse.Namespace, bar: Bar) -> int:
    from ..benchmarks.compare import EXIT_REGRESSION, changes_text, compare_reports
    from ..benchmarks.report.report import read_report

    changes = compare_reports(read_report(a.before), read_report(a.after), a.margin)
    show(a, bar, changes.to_json(), changes_text(changes))
    return EXIT_REGRESSION if changes.regressions else 0


def add(verb: AddVerb) -> None:
    """Adds these verbs to the parser."""
    p = verb("bench", _bench, "measure latency on this machine", "logoformer bench face.bundle -o report.json")
    p.add_argument("bundle")
    p.add_argument("-o", "--out", metavar="OUT", help="write report.json and report.html: a folder, or the JSON's name")
    p.add_argument("--readme", metavar="MD", help="put the table between the markers of this file")
    p.add_argument("--iterations", type=int, default=140, metavar="N", help="timed results of each; default 140")
    p.add_argument("--warmup", type=int, default=10, metavar="N", help="untimed results before; default 10")
    p.add_argument(
        "--mode", type=comma_list(choices.MODES), default=("closed",), metavar="M,...",
        help="closed (default), paced, multi, offline, cold, idle; several with commas",
    )  # fmt: skip
    p.add_argument("--rate", type=float, metavar="HZ", help="paced: frames per second; default: as in training")
    p.add_argument("--hop", type=int, default=1, metavar="N", help="paced, multi: frames for one answer; default 1")
    p.add_argument("--streams", type=int, metavar="N", help="multi: faces; default: the bundle's")
    p.add_argument(
        "--baselines", "--peers", type=comma_list(("all", "none", *choices.BASELINES)), default=("all",),
        metavar="B,...", help=f"what to time too: all (default), none, or with commas {', '.join(choices.BASELINES)}",
    )  # fmt: skip
    p.add_argument(
        "--matrix", action="store_true", help="precision x graph x hop x streams, instead of modes and baselines"
    )
    p.add_argument("--roofline", action="store_true", help="measure nothing: compute what each device needs at least")
    p.add_argument("--device", metavar="NAME", help="with --roofline: only the devices whose name holds this")
    p.add_argument("--compare", choices=["trtexec"], help="also run trtexec on the bundle's engines, if installed")
    backend_option(p, "onnxruntime")
    precision_option(p)
    threads_option(p)
    seed_option(p)

    example = "logoformer bench-compare before.json after.json"
    p = verb("bench-compare", _compare, "compare two reports; exit code 1 on a regression", example)
    p.add_argument("before", metavar="A.json")
    p.add_argument("after", metavar="B.json")
    p.add_argument("--margin", type=float, default=0.02, metavar="SHARE", help="slowdown that counts; default 0.02")
