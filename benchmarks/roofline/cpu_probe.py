"""Peak rates of this CPU, measured with the runtimes that are judged by them.

A peak that a runtime beats is none: numpy's matrix product alone was slower than ONNX Runtime's convolutions. So every
program that is installed computes a matrix product and a convolution, and the largest rate counts; of the memory the
largest of a copy and of reading. The number of a library's threads is settled when it is loaded, so the probe runs in a
process of its own, with the threads that the benchmark gives to each baseline. The best of many tries counts: noise
only ever slows. Where a measurement is faster all the same, `report.floors` calls the probe failed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle.files import parse_json
from ...engine.sessions.openvino import shared_core
from ...errors import MachineError
from .devices import Device

SIDE = 1024  # of the matrices: 12 MB in all, 2.1 G operations
CHANNELS, SIZE = 256, 28  # of a 3 x 3 convolution as in a ResNet, 0.9 G operations
COPY_BYTES = 64 << 20  # of each thread's slice: beyond any cache
TRIES, SECONDS = 10, 0.25  # at least, of each probe
TIMEOUT_S = 300.0

Rates = Iterator[tuple[str, float]]


def measure_cpu(threads: int, name: str) -> Device:
    """Measures this machine.

    Args:
        threads: of each product and of the copy.
        name: of the machine, for the table.

    Raises:
        MachineError: the probe's process failed.
    """
    # The package's own name, so that a copy under another name finds itself.
    program = f"from {__package__}.cpu_probe import probe_cpu; probe_cpu({int(threads)})"
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    above = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(entry for entry in (*sys.path, above) if entry)
    environment = {**os.environ, **counts, "PYTHONPATH": path}
    try:
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, timeout=TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MachineError(f"The probe of this CPU failed: {error}.") from error
    found = parse_json(done.stdout.splitlines()[-1], "the CPU probe's answer")
    gflops, gb_s = ({key: float(rate) for key, rate in found[unit].items()} for unit in ("gflops", "gb_s"))
    fastest, moving = max(gflops, key=gflops.__getitem__), max(gb_s, key=gb_s.__getitem__)
    tried = ", ".join(f"{key} {rate:.0f}" for key, rate in gflops.items())
    return Device(
        name=f"this CPU, {threads} threads ({name})",
        memory_gb_s=gb_s[moving],
        peak_tops={"fp32": gflops[fastest] / 1e3},
        source=f"measured here: {fastest}, the fastest of {len(gflops)} products in FP32; {moving} of {threads} x "
        f"{COPY_BYTES >> 20} MiB",
        note=f"G operations a second, best of {TRIES} and more: {tried}. A copy reads and writes; both count.",
        measured=True,
    )


def probe_cpu(threads: int) -> None:
    """Prints one JSON object; runs in the probe's process."""
    found = {"gflops": dict(_products(threads)), "gb_s": dict(_moves(threads))}
    sys.stdout.write(json.dumps(found) + "\n")


def _products(threads: int) -> Rates:
    """1e9 operations a second of each program that works here, two a multiply-accumulate."""
    rng = np.random.default_rng(0)
    square = rng.standard_normal((SIDE, SIDE), np.float32)
    image = rng.standard_normal((1, CHANNELS, SIZE, SIZE), np.float32)
    kernel = rng.standard_normal((CHANNELS, CHANNELS, 3, 3), np.float32) / CHANNELS
    work = {"MatMul": 2e-9 * SIDE**3, "Conv": 2e-9 * kernel.size * SIZE**2}
    given = {"MatMul": (square, square), "Conv": (image, kernel)}
    out = np.empty_like(square)
    yield f"numpy {np.__version__} MatMul", work["MatMul"] / _best(lambda: np.matmul(square, square, out=out))
    for open_ in (_onnxruntime, _openvino, _torch):
        for op, (x, weights) in given.items():
            try:
                version, run = open_(op, x, weights, threads)
                yield f"{version} {op}", work[op] / _best(run)
            except Exception:  # another program's failure, of any class: the others are still there
                continue


def _onnxruntime(op: str, x: Any, weights: Any, threads: int) -> tuple[str, Callable[[], object]]:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node(op, ["x", "w"], ["y"], **({"pads": [1, 1, 1, 1]} if op == "Conv" else {}))
    value = helper.make_tensor_value_info
    sides = [value(name, TensorProto.FLOAT, x.shape) for name in ("x", "y")]
    graph = helper.make_graph([node], "probe", sides[:1], sides[1:], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return f"onnxruntime {onnxruntime.__version__}", lambda: session.run(None, {"x": x})


def _openvino(op: str, x: Any, weights: Any, threads: int) -> tuple[str, Callable[[], object]]:
    core = shared_core()
    import openvino
    from openvino import opset13

    given = opset13.parameter(x.shape, np.float32)
    pads: tuple[list[int], ...] = ([1, 1], [1, 1], [1, 1], [1, 1])  # strides, begins, ends, dilations
    made = (
        opset13.matmul(given, opset13.constant(weights), False, False)
        if op == "MatMul"
        else opset13.convolution(given, opset13.constant(weights), *pads)
    )
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    model = openvino.Model([made], [given], "probe")
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return f"openvino {openvino.__version__.split('-')[0]}", lambda: request.infer([x])


def _torch(op: str, x: Any, weights: Any, threads: int) -> tuple[str, Callable[[], object]]:
    import torch

    torch.set_num_threads(threads)
    a, b = torch.from_numpy(x), torch.from_numpy(weights)

    def run() -> object:
        with torch.inference_mode():
            return torch.mm(a, b) if op == "MatMul" else torch.nn.functional.conv2d(a, b, padding=1)

    return f"torch {torch.__version__}", run


def _moves(threads: int) -> Rates:
    """1e9 bytes a second that all threads together move."""
    pairs = [(np.ones(COPY_BYTES // 4, np.float32), np.empty(COPY_BYTES // 4, np.float32)) for _ in range(threads)]
    yield "copy", 2e-9 * threads * COPY_BYTES / _best(_together(lambda pair: np.copyto(pair[1], pair[0]), pairs))
    yield "read", 1e-9 * threads * COPY_BYTES / _best(_together(lambda pair: np.dot(pair[0], pair[0]), pairs))


def _together(work: Callable[[Any], object], given: list[Any]) -> Callable[[], None]:
    def run() -> None:
        workers = [threading.Thread(target=work, args=(one,)) for one in given]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return run


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest try, after one that is not counted."""
    work()
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < TRIES or time.perf_counter() - began < SECONDS:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)
