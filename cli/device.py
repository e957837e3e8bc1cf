"""The verbs run, doctor, selftest, demo, bench, bench-compare and fieldtest."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from ..errors import UsageError, command, printable
from . import EXIT_INTERRUPTED, choices
from .options import (
    AddVerb,
    backend_option,
    choice_option,
    handling,
    overwrite_option,
    precision_option,
    runtime_arguments,
    runtime_options,
    say,
    seed_option,
    show,
    strict_option,
    threads_option,
)
from .parser import comma_list, real_between, whole_between
from .terminal import Bar, answer_lines


@handling(signal.SIGTERM, signal.default_int_handler)  # SIGTERM from a supervisor ends a run as Ctrl-C does
def _run(a: argparse.Namespace, bar: Bar) -> int:
    from ..camera.run import json_lines, run_source
    from ..camera.sources.open import open_source
    from ..engine import load

    with contextlib.ExitStack() as stack:
        runtime = stack.enter_context(load(a.bundle, selftest=a.selftest, **runtime_arguments(a)))
        fps = runtime.bundle.sampling.fps if a.fps is None else a.fps
        source = stack.enter_context(open_source(a.source, fps))
        terminal = sys.stdout.isatty()
        on_result = answer_lines(runtime.labels) if terminal and not a.json else json_lines(sys.stdout)
        # The bar would break up the lines where both go to the same terminal.
        progress = None if terminal else bar
        done = run_source(runtime, source, a.face, a.hop, a.warmup, a.out, on_result=on_result, progress=progress)
    bar.clear()
    if not a.quiet:
        where = f"; {printable(done.out)}" if done.out else ""
        lost = [
            (done.skipped, "skipped: faster than the model's span asks for"),
            (done.resets, "pauses dropped the history"),
            *done.live,
        ]
        counted = "".join(f", {number} {what}" for number, what in lost if number)
        print(f"{done.frames} frames, {done.results} answers, {done.seconds:.1f} s{counted}{where}", file=sys.stderr)
        for note in done.notes:
            print(f"note: {note}", file=sys.stderr)
    return EXIT_INTERRUPTED if done.stopped == "interrupt" else 0


def _doctor(a: argparse.Namespace, bar: Bar) -> int:
    from ..engine.doctor.report import doctor

    bar("examine", 0, 0)
    report = doctor()
    show(a, bar, report.to_json(), report.text())
    return report.exit_code


def _selftest(a: argparse.Namespace, bar: Bar) -> int:
    from ..benchmarks.report.text_tables import table
    from ..engine import load
    from ..engine.golden import selftest

    with load(a.bundle, **runtime_arguments(a)) as runtime:
        report = selftest(runtime)
    rows = [["what", "off by", "allowed", ""]]
    for check in report.checks:
        off = "not finite" if check.share is None else f"{check.share:.4%}"
        rows.append([check.what, off, f"{check.allowed:.2%}", "passed" if check.passed else "FAILED"])
    note = f"{report.backend}, {report.precision}, {report.golden_clips} golden clips; "
    note += "'off by' is a share of the deviation between clips"
    show(a, bar, report.to_json(), f"{table(rows)}\n{note}")
    report.require()
    return 0


def _demo(a: argparse.Namespace, bar: Bar) -> int:
    from ..workflows.demo import demo

    report = demo(a.out, seed=a.seed, progress=bar, say=say(a, bar))
    return show(a, bar, report.to_json(), report.table())


def _bench(a: argparse.Namespace, bar: Bar) -> int:
    if a.roofline:
        return _roofline(a, bar)
    if a.camera:
        return _camera(a, bar)
    from ..benchmarks.baselines.contract import chosen_baselines
    from ..benchmarks.bench import BenchConfig, bench
    from ..benchmarks.matrix import bench_matrix, grid
    from ..benchmarks.report.page import write_both
    from ..benchmarks.report.readme import text_around, write_readme_table
    from ..benchmarks.report.terminal import report_text

    if a.readme:
        text_around(Path(a.readme))  # refused before anything is measured
    config = BenchConfig(
        bundle=Path(a.bundle), iterations=a.iterations, warmup=a.warmup, threads=a.threads, precision=a.precision,
        seed=a.seed, modes=a.mode, backend=a.backend, rate_hz=a.rate, hop=a.hop, streams=a.streams,
        trtexec=a.compare == "trtexec", others=chosen_baselines(",".join(a.baselines)), device=_card(a.device),
        strict=a.strict,
    )  # fmt: skip
    report = bench_matrix(config, bar) if a.matrix else bench(config, bar)
    if a.out:
        write_both(report, a.out)
    if a.readme:
        write_readme_table(report, Path(a.readme))
    return show(a, bar, report.to_json(), (f"{grid(report)}\n" if a.matrix else "") + report_text(report))


def _card(text: str | None) -> int:
    """The number of a GPU.

    Raises:
        UsageError: it is a name, which goes with --roofline.
    """
    if text is not None and not (text.isdecimal() and len(text) < 5):
        raise UsageError(
            f"--device {text!r} names no card of this machine.",
            cause="without --roofline it is a number, counted from 0",
            next=command("logoformer", "bench", "BUNDLE", "--roofline", "--device", text),
        )
    return int(text or 0)


def _camera(a: argparse.Namespace, bar: Bar) -> int:
    from ..benchmarks.load.camera import camera_stages
    from ..benchmarks.report.text_tables import table
    from ..camera.sources.open import open_source
    from ..engine import load

    with (
        load(
            a.bundle,
            backend=a.backend,
            precision=a.precision,
            threads=a.threads,
            device=_card(a.device),
            strict=a.strict,
        ) as runtime,
        open_source(a.camera, runtime.bundle.sampling.fps) as source,
    ):
        found = camera_stages(runtime, source, frames=a.iterations, hop=max(a.hop, 2), progress=bar)
    note = f"{found.frames} frames of {found.size[0]} x {found.size[1]}, {found.faces:.1f} faces in each; "
    note += f"a product of two 256 x 256 matrices took {found.product_ms:.2f} ms; 'answer' is per answer"
    return show(a, bar, found.to_json(), f"{table(found.rows())}\n{note}")


def _roofline(a: argparse.Namespace, bar: Bar) -> int:
    from ..benchmarks.roofline.report import roofline, roofline_text
    from ..bundle import Bundle

    found = roofline(Bundle(a.bundle), a.precision, a.threads, device=a.device, progress=bar)
    return show(a, bar, asdict(found), roofline_text(found))


def _compare(a: argparse.Namespace, bar: Bar) -> int:
    from ..benchmarks.compare import EXIT_REGRESSION, changes_text, compare_reports
    from ..benchmarks.report.report import read_report
    from ..benchmarks.side_by_side import SideBySideConfig, compare_bundles

    before, after = Path(a.before), Path(a.after)
    if before.is_dir() != after.is_dir() and before.exists() and after.exists():
        raise UsageError(
            f"{before} and {after} are not of one kind.",
            cause="a bundle is compared with a bundle, a report with a report",
            next=command("logoformer", "bench-compare", before, before),
        )
    if before.is_dir():
        changes = compare_bundles(
            SideBySideConfig(before, after, a.iterations, a.threads, a.precision, a.backend, a.seed, a.margin), bar
        )
    else:
        changes = compare_reports(read_report(before), read_report(after), a.margin)
    show(a, bar, changes.to_json(), changes_text(changes))
    return EXIT_REGRESSION if changes.regressions else 0


def _fieldtest(a: argparse.Namespace, bar: Bar) -> int:
    from ..benchmarks.field.check import check_kit
    from ..benchmarks.field.run import fieldtest

    if a.check:
        found = check_kit(a.check)
        return show(a, bar, found.to_json(), "\n".join([*found.lines(), "The kit holds together."]))
    if not a.bundle or not a.out:
        raise UsageError(
            "fieldtest needs a bundle and a place for the kit.",
            next=command("logoformer", "fieldtest", a.bundle or "BUNDLE", "-o", "kit.zip"),
        )
    fieldtest(a.bundle, a.out, progress=bar, say=say(a, bar))
    found = check_kit(a.out)
    return show(a, bar, {"kit": a.out, **found.to_json()}, f"{a.out} is written, and holds together.")


def add(verb: AddVerb) -> None:
    """Adds these verbs to the parser."""
    p = verb(
        "run", _run, "answer on a video, a folder of frames or a camera", "logoformer run face.bundle clip.mp4 --hop 4"
    )
    p.add_argument("bundle")
    shown = "a video file, a folder of frames, a camera's index, rtsp://..., http://..., gst:PIPELINE or csi:0"
    p.add_argument("source", help=shown)
    shown = "whole (default): the frame as it is; center: the square in its middle; detect: every face in it"
    choice_option(p, "--face", choices.FACES, "F", shown, "whole")
    p.add_argument("--hop", type=int, default=4, metavar="N", help="frames from one answer to the next; default 4")
    shown = "wait (default) for a full span, or repeat the first frame"
    choice_option(p, "--warmup", choices.WARMUPS, "W", shown, "wait")
    p.add_argument("--fps", type=real_between(0.001, 1000), metavar="X", help="for a folder of frames")
    p.add_argument("-o", "--out", metavar="MP4", help="also write a video with the answers drawn in")
    overwrite_option(p)
    p.add_argument(
        "--selftest", action="store_true", help="answer the golden clips first; exit code 5 if an answer is wrong"
    )
    runtime_options(p)

    verb("doctor", _doctor, "check this machine, and say how to fix what does not work", "logoformer doctor")

    p = verb("selftest", _selftest, "answer the golden clips on this device", "logoformer selftest face.bundle")
    p.add_argument("bundle")
    runtime_options(p)

    p = verb("demo", _demo, "synthesize, train, export, build and measure, without a GPU", "logoformer demo -o demo")
    p.add_argument("-o", "--out", default="demo", metavar="DIR", help="default: demo")
    seed_option(p)

    p = verb("bench", _bench, "measure latency on this machine", "logoformer bench face.bundle -o report.json")
    p.add_argument("bundle")
    p.add_argument("-o", "--out", metavar="OUT", help="write report.json and report.html: a folder, or the JSON's name")
    overwrite_option(p)
    p.add_argument("--readme", metavar="MD", help="put the table between the markers of this file")
    p.add_argument(
        "--iterations",
        type=whole_between(1, 10**9),
        default=140,
        metavar="N",
        help="timed results of each; default 140",
    )
    p.add_argument(
        "--warmup", type=whole_between(0, 10**9), default=10, metavar="N", help="untimed results before; default 10"
    )
    p.add_argument(
        "--mode", type=comma_list(choices.MODES), default=("closed",), metavar="M,...",
        help="closed (default), paced, multi, offline, cold, idle; several with commas",
    )  # fmt: skip
    p.add_argument(
        "--rate",
        type=real_between(0.001, 10_000),
        metavar="HZ",
        help="paced: frames per second; default: as in training",
    )
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
    p.add_argument("--camera", metavar="VIDEO", help="time the stages of watch on a video with faces, and nothing else")
    shown = "which GPU, by its number; default 0. With --roofline: only the devices whose name holds this"
    p.add_argument("--device", metavar="N", help=shown)
    strict_option(p)
    p.add_argument("--compare", choices=["trtexec"], help="also run trtexec on the bundle's engines, if installed")
    backend_option(p, "onnxruntime")
    precision_option(p)
    threads_option(p)
    seed_option(p)

    example = "logoformer bench-compare before.json after.json"
    p = verb("bench-compare", _compare, "compare two reports or two bundles; exit code 1 on a regression", example)
    p.add_argument("before", metavar="A", help="a report; or a bundle: both are then timed here, in one run")
    p.add_argument("after", metavar="B", help="the same kind")
    p.add_argument("--margin", type=float, default=0.005, metavar="SHARE", help="slowdown that counts; default 0.005")
    p.add_argument(
        "--iterations",
        type=whole_between(1, 10**9),
        default=640,
        metavar="N",
        help="bundles: timed results; default 640",
    )
    backend_option(p, "onnxruntime")
    precision_option(p)
    threads_option(p)
    seed_option(p)

    p = verb(
        "fieldtest", _fieldtest, "measure a bundle on this machine, into a file that can be sent",
        "logoformer fieldtest face.bundle -o kit.zip",
    )  # fmt: skip
    p.add_argument("bundle", nargs="?", help="engines are built into it; not needed with --check")
    p.add_argument("-o", "--out", metavar="ZIP", help="the kit; what is done so far is kept in ZIP.part")
    overwrite_option(p)
    p.add_argument("--check", metavar="ZIP", help="run nothing: check a kit; exit code 4 if it does not hold together")
