"""`python -m logoformer.studies.serving`: cost of a frame on a Triton beside a local one.

Writes `benchmarks/results/serving.json` and the tables of docs/serving.md. Three things take turns within one run: a
local `Stream`, the model `stream` of a real tritonserver on this machine, and an *echo*, a model with the same
configuration and the same tensors that computes nothing. ONNX Runtime, FP32, the same threads on both sides. Answers
are compared bit by bit on the way.

The frames of one stream come in all three as a camera's do, one every 40 ms, and then one upon the other. The pace
matters: client, server and model go through a good deal of code for a request, which runs slower when they slept, or
computed something else, since the last one. One upon the other the echo has neither, and a frame that is computed has.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...cli.terminal import Bar
from ...engine import Result, Runtime, load
from ...errors import VerificationError
from ...serving import StreamClient
from ...serving.repository import write_models
from ...serving.settings import TritonConfig
from ..results import FOLDER, measured, read_results, show_results, write_results
from .server import TritonServer, install_triton

RESULTS, PAGE = FOLDER / "serving.json", Path("docs/serving.md")
COMMAND = "python -m logoformer.studies.serving"
HOP, STREAMS, BLOCK = 4, 4, 25
STEP_S = 1 / 25
PACES_S = {"camera": STEP_S, "at_once": 0.0}  # from one frame of one stream to the next
ECHO = """import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        return [self.reply(request) for request in requests]

    def reply(self, request):
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        rows = int(round(given["time_s"][0, 0] * 25) % HOP == 0)
        return pb.InferenceResponse([
            pb.Tensor("probabilities", np.zeros((1, rows, CLASSES), np.float32)),
            pb.Tensor("kept", np.ones((1, 1), np.bool_)),
            pb.Tensor("since", np.zeros((1, 1), np.int64)),
        ])
"""
Push = Callable[[Any, float], Result | None]


def write_echo(models: Path, classes: int) -> None:
    """An echo beside `stream`, with its configuration."""
    shutil.copytree(models / "stream", models / "echo")
    config = models / "echo" / "config.pbtxt"
    config.write_text(config.read_text(encoding="ascii").replace('name: "stream"', 'name: "echo"'), encoding="ascii")
    text = ECHO.replace("HOP", str(HOP)).replace("CLASSES", str(classes))
    (models / "echo" / "1" / "model.py").write_text(text, encoding="ascii")


def lone_stream(
    lanes: Mapping[str, Push], frames: np.ndarray[Any, Any], rounds: int, pace_s: float, bar: Bar
) -> dict[str, Any]:
    """Milliseconds of a frame in each lane, in blocks that take turns.

    Args:
        lanes: `push` of 'local', 'triton' and 'echo', whose streams are new.
        frames: uint8 `[N, H, W, 3]`, one after the other.
        rounds: blocks of each lane.
        pace_s: from one frame to the next, where that was answered by then.
        bar: shows how far it is.

    Raises:
        VerificationError: Triton answered otherwise than the local stream.
    """
    taken: dict[str, list[float]] = {name: [] for name in lanes}
    for number in range(rounds + 1):  # the first warms up
        answers: dict[str, list[Result | None]] = {}
        for name, push in lanes.items():
            found, first, start = [], number * BLOCK, time.perf_counter()
            for place in range(first, first + BLOCK):
                time.sleep(max(0.0, start + (place - first + 1) * pace_s - time.perf_counter()))
                began = time.perf_counter()
                found.append(push(frames[place % len(frames)], place * STEP_S))
                if number:
                    taken[name].append(1e3 * (time.perf_counter() - began))
            answers[name] = found
        for one, other in zip(answers["local"], answers["triton"], strict=True):
            if (one and one.probabilities.tobytes()) != (other and other.probabilities.tobytes()):
                raise VerificationError("Triton answered otherwise than the local stream.")
        bar("one stream", number, rounds)
    figures = {f"{name}_p50_ms": float(np.median(times)) for name, times in taken.items()}
    figures |= {f"{name}_mean_ms": float(np.mean(times)) for name, times in taken.items()}
    figures["allowed_ms"] = figures["local_p50_ms"] + 1.5 * figures["echo_p50_ms"]
    return {"frames": rounds * BLOCK, **figures, "holds": figures["triton_p50_ms"] <= figures["allowed_ms"]}


def several_streams(
    server: TritonServer, runtime: Runtime, frames: np.ndarray[Any, Any], rounds: int, bar: Bar
) -> dict[str, Any]:
    """Frames a second of four streams: all by one local thread, or each by a client of its own."""
    rates: dict[str, list[float]] = {"local": [], "stream": [], "echo": []}
    executions = requests = 0
    count = 4 * BLOCK
    for number in range(rounds):
        streams = [runtime.stream(HOP, color="rgb") for _ in range(STREAMS)]
        began = time.perf_counter()
        for place in range(count):
            for stream in streams:
                stream.push(frames[place % len(frames)], place * STEP_S)
        rates["local"].append(STREAMS * count / (time.perf_counter() - began))
        for stream in streams:
            stream.close()
        for model in ("stream", "echo"):
            before = _counts(server, model)
            rates[model].append(_clients_rate(server, model, frames, count))
            after = _counts(server, model)
            if model == "stream":
                executions += after[0] - before[0]
                requests += after[1] - before[1]
        bar("four streams", number + 1, rounds)
    found: dict[str, Any] = {f"{name}_hz": float(np.median(values)) for name, values in rates.items()}
    found["executions_per_request"] = executions / requests
    found["of_the_slower"] = found["stream_hz"] / min(found["local_hz"], found["echo_hz"])
    found["holds"] = found["executions_per_request"] < 0.7 and found["of_the_slower"] >= 0.9
    return {"streams": STREAMS, "requests": requests, **found}


def _clients_rate(server: TritonServer, model: str, frames: np.ndarray[Any, Any], count: int) -> float:
    clients = [StreamClient(server.url, color="rgb", model=model, timeout_s=60) for _ in range(STREAMS)]
    ready = threading.Barrier(STREAMS + 1)

    def go(client: StreamClient) -> None:
        ready.wait()
        for place in range(count):
            client.push(frames[place % len(frames)], place * STEP_S)

    threads = [threading.Thread(target=go, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    ready.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    rate = STREAMS * count / (time.perf_counter() - began)
    for client in clients:
        client.close()
    return rate


def _counts(server: TritonServer, model: str) -> tuple[int, int]:
    """(executions, requests) of a model so far."""
    stats = json.loads(server.get(f"/v2/models/{model}/stats")[1])["model_stats"][0]
    return int(stats["execution_count"]), int(stats["inference_count"])


def measure_serving(bundle: Path, rounds: int, threads: int, bar: Bar) -> dict[str, Any]:
    """One bundle on both sides."""
    packages = install_triton()
    sys.path.append(os.fspath(packages))  # tritonclient, where this Python has none
    opened = Bundle(bundle)
    frames = np.random.default_rng(0).integers(0, 256, (64, opened.image_size, opened.image_size, 3), np.uint8)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = TritonConfig(hop=HOP, backend="onnxruntime", precision="fp32", threads=threads)
        write_models(opened, folder / "models", config)
        (folder / "server").mkdir()
        with contextlib.ExitStack() as stack:
            runtime = stack.enter_context(load(opened, backend="onnxruntime", precision="fp32", threads=threads))
            write_echo(folder / "models", len(opened.labels))
            server = stack.enter_context(TritonServer(packages, folder / "server", [folder / "models"]))
            one = {}
            for name, pace_s in PACES_S.items():
                with (
                    runtime.stream(HOP, color="rgb") as local,
                    StreamClient(server.url, color="rgb", timeout_s=60) as triton,
                    StreamClient(server.url, color="rgb", model="echo", timeout_s=60) as echo,
                ):
                    lanes = {"local": local.push, "triton": triton.push, "echo": echo.push}
                    one[name] = lone_stream(lanes, frames, rounds, pace_s, bar)
            several = several_streams(server, runtime, frames, max(3, rounds // 10), bar)
    settings = {"hop": HOP, "threads": threads, "image_size": opened.image_size, "backend": runtime.backend}
    return {**settings, "one": one, "several": several}


def serving_tables(found: dict[str, Any]) -> dict[str, str]:
    """The text between the markers of the page."""
    lines = [
        "| one stream, p50 of a frame | frames | local | Triton | echo | allowed |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for name, run in found["runs"].items():
        for pace, words in (("camera", "every 40 ms"), ("at_once", "one upon the other")):
            one = run["one"][pace]
            times_ms = (*(one[f"{lane}_p50_ms"] for lane in ("local", "triton", "echo")), one["allowed_ms"])
            lines.append(f"| `{name}` | {words} | " + " | ".join(f"{time_ms:.2f} ms" for time_ms in times_ms) + " |")
    lines += ["", "| four streams | local | echo | Triton | executions a request |", "|---|---:|---:|---:|---:|"]
    for name, run in found["runs"].items():
        several = run["several"]
        lines.append(
            f"| `{name}` | {several['local_hz']:.0f} frames/s | {several['echo_hz']:.0f} | {several['stream_hz']:.0f} "
            f"| {several['executions_per_request']:.2f} |"
        )
    machine = found["machine"]
    note = f"{machine['cpu']}; load before it {machine['load_1min']}; `{found['command']}`"
    return {"serving": "\n".join([*lines, "", note]) + "\n"}


def export_untrained(preset: str, folder: Path, bar: Bar) -> Path:
    """An untrained bundle, which costs what a trained one costs."""
    from ...export.exporter import ExportConfig
    from ...workflows.export import export_checkpoint
    from ...workflows.init import init_checkpoint

    checkpoint = init_checkpoint(preset, folder / preset)
    config = ExportConfig(precisions=("fp32",))
    return export_checkpoint(checkpoint, folder / f"{preset}.bundle", config, clips=8, progress=bar).path


def main(words: Sequence[str] | None = None) -> int:
    """Measures, writes the file and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["tiny", "base"], metavar="P", help="default: tiny base")
    parser.add_argument("--rounds", type=int, default=60, help="blocks of 25 frames in each lane; default 60")
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime on both sides; default 1")
    parser.add_argument("--show", action="store_true", help="measure nothing: print the page from the file")
    a = parser.parse_args(words)
    bar = Bar()
    if not a.show:
        found = measured(COMMAND, runs={})  # the machine is read before the load is ours
        with tempfile.TemporaryDirectory() as name:
            for preset in a.presets:
                bundle = export_untrained(preset, Path(name), bar)
                rounds = a.rounds if preset == "tiny" else max(2, a.rounds // 4)
                found["runs"][preset] = measure_serving(bundle, rounds, a.threads, bar)
        write_results(RESULTS, found)
    show_results(PAGE, serving_tables(read_results(RESULTS)))
    bar.clear()
    print(f"{RESULTS} and {PAGE}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
