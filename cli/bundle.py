"""The verbs export, quantize, build, verify, trust and inspect."""

from __future__ import annotations

import argparse
import signal
from typing import TYPE_CHECKING

from ..errors import UsageError, command, printable
from . import choices
from .options import (
    AddVerb,
    choice_option,
    data_option,
    device_option,
    engines_dir_option,
    handling,
    overwrite_option,
    seed_option,
    several_option,
    show,
    strict_option,
    threads_option,
)
from .parser import whole_between
from .terminal import Bar

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..workflows.quantize import Calibration

_SMS = ", ".join(choices.RTX_SMS)  # not choices of the parser: the library's error says what other GPUs take


@handling(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no folder without an index stays behind
def _export(a: argparse.Namespace, bar: Bar) -> int:
    from ..export.exporter import ExportConfig
    from ..workflows.export import export_checkpoint, export_summary

    config = ExportConfig(
        precisions=tuple(p for p in a.precisions if p != "int8"), faces=a.faces, max_fps=a.max_fps,
        batches=tuple(a.batches),
    )  # fmt: skip
    calibration = _calibration(a, a.calibration) if a.calibration or "int8" in a.precisions else None
    bundle = export_checkpoint(
        a.checkpoint, a.out, config, data=a.data, fold=a.fold, clips=a.clips, seed=a.seed,
        share_clips=a.share_clips, align_from=a.align_from, calibration=calibration, progress=bar,
    )  # fmt: skip
    return show(a, bar, export_summary(bundle), _exported(bundle), _judged(bundle))


def _quantize(a: argparse.Namespace, bar: Bar) -> int:
    from ..workflows.export import export_summary
    from ..workflows.quantize import quantize

    calibration = _calibration(a, a.data)
    if a.sensitivity is None:
        bundle = quantize(a.bundle, calibration, bar)
        return show(a, bar, export_summary(bundle), _exported(bundle), _judged(bundle))
    from ..benchmarks.report.text_tables import table
    from ..calibration.sensitivity import sensitivity_table
    from ..workflows.sensitivity import quantize_sensitively

    bundle, found = quantize_sensitively(a.bundle, calibration, a.sensitivity, progress=bar)
    data = {**export_summary(bundle), "sensitivity": found.to_json()}
    return show(a, bar, data, f"{table(sensitivity_table(found))}\n{_exported(bundle)}", _judged(bundle))


def _calibration(a: argparse.Namespace, data: str | None) -> Calibration:
    from ..calibration.quantize import QuantizeConfig
    from ..workflows.quantize import Calibration

    config = QuantizeConfig(a.method, tuple(a.exclude), not a.no_attention, not a.no_fold)
    return Calibration(data, a.fold, a.calibration_clips, a.seed, a.few, config)


def _aligned(bundle: Bundle) -> str:
    found = bundle.alignment
    if found is None:
        return "none; crops are squares around the box that a detector gives"
    shown = printable(found.source)
    return f"learned from {found.crops} crops of {shown}" if found.calibrated else f"uncalibrated, default of {shown}"


def _exported(bundle: Bundle) -> str:
    lines = [str(bundle.path), f"  alignment: {_aligned(bundle)}"]
    lines += [f"  {g.file}  {g.size / 1e6:.2f} MB" for g in bundle.graphs]
    return "\n".join([*lines, *_verdicts(bundle)])


def _judged(bundle: Bundle) -> str:
    return "\n".join([str(bundle.path), *_verdicts(bundle)])


def _verdicts(bundle: Bundle) -> list[str]:
    return [f"  {name}: {p['verdict']} - {p['reason']}" for name, p in bundle.precisions.items()]


@handling(signal.SIGTERM, signal.default_int_handler)  # SIGTERM from a supervisor ends a build as Ctrl-C does
def _build(a: argparse.Namespace, bar: Bar) -> int:
    from dataclasses import asdict

    from ..engine.builder.bundle import build_bundle
    from ..engine.builder.compile import BuildOptions
    from ..engine.machine.environment import target_here

    options = BuildOptions(
        target=a.target or target_here(),
        compute_capabilities=tuple(a.gpus),
        workspace_bytes=a.workspace_mib << 20 if a.workspace_mib else None,
        optimization_level=a.optimization_level,
        hardware_compatible=a.hardware_compatible,
        device=a.device,
    )
    done = build_bundle(
        a.bundle, options, precisions=a.precision, graphs=a.graph, per_sm=a.per_sm, plan_sm=a.plan_sm,
        engines_dir=a.engines_dir, allow_fallback=a.allow_fallback, progress=bar,
    )  # fmt: skip
    lines = [f"{done.folder}"]
    for e in done.engines:
        lines.append(f"  {e.file}  {e.size / 1e6:.2f} MB  {done.seconds[e.file]:.1f} s  {e.verdict}")
        lines += [f"    left out: {sm}: {why}" for sm, why in done.left_out.get(e.file, {}).items()]
    lines += [f"NOTE: {note}" for note in done.notes]
    data = {"folder": str(done.folder), "engines": [asdict(e) for e in done.engines], "left_out": done.left_out}
    data["notes"] = list(done.notes)
    return show(a, bar, data, "\n".join(lines))


def _verify(a: argparse.Namespace, bar: Bar) -> int:
    if a.accuracy:
        return _accuracy(a, bar)
    if len(a.bundle) > 1 or a.fold == choices.ALL_FOLDS:
        raise UsageError(
            "Several bundles, or all folds, are for the accuracy gate.",
            next=command("logoformer", "verify", a.bundle[0], "--accuracy", "--data", "DIR"),
        )
    (a.bundle,) = a.bundle
    if a.layers is not None:
        return _layers(a, bar)
    from ..benchmarks.report.text_tables import table
    from ..engine.verify import verify

    report = verify(
        a.bundle, engines_dir=a.engines_dir, threads=a.threads, device=a.device, strict=a.strict,
        write=not a.no_write, progress=bar,
    )  # fmt: skip
    rows = [["what", "precision", "on", "off by", "agree", "verdict"]]
    for r in report.rows:
        share = "" if r.share is None else f"{r.share:.4%}"
        rows.append(
            [r.what, r.precision, r.evaluator, share, "" if r.agreement is None else f"{r.agreement:.0%}", r.verdict]
        )
    note = f"{report.golden_clips} golden clips; 'off by' is a share of the deviation between clips"
    for why in dict.fromkeys(r.why_not for r in report.rows if r.why_not):
        note += f"\nNot run here: {printable(why)}"
    if report.unrecorded:
        note += f"\nNot recorded in the bundle: {printable(report.unrecorded)}"
    show(a, bar, report.to_json(), f"{table(rows)}\n{note}")
    report.require()
    return 0


def _accuracy(a: argparse.Namespace, bar: Bar) -> int:
    from ..benchmarks.report.text_tables import table
    from ..workflows.verify import accuracy_rows, judge_on_data, judge_on_folds

    first, *others = a.bundle
    if not a.data:
        raise UsageError(
            "The accuracy gate needs labelled clips that the model was not trained on.",
            next=command("logoformer", "verify", first, *others, "--accuracy", "--data", "DIR"),
        )
    if a.fold == choices.ALL_FOLDS:
        report = judge_on_folds(a.bundle, a.data, budget_points=a.budget, write=not a.no_write, progress=bar)
    elif others:
        raise UsageError(
            f"{len(a.bundle)} bundles are those of all folds; --fold {a.fold} judges one.",
            next=command("logoformer", "verify", first, *others, "--accuracy", "--data", a.data, "--fold", "all"),
        )
    else:
        report = judge_on_data(first, a.data, fold=a.fold, budget_points=a.budget, write=not a.no_write, progress=bar)
    lines = [table(accuracy_rows(report))]
    for name, row in report.precisions.items():
        lines.append(f"{name}: {row['verdict']} - {row['reason']}")
        changed = [w for w in row["worst"] if w["before"] != w["after"]]
        lines += [f"  {w['clip']} ({w['label']}): {w['before']} -> {w['after']}" for w in changed[:5]]
    for row in report.backends:
        lines.append(f"{row['precision']} on {row['evaluator']}: {row['verdict']} - {row['reason']}")
    lines.append(f"{report.source['clips']} clips of {report.source['name']}; {report.evaluator}")
    return show(a, bar, report.to_json(), "\n".join(lines))


def _layers(a: argparse.Namespace, bar: Bar) -> int:
    from ..benchmarks.report.text_tables import table
    from ..workflows.verify import explain_layers

    reports = explain_layers(a.bundle, a.layers, progress=bar)
    lines = []
    for r in reports:
        highest = sorted(r.layers, key=lambda item: -item.error)[:8]
        rows = [["layer", "relative error"], *([item.layer, f"{item.error:.3%}"] for item in highest)]
        first = f"leaves FP32 first at {r.first}" if r.first else f"no layer is off by more than {r.threshold:.0%}"
        lines += [f"{r.graph} {r.precision}: {first}; {r.evaluator}", table(rows), ""]
    lines.append(f"Tables and pictures of all layers: {a.layers}")
    return show(a, bar, [r.to_json() for r in reports], "\n".join(lines))


def _trust(a: argparse.Namespace, bar: Bar) -> int:
    from ..engine.trust.manage import manage

    done = manage(a.file, add_key=a.add_key, name=a.name, sign=a.sign, key=a.key, remove=a.remove, list_all=a.list)
    return show(a, bar, done.data, "\n".join(done.lines))


def _inspect(a: argparse.Namespace, bar: Bar) -> int:
    if a.complexity:
        return _complexity(a, bar)
    if a.preset or a.frames or a.sizes or a.out:
        raise UsageError("--preset, --frames, --sizes and --out go with --complexity.", next="add --complexity")
    if a.bundle is None:
        raise UsageError("inspect needs a bundle.", next=command("logoformer", "inspect", "BUNDLE"))
    from ..engine.describe import describe, describe_text, proofs, tensors, tensors_text

    if a.tensors:
        return show(a, bar, tensors(a.bundle), tensors_text(a.bundle))
    if a.plan:
        found = proofs(a.bundle, graphs=a.graph, precisions=a.precision, sm=a.sm, progress=bar)
        shown = "\n\n".join(f"{name}\n{proof.table()}" for name, proof in found.items())
        return show(a, bar, {name: proof.summary() for name, proof in found.items()}, shown)
    description = describe(a.bundle, a.engines_dir)
    return show(a, bar, description, describe_text(description))


def _complexity(a: argparse.Namespace, bar: Bar) -> int:
    from ..workflows.complexity import complexity_text, inspect_complexity

    costs = inspect_complexity(a.bundle, a.preset, frames=a.frames, sizes=a.sizes, out=a.out, progress=bar)
    return show(a, bar, costs.to_json(), complexity_text(costs))


def _int8_options(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--calibration-clips",
        type=whole_between(1, 1_000_000),
        default=128,
        metavar="N",
        help="to calibrate on; default 128",
    )
    p.add_argument("--few", action="store_true", help="accept fewer than 64 calibration clips")
    shown = "how ranges are chosen: auto (default: the best for each part), max, entropy, percentile or mse"
    choice_option(p, "--method", choices.METHODS, "M", shown, "auto")
    p.add_argument("--exclude", nargs="+", default=[], metavar="GROUP", help="left in FP16, such as block0.ffn")
    p.add_argument("--smooth", action="store_true", help="does nothing: scales are always moved into weights")
    p.add_argument("--no-attention", action="store_true", help="leave the products of attention in FP16")
    p.add_argument("--no-fold", action="store_true", help="store FP32 weights behind Q and DQ, not INT8 ones")


def add(verb: AddVerb) -> None:
    """Adds these verbs to the parser."""
    p = verb("export", _export, "turn a checkpoint into a bundle", "logoformer export ckpt -o face.bundle")
    p.add_argument("checkpoint", help="a checkpoint folder or .pt file")
    p.add_argument("-o", "--out", metavar="DIR", help="the bundle; default: CHECKPOINT.bundle")
    shown = "fp32, fp16, int8; default: fp32 fp16"
    several_option(p, "--precisions", choices.PRECISIONS, "P", shown, ("fp32", "fp16"))
    p.add_argument("--faces", type=int, default=4, metavar="N", help="streams that share the ring; default 4")
    p.add_argument("--max-fps", type=float, default=30.0, metavar="X", help="fastest camera kept whole; default 30")
    p.add_argument(
        "--batches", "--frame-batches", type=int, nargs="+", default=[], choices=choices.BATCHES, metavar="B",
        help="2, 4, 8: several faces in one call",
    )  # fmt: skip
    data_option(p, required=False)
    p.add_argument(
        "--clips", type=whole_between(1, 1_000_000), default=32, metavar="N", help="for ranges and parity; default 32"
    )
    p.add_argument("--share-clips", action="store_true", help="allow clips of --data to be stored in the bundle")
    shown = "crops that the model was trained on, to align a camera's like them; default: those of --data"
    p.add_argument("--align-from", metavar="DIR", help=shown)
    p.add_argument("--calibration", metavar="DIR", help="add INT8, calibrated on this data set in DFEW's layout")
    _int8_options(p)
    seed_option(p)

    p = verb(
        "quantize", _quantize, "add INT8 to a bundle, calibrated on real clips",
        "logoformer quantize face.bundle --data faces",
    )  # fmt: skip
    p.add_argument("bundle")
    data_option(p, required=False)
    _int8_options(p)
    p.add_argument(
        "--sensitivity", metavar="DIR", help="measure each group, exclude until the budget holds; table, picture here"
    )
    overwrite_option(p)
    seed_option(p)

    p = verb(
        "build", _build, "compile a bundle's graphs to TensorRT engines", "logoformer build face.bundle --target rtx"
    )
    p.add_argument("bundle")
    shown = "rtx (needs no GPU) or tensorrt (this GPU); default: tensorrt on a Jetson or H100, else rtx"
    choice_option(p, "--target", choices.TARGETS, "T", shown)
    p.add_argument("--gpus", nargs="+", default=[], metavar="SM", help=f"rtx: some of {_SMS}; default: all")
    p.add_argument("--per-sm", action="store_true", help="rtx: one engine for each GPU instead of one for all")
    shown = "fp32, fp16, int8, mixed; default: those that were accepted"
    several_option(p, "--precision", (*choices.PRECISIONS, choices.MIXED), "P", shown)
    several_option(p, "--graph", choices.GRAPHS, "G", "clip, frame, temporal; default: all")
    p.add_argument("--plan-sm", metavar="SM", help=f"also store the kernel plan for one of {_SMS}")
    p.add_argument("--allow-fallback", action="store_true", help="fp16 in place of an int8 graph that does not build")
    p.add_argument("--hardware-compatible", action="store_true", help="tensorrt: for all GPUs from Ampere on; slower")
    p.add_argument(
        "--workspace-mib", type=whole_between(1, 1 << 24), metavar="N", help="scratch memory; default: by what is free"
    )
    p.add_argument("--optimization-level", type=int, choices=range(6), help="the builder's effort")
    device_option(p, "tensorrt: which GPU to build on and for; default 0")
    engines_dir_option(p)

    p = verb("verify", _verify, "compare this machine's answers with the golden ones", "logoformer verify face.bundle")
    p.add_argument("bundle", nargs="+", help="one; with --accuracy --fold all five, one of each fold")
    p.add_argument("--no-write", action="store_true", help="do not record the verdicts in the bundle")
    p.add_argument("--accuracy", action="store_true", help="judge FP16 and INT8 against FP32 on --data's test split")
    data_option(p, required=False, together=True)
    p.add_argument("--layers", metavar="DIR", help="compare every layer with FP32; tables and pictures go to DIR")
    overwrite_option(p)
    p.add_argument("--budget", type=float, metavar="X", help="points of UAR; default 0.5 for FP16, 1 for INT8")
    device_option(p, "which GPU runs the engines; default 0")
    strict_option(p)
    engines_dir_option(p)
    threads_option(p)

    p = verb(
        "trust", _trust, "allow engines that were built elsewhere to run here",
        "logoformer trust face.bundle/engines/rtx1.7.1-sm86/clip.fp16.b1.0123abcd.engine",
    )  # fmt: skip
    p.add_argument("file", nargs="?", help="an engine file: show its hash and origin, and trust it from now on")
    p.add_argument("--add-key", metavar="PUBKEY", help="trust what this Ed25519 key signs (PEM)")
    p.add_argument("--name", default="", metavar="N", help="with --add-key: whose key it is")
    p.add_argument("--sign", metavar="FILE", help="write FILE.sig; needs --key")
    p.add_argument("--key", metavar="PRIVATE", help="with --sign: a private Ed25519 key (PEM, mode 0600)")
    p.add_argument("--list", action="store_true", help="what is trusted now")
    p.add_argument("--remove", metavar="HASH", help="withdraw trust: first digits of an engine's hash or of a key")

    p = verb("inspect", _inspect, "show what is in a bundle", "logoformer inspect face.bundle --plan --graph temporal")
    p.add_argument("bundle", nargs="?", help="optional with --complexity")
    p.add_argument("--tensors", action="store_true", help="names, types, shapes and layouts, for C++ and DeepStream")
    shown = "compile with TensorRT-RTX (no GPU needed), list the kernels, prove the precision"
    p.add_argument("--plan", action="store_true", help=shown)
    several_option(p, "--graph", choices.GRAPHS, "G", "with --plan: clip, frame, temporal; default: all")
    several_option(p, "--precision", choices.PRECISIONS, "P", "with --plan: fp32, fp16, int8; default: all")
    p.add_argument("--sm", default="sm86", metavar="SM", help=f"with --plan: for one of {_SMS}; default sm86")
    p.add_argument(
        "--complexity", action="store_true", help="MACs and measured CPU time of the six attention schemes; minutes"
    )
    shown = "with --complexity and no bundle: of the model: base (default), wide or tiny"
    choice_option(p, "--preset", choices.LOGOFORMER_PRESETS, "NAME", shown)
    p.add_argument("--frames", type=int, nargs="+", default=[], metavar="T", help="with --complexity: frames of a clip")
    p.add_argument(
        "--sizes", type=int, nargs="+", default=[], metavar="PX", help="with --complexity: sides, which set S"
    )
    p.add_argument("-o", "--out", metavar="FILE", help="with --complexity: draw it, as SVG")
    overwrite_option(p)
    engines_dir_option(p)
