"""The verbs label, triton and triton-check."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from .. import __version__
from ..errors import UsageError
from . import choices
from .options import (
    AddVerb,
    backend_option,
    choice_option,
    engines_dir_option,
    overwrite_option,
    precision_option,
    runtime_arguments,
    runtime_options,
    show,
    threads_option,
)
from .terminal import Bar


def _triton(a: argparse.Namespace, bar: Bar) -> int:
    from ..bundle import Bundle
    from ..engine.sessions.backends import CPU_BACKENDS
    from ..serving.repository import write_models
    from ..serving.settings import TritonConfig

    config = TritonConfig(
        hop=a.hop, warmup=a.warmup, instances=a.instances, idle_s=a.idle, name=a.name,
        backend=a.backend, precision=a.precision, threads=a.threads,
    )  # fmt: skip
    done = write_models(Bundle(a.bundle), a.out, config, a.engines_dir)
    lines = [
        f"{done.folder}: {', '.join(done.models)}; a copy of the bundle in each ({done.bundle_bytes / 1e6:.1f} MB)"
    ]
    lines.append(
        f"capacity: {done.instances} instances x {done.faces} faces = {done.capacity} streams at once"
        f"{'' if a.backend in CPU_BACKENDS else ', on each GPU that Triton uses'}; one more waits until another ends"
    )
    wheel = f"logoformer-{__version__}-py3-none-any.whl[cpu]"
    lines.append(f"Next: in the container, pip install '{wheel}', then tritonserver --model-repository=...")
    return show(a, bar, {**asdict(done), "capacity": done.capacity}, "\n".join(lines))


def _check(a: argparse.Namespace, bar: Bar) -> int:
    from ..serving.check import check_triton

    found = check_triton(a.url, a.name, a.timeout)
    text = f"{found.url}: golden clip off by {found.share:.4%} of the deviation between clips, {found.clip_ms:.1f} ms; "
    return show(a, bar, found.to_json(), f"{text}stream: {found.stream}")


def _label(a: argparse.Namespace, bar: Bar) -> int:
    from ..engine import load
    from ..workflows.label import LabelConfig, PlainLabeller, RayConfig, RayLabeller, label_archive

    config = LabelConfig(a.face, a.hop, a.warmup)
    if a.ray is None:
        if a.actors is not None:
            raise UsageError("--actors counts actors of Ray.", next="give --ray as well, or leave --actors out")
        with load(a.bundle, **runtime_arguments(a)) as runtime:
            done = label_archive(PlainLabeller(runtime, config), a.sources, a.out, bar, overwrite=a.overwrite)
    else:
        with RayLabeller(a.bundle, runtime_arguments(a), config, RayConfig(a.ray, a.actors)) as labeller:
            done = label_archive(labeller, a.sources, a.out, bar, overwrite=a.overwrite)
    resumed = f", {done.resumed} of them by an earlier run" if done.resumed else ""
    lines = [f"{done.out}: {done.recordings} recordings{resumed}, {done.answers} answers, {len(done.damaged)} damaged"]
    if done.resumed == done.recordings:
        lines.append("  nothing was left to answer; --overwrite answers anew")
    else:
        lines.append(f"  {done.recordings - done.resumed} recordings in {done.seconds:.1f} s")
        if done.ray is not None:
            lines[-1] += (
                f" by {done.ray['processes']} processes of Ray {done.ray['version']} ({done.ray['actors']} actors); "
                f"before that ray.init {done.ray['init_s']:.1f} s, start of an actor {done.ray['start_s']:.1f} s"
            )
    lines += [f"  {path}: {what}" for path, what in done.damaged]
    return show(a, bar, done.to_json(), "\n".join(lines))


def add(verb: AddVerb) -> None:
    """Adds these verbs to the parser."""
    p = verb(
        "label", _label, "answer an archive of recordings into one file; an interrupted run goes on",
        "logoformer label face.bundle videos/ -o answers.parquet",
    )  # fmt: skip
    p.add_argument("bundle")
    shown = "a video file, a folder of frames, or a folder that holds such at any depth"
    p.add_argument("sources", nargs="+", metavar="source", help=shown)
    p.add_argument("-o", "--out", required=True, metavar="FILE", help="a .jsonl or .parquet file")
    overwrite_option(p)
    shown = "detect (default) finds and follows faces; center: the square in the middle; whole: one answer a recording"
    choice_option(p, "--face", choices.FACES, "F", shown, "detect")
    p.add_argument("--hop", type=int, default=4, metavar="N", help="frames from one answer to the next; default 4")
    shown = "wait (default) for a full span, or repeat the first frame"
    choice_option(p, "--warmup", choices.WARMUPS, "W", shown, "wait")
    shown = "on Ray: started on this machine, or a cluster's auto or HOST:PORT; behind the sources"
    p.add_argument("--ray", nargs="?", const="", metavar="ADDRESS", help=shown)
    shown = "processes of Ray with a runtime each; default: one a GPU, else one for each --threads (default 1) cores"
    p.add_argument("--actors", type=int, metavar="N", help=shown)
    runtime_options(p)

    p = verb(
        "triton", _triton, "write a model repository for NVIDIA Triton", "logoformer triton face.bundle -o models/"
    )
    p.add_argument("bundle")
    p.add_argument("-o", "--out", required=True, metavar="DIR", help="the model repository; other models in it stay")
    p.add_argument("--name", default="", metavar="NAME", help="call the models NAME-stream and NAME-clip")
    p.add_argument("--instances", type=int, default=1, metavar="N", help="of each model, on each GPU; default 1")
    p.add_argument("--hop", type=int, default=4, metavar="N", help="frames from one answer to the next; default 4")
    shown = "wait (default) for a full span, or repeat the first frame"
    choice_option(p, "--warmup", choices.WARMUPS, "W", shown, "wait")
    shown = "forget a stream that sent nothing for so long; default 10"
    p.add_argument("--idle", type=float, default=10.0, metavar="S", help=shown)
    backend_option(p, "auto")
    precision_option(p)
    engines_dir_option(p)
    threads_option(p)

    p = verb(
        "triton-check", _check, "ask a Triton for a golden answer; for liveness probes",
        "logoformer triton-check localhost:8001",
    )  # fmt: skip
    p.add_argument("url", help="host and port of gRPC")
    p.add_argument("--name", default="", metavar="NAME", help="as logoformer triton was told")
    shown = "longest wait for each of two answers; default 20; choose more than --idle of logoformer triton"
    p.add_argument("--timeout", type=float, default=20.0, metavar="S", help=shown)
