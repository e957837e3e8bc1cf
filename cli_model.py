"""The verbs of a researcher: init, synth, train, evaluate."""

from __future__ import annotations

import argparse

from .cli_shared import AddVerb, data_option, seed_option, show
from .errors import UsageError
from .terminal import Bar, table


def _init(a: argparse.Namespace, bar: Bar) -> int:
    from .model.init import init_checkpoint

    path = init_checkpoint(a.preset, a.out, a.seed, bar)
    return show(a, bar, {"checkpoint": str(path)}, f"{path}: untrained '{a.preset}', for latency work")


def _synth(a: argparse.Namespace, bar: Bar) -> int:
    from .model.synthetic_layout import synth

    done = synth(a.out, a.kind, seed=a.seed, identities=a.identities, side=a.side, progress=bar)
    return show(a, bar, done.to_json(), f"{done.path}: {done.clips} clips, {done.frames} frames")


def _train(a: argparse.Namespace, bar: Bar) -> int:
    if a.qat is not None:
        return _fine_tune(a, bar)
    if a.out is None:
        raise UsageError("Training needs a folder for the checkpoint.", next="name it with -o DIR")
    from .model.train import TrainConfig
    from .verbs import train_on_dfew

    given = {"steps": a.steps, "learning_rate": a.learning_rate}
    config = TrainConfig(
        batch=a.batch, seed=a.seed, **{name: value for name, value in given.items() if value is not None}
    )  # fmt: skip
    done = train_on_dfew(a.data, a.out, a.preset, config, fold=a.fold, progress=bar)
    m = done.metrics
    text = f"{done.checkpoint}: UAR {m.uar:.3f}, WAR {m.war:.3f} on held-out clips, {done.duration_s:.0f} s"
    return show(a, bar, done.to_json(), text)


def _fine_tune(a: argparse.Namespace, bar: Bar) -> int:
    from .calibration.qat import QatConfig
    from .tuning import fine_tune_on_dfew

    given = {"steps": a.steps, "learning_rate": a.learning_rate}
    config = QatConfig(
        batch=a.batch, seed=a.seed, **{name: value for name, value in given.items() if value is not None}
    )
    bundle, done = fine_tune_on_dfew(a.qat, a.data, config, fold=a.fold, progress=bar)
    text = (
        f"{bundle.path}: step {done['kept_step']} of {done['steps']} kept; divergence from FP32 "
        f"{done['divergence_before']:.4g} -> {done['divergence_after']:.4g} nats on clips that were held back. "
        "The accuracy gate has to judge it: logoformer verify --accuracy"
    )
    return show(a, bar, {"bundle": str(bundle.path), **done}, text)


def _evaluate(a: argparse.Namespace, bar: Bar) -> int:
    from .clips import DFEW_LABELS
    from .verbs import evaluate_on_dfew

    m = evaluate_on_dfew(a.checkpoint, a.data, fold=a.fold, order=a.order, progress=bar)
    rows = [["class", "recall"], *([name, f"{r:.3f}"] for name, r in zip(DFEW_LABELS, m.recalls, strict=True))]
    return show(a, bar, m.to_json(), f"{table(rows)}\nUAR {m.uar:.4f}  WAR {m.war:.4f}  clips {m.clips}")


def add(verb: AddVerb) -> None:
    """Adds these verbs to the parser."""
    p = verb("init", _init, "write an untrained checkpoint, for latency work", "logoformer init --preset base -o ckpt")
    p.add_argument("--preset", default="base", metavar="NAME", help="base (default), wide or tiny")
    p.add_argument("-o", "--out", required=True, metavar="DIR", help="the checkpoint's folder")
    seed_option(p)

    p = verb(
        "synth", _synth, "draw synthetic faces: a data set, or a video", "logoformer synth -o faces --identities 100"
    )
    p.add_argument("-o", "--out", required=True, metavar="PATH", help="a folder, or an .mp4 with --kind video")
    p.add_argument("--kind", default="dfew", metavar="K", help="dfew (default): a data set in DFEW's layout; or video")
    p.add_argument("--identities", type=int, default=100, metavar="N", help="people, 14 clips each; default 100")
    p.add_argument("--side", type=int, default=96, metavar="PX", help="side of the pictures; default 96")
    seed_option(p)

    p = verb("train", _train, "train a preset", "logoformer train --preset tiny --data faces -o ckpt")
    p.add_argument("--preset", default="tiny", metavar="NAME", help="tiny (default), base or wide")
    p.add_argument("-o", "--out", metavar="DIR", help="the checkpoint's folder")
    p.add_argument("--qat", metavar="BUNDLE", help="fine-tune this bundle's INT8 graphs instead; no -o")
    data_option(p, required=True)
    p.add_argument("--steps", type=int, metavar="N", help="optimiser steps; default 800, with --qat 150")
    p.add_argument("--batch", type=int, default=32, metavar="N", help="clips a step; default 32")
    p.add_argument(
        "--learning-rate", type=float, metavar="X", help="at its highest; default 0.002, with --qat 0.0001"
    )  # fmt: skip
    seed_option(p)

    p = verb("evaluate", _evaluate, "score a checkpoint: UAR, WAR, recalls", "logoformer evaluate ckpt --data faces")
    p.add_argument("checkpoint", help="a checkpoint folder or .pt file")
    data_option(p, required=True)
    p.add_argument(
        "--order", default="forward", metavar="O", help="of the frames: forward (default), reversed, shuffled"
    )
