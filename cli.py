"""The command line: parses, calls one function, prints. No logic.

Every verb takes `--json`. Exit codes are those of `errors.py`. Nothing heavy is imported before a verb is known, so
`--help` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .errors import LogoformerError, MachineError, command, missing_package, printable
from .terminal import Bar, table

EXIT_INTERRUPTED = 130
# Which extra of pyproject brings what a verb imports. The other verbs run on numpy, Pillow and one backend.
EXTRAS = {
    "init": "train", "synth": "train", "train": "train", "evaluate": "train", "export": "export", "demo": "export,rtx",
}  # fmt: skip

Handler = Callable[[argparse.Namespace, Bar], int]


# ---------------------------------------------------------------------------------------------------------------- verbs
def _init(a: argparse.Namespace, bar: Bar) -> int:
    from .model.init import init_checkpoint

    path = init_checkpoint(a.preset, a.out, a.seed, bar)
    return _print(a, bar, {"checkpoint": str(path)}, f"{path}: untrained '{a.preset}', for latency work")


def _synth(a: argparse.Namespace, bar: Bar) -> int:
    from .model.synthetic_layout import synth

    done = synth(a.out, a.kind, seed=a.seed, identities=a.identities, side=a.side, progress=bar)
    return _print(a, bar, done.to_json(), f"{done.path}: {done.clips} clips, {done.frames} frames")


def _train(a: argparse.Namespace, bar: Bar) -> int:
    from .model.train import TrainConfig
    from .verbs import train_on_dfew

    config = TrainConfig(steps=a.steps, batch=a.batch, learning_rate=a.learning_rate, seed=a.seed)
    done = train_on_dfew(a.data, a.out, a.preset, config, fold=a.fold, progress=bar)
    m = done.metrics
    text = f"{done.checkpoint}: UAR {m.uar:.3f}, WAR {m.war:.3f} on held-out clips, {done.duration_s:.0f} s"
    return _print(a, bar, done.to_json(), text)


def _evaluate(a: argparse.Namespace, bar: Bar) -> int:
    from .clips import DFEW_LABELS
    from .verbs import evaluate_on_dfew

    m = evaluate_on_dfew(a.checkpoint, a.data, fold=a.fold, order=a.order, progress=bar)
    rows = [["class", "recall"], *([name, f"{r:.3f}"] for name, r in zip(DFEW_LABELS, m.recalls, strict=True))]
    return _print(a, bar, m.to_json(), f"{table(rows)}\nUAR {m.uar:.4f}  WAR {m.war:.4f}  clips {m.clips}")


def _export(a: argparse.Namespace, bar: Bar) -> int:
    from .export.export import ExportConfig
    from .verbs import export_checkpoint, export_summary

    config = ExportConfig(precisions=tuple(a.precisions), faces=a.faces, max_fps=a.max_fps)
    bundle = export_checkpoint(
        a.checkpoint, a.out, config, data=a.data, fold=a.fold, clips=a.clips, seed=a.seed,
        share_clips=a.share_clips, progress=bar,
    )  # fmt: skip
    lines = [str(bundle.path)]
    lines += [f"  {g.file}  {g.size / 1e6:.2f} MB" for g in bundle.graphs]
    lines += [f"  {name}: {p['verdict']} - {p['reason']}" for name, p in bundle.precisions.items()]
    return _print(a, bar, export_summary(bundle), "\n".join(lines))


def _build(a: argparse.Namespace, bar: Bar) -> int:
    from dataclasses import asdict

    from .engine.build import BuildOptions
    from .engine.build_bundle import build_bundle

    options = BuildOptions(
        target=a.target,
        compute_capabilities=tuple(a.gpus),
        workspace_bytes=a.workspace_mib << 20 if a.workspace_mib else None,
        optimization_level=a.optimization_level,
    )
    done = build_bundle(
        a.bundle, options, precisions=a.precision, graphs=a.graph, per_sm=a.per_sm, plan_sm=a.plan_sm,
        engines_dir=a.engines_dir, progress=bar,
    )  # fmt: skip
    lines = [f"{done.folder}"]
    for e in done.engines:
        lines.append(f"  {e.file}  {e.size / 1e6:.2f} MB  {done.seconds[e.file]:.1f} s  {e.verdict}")
        lines += [f"    left out: {sm}: {why}" for sm, why in done.left_out.get(e.file, {}).items()]
    data = {"folder": str(done.folder), "engines": [asdict(e) for e in done.engines], "left_out": done.left_out}
    return _print(a, bar, data, "\n".join(lines))


def _verify(a: argparse.Namespace, bar: Bar) -> int:
    from .engine.verify import verify

    report = verify(a.bundle, engines_dir=a.engines_dir, threads=a.threads, write=not a.no_write, progress=bar)
    rows = [["what", "precision", "on", "off by", "agree", "verdict"]]
    for r in report.rows:
        share = "" if r.share is None else f"{r.share:.4%}"
        rows.append(
            [r.what, r.precision, r.evaluator, share, "" if r.agreement is None else f"{r.agreement:.0%}", r.verdict]
        )
    note = f"{report.golden_clips} golden clips; 'off by' is a share of the deviation between clips"
    if report.unrecorded:
        note += f"\nNot recorded in the bundle: {printable(report.unrecorded)}"
    _print(a, bar, report.to_json(), f"{table(rows)}\n{note}")
    report.require()
    return 0


def _run(a: argparse.Namespace, bar: Bar) -> int:
    from .camera.run import json_lines, run
    from .camera.sources import open_source
    from .engine import load

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a supervisor's stop ends a run as Ctrl-C does
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(load(a.bundle, precision=a.precision, threads=a.threads))
        fps = engine.bundle.sampling.fps if a.fps is None else a.fps
        source = stack.enter_context(open_source(a.source, fps))
        # The bar would break up the lines where both go to the same terminal.
        progress = None if sys.stdout.isatty() else bar
        done = run(engine, source, a.face, a.hop, a.warmup, a.out, on_result=json_lines(sys.stdout), progress=progress)
    bar.clear()
    where = f"; {done.out}" if done.out else ""
    print(f"{done.frames} frames, {done.results} answers, {done.seconds:.1f} s{where}", file=sys.stderr)
    return EXIT_INTERRUPTED if done.stopped == "interrupt" else 0


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
    return _print(a, bar, report.to_json(), text(report))


def _inspect(a: argparse.Namespace, bar: Bar) -> int:
    from .engine.describe import describe, describe_text, plans, tensors_text

    if a.plan:
        found = plans(a.bundle, graphs=a.graph, precisions=a.precision, sm=a.sm, progress=bar)
        shown = "\n\n".join(f"{name}\n{plan.table()}" for name, plan in found.items())
        return _print(a, bar, {name: plan.summary() for name, plan in found.items()}, shown)
    description = describe(a.bundle, a.engines_dir)
    return _print(a, bar, description, tensors_text(a.bundle) if a.tensors else describe_text(description))


def _demo(a: argparse.Namespace, bar: Bar) -> int:
    from .demo import demo

    report = demo(a.out, seed=a.seed, progress=bar, say=(lambda _: None) if a.json else _say(bar))
    return _print(a, bar, report.to_json(), report.table())


# --------------------------------------------------------------------------------------------------------------- parser
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="logoformer",
        description="LOGO-Former from a PyTorch checkpoint to a camera on an edge GPU.",
        epilog="Exit codes: 2 usage, 3 bad input, 4 refused, 5 verification failed, 6 environment, 7 device lost.",
    )
    parser.add_argument("--version", action="version", version=f"logoformer {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, handler: Handler, help: str, example: str) -> argparse.ArgumentParser:
        p = verbs.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        p.set_defaults(handler=handler)
        p.add_argument("--json", action="store_true", help="print one JSON object instead of text")
        return p

    def data(p: argparse.ArgumentParser, *, required: bool) -> None:
        p.add_argument("--data", required=required, metavar="DIR", help="a data set in DFEW's layout")
        p.add_argument("--fold", type=int, default=1, choices=range(1, 6), help="default 1")

    def seed(p: argparse.ArgumentParser) -> None:
        p.add_argument("--seed", type=int, default=0, help="default 0")

    def threads(p: argparse.ArgumentParser) -> None:
        p.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: the backend's choice")

    def precision(p: argparse.ArgumentParser) -> None:
        p.add_argument("--precision", default="verdict", metavar="P", help="verdict (default), fp32 or fp16")

    def engines_dir(p: argparse.ArgumentParser) -> None:
        p.add_argument("--engines-dir", metavar="DIR", help="where engines live, if not inside the bundle")

    p = verb("init", _init, "write an untrained checkpoint, for latency work", "logoformer init --preset base -o ckpt")
    p.add_argument("--preset", default="base", metavar="NAME", help="base (default), wide or tiny")
    p.add_argument("-o", "--out", required=True, metavar="DIR", help="the checkpoint's folder")
    seed(p)

    p = verb(
        "synth", _synth, "draw synthetic faces: a data set, or a video", "logoformer synth -o faces --identities 100"
    )
    p.add_argument("-o", "--out", required=True, metavar="PATH", help="a folder, or an .mp4 with --kind video")
    p.add_argument("--kind", default="dfew", metavar="K", help="dfew (default): a data set in DFEW's layout; or video")
    p.add_argument("--identities", type=int, default=100, metavar="N", help="people, 14 clips each; default 100")
    p.add_argument("--side", type=int, default=96, metavar="PX", help="side of the pictures; default 96")
    seed(p)

    p = verb("train", _train, "train a preset", "logoformer train --preset tiny --data faces -o ckpt")
    p.add_argument("--preset", default="tiny", metavar="NAME", help="tiny (default), base or wide")
    p.add_argument("-o", "--out", required=True, metavar="DIR", help="the checkpoint's folder")
    data(p, required=True)
    p.add_argument("--steps", type=int, default=800, metavar="N", help="optimiser steps; default 800")
    p.add_argument("--batch", type=int, default=32, metavar="N", help="clips a step; default 32")
    p.add_argument("--learning-rate", type=float, default=2e-3, metavar="X", help="at its highest; default 0.002")
    seed(p)

    p = verb("evaluate", _evaluate, "score a checkpoint: UAR, WAR, recalls", "logoformer evaluate ckpt --data faces")
    p.add_argument("checkpoint", help="a checkpoint folder or .pt file")
    data(p, required=True)
    p.add_argument(
        "--order", default="forward", metavar="O", help="of the frames: forward (default), reversed, shuffled"
    )

    p = verb("export", _export, "turn a checkpoint into a bundle", "logoformer export ckpt -o face.bundle")
    p.add_argument("checkpoint", help="a checkpoint folder or .pt file")
    p.add_argument("-o", "--out", metavar="DIR", help="the bundle; default: CHECKPOINT.bundle")
    p.add_argument("--precisions", nargs="+", default=["fp32", "fp16"], metavar="P", help="default: fp32 fp16")
    p.add_argument("--faces", type=int, default=4, metavar="N", help="streams that share the ring; default 4")
    p.add_argument("--max-fps", type=float, default=30.0, metavar="X", help="fastest camera kept whole; default 30")
    data(p, required=False)
    p.add_argument("--clips", type=int, default=32, metavar="N", help="for ranges and parity; default 32")
    p.add_argument("--share-clips", action="store_true", help="allow clips of --data to be stored in the bundle")
    seed(p)

    p = verb(
        "build", _build, "compile a bundle's graphs to TensorRT engines", "logoformer build face.bundle --target rtx"
    )
    p.add_argument("bundle")
    p.add_argument("--target", default="rtx", metavar="T", help="rtx (default; needs no GPU) or tensorrt (this GPU)")
    p.add_argument("--gpus", nargs="+", default=[], metavar="SM", help="rtx: such as sm86 sm89; default: all six")
    p.add_argument("--per-sm", action="store_true", help="rtx: one engine for each GPU instead of one for all")
    p.add_argument("--precision", nargs="+", default=[], metavar="P", help="default: those that were accepted")
    p.add_argument("--graph", nargs="+", default=[], metavar="G", help="clip, frame, temporal; default: all")
    p.add_argument("--plan-sm", metavar="SM", help="also file the kernel plan for this GPU")
    p.add_argument("--workspace-mib", type=int, metavar="N", help="upper limit of scratch memory")
    p.add_argument("--optimization-level", type=int, choices=range(6), help="the builder's effort")
    engines_dir(p)

    p = verb("verify", _verify, "hold this machine's answers against the golden ones", "logoformer verify face.bundle")
    p.add_argument("bundle")
    p.add_argument("--no-write", action="store_true", help="do not record the verdicts in the bundle")
    engines_dir(p)
    threads(p)

    p = verb(
        "run", _run, "answer on a video, a folder of frames or a camera", "logoformer run face.bundle clip.mp4 --hop 4"
    )
    p.add_argument("bundle")
    p.add_argument("source", help="a video file, a folder of frames, or a camera's index")
    p.add_argument("--face", default="whole", metavar="F", help="whole frame (default), or its center square")
    p.add_argument("--hop", type=int, default=4, metavar="N", help="frames from one answer to the next; default 4")
    p.add_argument(
        "--warmup", default="wait", metavar="W", help="wait (default) for a full span, or repeat the first frame"
    )
    p.add_argument("--fps", type=float, metavar="X", help="for a folder of frames")
    p.add_argument("-o", "--out", metavar="MP4", help="also write a video with the answers drawn in")
    precision(p)
    threads(p)

    p = verb("bench", _bench, "measure latency on this machine's CPU", "logoformer bench face.bundle -o report.json")
    p.add_argument("bundle")
    p.add_argument("-o", "--out", metavar="JSON", help="write the report")
    p.add_argument("--readme", metavar="MD", help="put the table between the markers of this file")
    p.add_argument("--iterations", type=int, default=140, metavar="N", help="timed results of each; default 140")
    p.add_argument("--warmup", type=int, default=10, metavar="N", help="untimed results before; default 10")
    precision(p)
    threads(p)
    seed(p)

    p = verb("inspect", _inspect, "show what is in a bundle", "logoformer inspect face.bundle --plan --graph temporal")
    p.add_argument("bundle")
    p.add_argument("--tensors", action="store_true", help="names, types and shapes of all inputs and outputs")
    p.add_argument("--plan", action="store_true", help="compile with TensorRT-RTX (no GPU needed) and list the kernels")
    p.add_argument("--graph", nargs="+", default=[], metavar="G", help="with --plan: which; default: all")
    p.add_argument("--precision", nargs="+", default=[], metavar="P", help="with --plan: which; default: all")
    p.add_argument("--sm", default="sm86", metavar="SM", help="with --plan: for which GPU; default sm86")
    engines_dir(p)

    p = verb("demo", _demo, "the whole way on synthetic faces, without a GPU", "logoformer demo -o demo")
    p.add_argument("-o", "--out", default="demo", metavar="DIR", help="default: demo")
    seed(p)
    return parser


# ----------------------------------------------------------------------------------------------------------------- main
def main(argv: Sequence[str] | None = None) -> int:
    """The entry point. Returns the exit code."""
    a = _parser().parse_args(argv)
    bar = Bar(quiet=a.json)
    handler: Handler = a.handler
    try:
        return handler(a, bar)
    except (LogoformerError, ModuleNotFoundError) as raised:
        return _fail(a, bar, raised if isinstance(raised, LogoformerError) else _missing(a.verb, raised))
    except KeyboardInterrupt:
        bar.clear()
        print(f"logoformer {a.verb}: interrupted; what stood on the disk before is unchanged", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _settle_output()
        return 0
    except MemoryError:
        return _fail(a, bar, MachineError("This machine ran out of memory.", next="end other programs, then run again"))
    except OSError as error:  # such as a full disk behind a redirected standard output
        return _fail(a, bar, MachineError(f"The operating system reports: {error}.", next="df -h"))


def _settle_output() -> None:
    """Lets go of output that cannot be written; the interpreter would complain of it once more at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(a: argparse.Namespace, bar: Bar, error: LogoformerError) -> int:
    bar.clear()
    _settle_output()
    error.next = error.next or command("logoformer", a.verb, "--help")
    print(json.dumps(error.to_json()) if a.json else f"logoformer {a.verb}: {error}", file=sys.stderr)
    return error.exit_code


def _missing(verb: str, error: ModuleNotFoundError) -> MachineError:
    module = (error.name or "").partition(".")[0]
    if verb not in EXTRAS or module in ("", __package__):
        raise error  # a fault of ours, not of the installation
    return missing_package(module, EXTRAS[verb], f"The verb {verb}")


def _print(a: argparse.Namespace, bar: Bar, data: Any, text: str) -> int:
    bar.clear()
    # Labels, verdicts and names come from files: they may not move the cursor.
    shown = "\n".join(printable(line, 1 << 20) for line in text.split("\n"))
    # Flushed here: at the interpreter's end nobody could say any more that the disk behind it is full.
    print(json.dumps(data, allow_nan=False) if a.json else shown, flush=True)
    return 0


def _say(bar: Bar) -> Callable[[str], None]:
    def say(line: str) -> None:
        bar.clear()
        print(line, flush=True)

    return say


if __name__ == "__main__":
    sys.exit(main())
