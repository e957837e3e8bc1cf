"""The verbs init, synth, train, data-check and evaluate."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from pathlib import Path

from ..errors import EXIT_BAD_INPUT, EXIT_OK, UsageError
from . import choices
from .options import AddVerb, choice_option, data_option, handling, overwrite_option, seed_option, show
from .terminal import Bar

_OTHER_PRESETS = "wide, tiny, former-dfer, former-dfer-tiny, mae-dfer or mae-dfer-tiny"


def _init(a: argparse.Namespace, bar: Bar) -> int:
    from ..workflows.init import init_checkpoint

    path = init_checkpoint(a.preset, a.out, a.seed, bar, attention=a.attention)
    return show(a, bar, {"checkpoint": str(path)}, f"{path}: untrained '{a.preset}', for latency work")


@handling(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no half of a data set stays behind
def _synth(a: argparse.Namespace, bar: Bar) -> int:
    from ..model.synthetic.layout import synth

    done = synth(
        a.out, a.kind, seed=a.seed, identities=a.identities, side=a.side, people=a.people, progress=bar
    )  # fmt: skip
    return show(a, bar, done.to_json(), f"{done.path}: {done.clips} clips, {done.frames} frames")


def _train(a: argparse.Namespace, bar: Bar) -> int:
    if a.qat is not None:
        return _fine_tune(a, bar)
    if a.out is None:
        raise UsageError("Training needs a folder for the checkpoint.", next="name it with -o DIR")
    from ..model.training.log import LogOptions
    from ..model.training.recipe import override, recipe
    from ..model.training.train import Start
    from ..workflows.train import train_on

    chosen = recipe(a.recipe)
    config = override(chosen.train, [*a.set, *([f"select={a.select}"] if a.select else ())])
    start = Start(a.trunk, a.trunk_color, a.resume)
    done = train_on(
        a.data, a.out, a.preset or chosen.preset, config, attention=a.attention, fold=a.fold, start=start,
        short=a.short, max_damaged=a.max_damaged, logs=LogOptions(a.tensorboard, bar.note), progress=bar,
    )  # fmt: skip
    m = done.metrics
    lines = [done.trunk.line()] if done.trunk else []
    lines.append(
        f"{done.checkpoint}: UAR {m.uar:.3f} {_interval(m.uar_interval)}, WAR {m.war:.3f} {_interval(m.war_interval)} "
        f"on {m.clips} held-out clips, {done.duration_s:.0f} s on {done.processes} x {done.device}"
    )
    lines.append(f"kept: {done.selected}")
    r = done.reading or {}
    lines += _left_out(sum(r.get("dropped", ())), r.get("damaged", ()))
    return show(a, bar, done.to_json(), "\n".join(lines))


def _fine_tune(a: argparse.Namespace, bar: Bar) -> int:
    from ..calibration.qat import QatConfig
    from ..model.training.recipe import override
    from ..workflows.fine_tune import fine_tune_on

    config = override(QatConfig(), a.set)
    bundle, done = fine_tune_on(a.qat, a.data, config, fold=a.fold, progress=bar)
    if not done["kept_step"]:
        text = (
            f"{bundle.path} is as it was: none of {done['steps']} steps answers more like FP32 than its INT8 "
            f"({done['divergence_before']:.4g} nats on clips that were held back)."
        )
        return show(a, bar, {"bundle": str(bundle.path), **done}, text)
    text = (
        f"{bundle.path}: step {done['kept_step']} of {done['steps']} kept; divergence from FP32 "
        f"{done['divergence_before']:.4g} -> {done['divergence_after']:.4g} nats on clips that were held back. "
        "The accuracy gate has to judge it: logoformer verify --accuracy"
    )
    return show(a, bar, {"bundle": str(bundle.path), **done}, text)


def _evaluate(a: argparse.Namespace, bar: Bar) -> int:
    from ..benchmarks.report.text_tables import table
    from ..workflows.evaluate import evaluate_on, write_evaluation

    if a.tsne and not a.out:
        raise UsageError("--tsne draws a picture; no folder for it is given.", next="name it with -o DIR")
    found = evaluate_on(
        a.checkpoint, a.data, fold=a.fold, order=a.order, views=a.views, short=a.short, max_damaged=a.max_damaged,
        progress=bar,
    )  # fmt: skip
    answers = found.answers
    m = answers.metrics()
    if a.out:
        call = {name: getattr(a, name) for name in ("checkpoint", "fold", "order", "views", "short", "max_damaged")}
        call |= {"data": Path(a.data).name, "checkpoint": [Path(path).name for path in a.checkpoint]}
        plane = (a.checkpoint[0], a.data, a.short, a.max_damaged) if a.tsne else None
        write_evaluation(found, a.out, call, plane=plane, progress=bar)
    rows = [["class", "recall", "clips", *answers.classes]]
    for name, recall, counts in zip(answers.classes, m.recalls, m.confusion, strict=True):
        shown = "-" if recall is None else f"{recall:.3f}"
        rows.append([name, shown, str(sum(counts)), *map(str, counts)])
    lines = [
        table(rows),
        f"UAR {m.uar:.4f} {_interval(m.uar_interval)}  WAR {m.war:.4f} {_interval(m.war_interval)}  "
        f"clips {m.clips} (rows: truth; 95 % intervals over clips)",
    ]
    for part in found.parts:
        if part["selected"]:
            lines.append(f"{part['checkpoint']}, fold {part['fold']}, kept: {part['selected']}")
        lines += _left_out(len(part["dropped"]), part["damaged"])
    return show(a, bar, {**m.to_json(), "classes": list(answers.classes), "parts": list(found.parts)}, "\n".join(lines))


def _left_out(dropped: int, damaged: Sequence[str]) -> list[str]:
    """Lines about the clips and frames that were left out."""
    lines = []
    if dropped:
        lines.append(f"left out: {dropped} clips of fewer frames than the model reads (--short drop)")
    if damaged:
        lines.append(f"{len(damaged)} frames could not be read, their neighbours stood in: {damaged[0]}, ...")
    return lines


def _data_check(a: argparse.Namespace, bar: Bar) -> int:
    if a.speed is not None:
        return _loading_speed(a, bar)
    from ..model.data.check import check_data

    report = check_data(a.data, bar)
    show(a, bar, report.to_json(), report.text())
    return EXIT_BAD_INPUT if report.faults else EXIT_OK


def _loading_speed(a: argparse.Namespace, bar: Bar) -> int:
    from ..model.data.loading import measure_loading
    from ..model.networks.configs import preset
    from ..model.training.recipe import recipe

    chosen = recipe(a.speed)
    model = preset(chosen.preset)
    found = measure_loading(
        a.data, size=model.image_size, sampling=model.sampling, augment=chosen.train.augment, progress=bar
    )
    return show(a, bar, found.to_json(), found.text())


def _interval(bounds: tuple[float, float]) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _reading_options(p: argparse.ArgumentParser) -> None:
    shown = "short clips: former (default), pad, repeat or drop"
    choice_option(p, "--short", choices.SHORT_CLIPS, "P", shown, "former")
    p.add_argument("--max-damaged", type=int, default=0, metavar="N", help="unreadable frames allowed; default 0")


def _attention_option(p: argparse.ArgumentParser) -> None:
    choice_option(p, "--attention", choices.ATTENTIONS, "A", "logo (default), joint, space, divided, mixing or lgi")


def add(verb: AddVerb) -> None:
    """Adds these verbs to the parser."""
    p = verb("init", _init, "write an untrained checkpoint, for latency work", "logoformer init --preset base -o ckpt")
    choice_option(p, "--preset", choices.PRESETS, "NAME", f"base (default), {_OTHER_PRESETS}", "base")
    p.add_argument("-o", "--out", required=True, metavar="DIR", help="the checkpoint's folder")
    overwrite_option(p)
    _attention_option(p)
    seed_option(p)

    p = verb(
        "synth", _synth, "draw synthetic faces: a data set, or a video", "logoformer synth -o faces --identities 100"
    )
    p.add_argument("-o", "--out", required=True, metavar="PATH", help="a folder, or an .mp4 with --kind video or scene")
    overwrite_option(p)
    shown = "dfew (default), ferv39k: a data set in that layout; video: one face; scene: people who walk about"
    choice_option(p, "--kind", choices.KINDS, "K", shown, "dfew")
    p.add_argument("--identities", type=int, default=100, metavar="N", help="people, 14 clips each; default 100")
    p.add_argument("--people", type=int, default=2, metavar="N", help="people of a scene, 1 to 3; default 2")
    p.add_argument("--side", type=int, default=96, metavar="PX", help="side of the pictures; default 96")
    seed_option(p)

    p = verb("train", _train, "train a recipe", "logoformer train --recipe synthetic-tiny --data faces -o ckpt")
    shown = "synthetic-tiny (default), paper-dfew or paper-ferv39k: settings, saved with the result"
    choice_option(p, "--recipe", choices.RECIPES, "NAME", shown, "synthetic-tiny")
    choice_option(p, "--preset", choices.PRESETS, "NAME", f"default: the recipe's; base, {_OTHER_PRESETS}")
    _attention_option(p)
    p.add_argument("-o", "--out", metavar="DIR", help="the checkpoint's folder")
    overwrite_option(p)
    p.add_argument("--qat", metavar="BUNDLE", help="fine-tune this bundle's INT8 graphs instead; no -o")
    data_option(p, required=True)
    _reading_options(p)
    p.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="any field of the recipe"
    )
    shown = "which weights are kept: last, validation or test-fold; as --set select="
    choice_option(p, "--select", choices.SELECTIONS, "HOW", shown)
    p.add_argument("--trunk", metavar="FILE", help="pre-trained ResNet-18 weights; under 95 %% matched is an error")
    choice_option(p, "--trunk-color", choices.COLORS, "C", "rgb (default) or bgr: what they were trained on", "rgb")
    p.add_argument("--tensorboard", metavar="DIR", help="also write event files for TensorBoard there")
    p.add_argument("--resume", action="store_true", help="continue an interrupted training of the same checkpoint")

    p = verb("data-check", _data_check, "find what is wrong with a data set", "logoformer data-check --data faces")
    p.add_argument("--data", required=True, metavar="DIR", help="a data set; every frame is decoded")
    p.add_argument(
        "--speed", nargs="?", const="paper-dfew", choices=choices.RECIPES, metavar="RECIPE",
        help="measure instead how many clips a core reads in a second for paper-dfew (default), paper-ferv39k or "
        "synthetic-tiny",
    )  # fmt: skip

    p = verb("evaluate", _evaluate, "score a checkpoint: UAR, WAR, recalls", "logoformer evaluate ckpt --data faces")
    p.add_argument("checkpoint", nargs="+", help="a checkpoint; five, of folds 1 to 5, are pooled as published")
    data_option(p, required=True, fold=None)
    _reading_options(p)
    p.add_argument("-o", "--out", metavar="DIR", help="write result.json with every clip's scores, and pictures")
    overwrite_option(p)
    p.add_argument("--tsne", action="store_true", help="with -o: also draw the clips' features on a plane")
    p.add_argument(
        "--views", type=int, metavar="N", help="clips taken of each recording; default: the model's own rule"
    )
    shown = "of the frames: forward (default), reversed, shuffled"
    choice_option(p, "--order", choices.ORDERS, "O", shown, "forward")
