"""The verbs of a researcher: init, synth, train, evaluate."""

from __future__ import annotations

import argparse

from .cli_shared import AddVerb, data_option, seed_option, show
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
    from .model.train import TrainConfig
    from .verbs import train_on_dfew

    config = TrainConfig(steps=a.steps, batch=a.batch, learning_rate=a.learning_rate, seed=a.seed)
    done = train_on_dfew(a.data, a.out, a.preset, config, fold=a.fold, progress=bar)
    m = done.metrics
    text = f"{done.checkpoint}: UAR {m.uar:.3f}, WAR {m.war:.3f} on held-out clips, {done.duration_s:.0f} s"
    return show(a, bar, done.to_json(), text)


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
    p.add_argument("-o", "--out", required=True, metavar="DIR", help="the checkpoint's folder")
    data_option(p, required=True)
    p.add_argument("--steps", type=int, default=800, metavar="N", help="optimiser steps; default 800")
    p.add_argument("--batch", type=int, default=32, metavar="N", help="clips a step; default 32")
    p.add_argument("--learning-rate", type=float, default=2e-3, metavar="X", help="at its highest; default 0.002")
    seed_option(p)

    p = verb("evaluate", _evaluate, "score a checkpoint: UAR, WAR, recalls", "logoformer evaluate ckpt --data faces")
    p.add_argument("checkpoint", help="a checkpoint folder or .pt file")
    data_option(p, required=True)
    p.add_argument(
        "--order", default="forward", metavar="O", help="of the frames: forward (default), reversed, shuffled"
    )
