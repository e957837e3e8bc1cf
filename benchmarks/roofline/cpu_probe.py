"""Peak rates of this CPU, measured: one large product and one large copy, with numpy.

The number of a BLAS library's threads is settled when it is loaded, so the probe runs in a process of its own, with the
threads that the benchmark gives to each baseline. The best of several tries counts: noise only ever slows. Another
library may still be a little faster than numpy's; the figures are a yardstick, not a law of nature.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...bundle.files import parse_json
from ...errors import MachineError
from .devices import Device

SIDE = 1024  # of the matrices: 12 MB in all, 2.1 G operations
COPY_BYTES = 64 << 20  # of each thread's slice: beyond any cache
TRIES = 12
TIMEOUT_S = 120.0


def measure_cpu(threads: int, name: str) -> Device:
    """Measures this machine.

    Args:
        threads: of the product and of the copy.
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
    found = parse_json(done.stdout, "the CPU probe's answer")
    return Device(
        name=f"this CPU, {threads} threads ({name})",
        memory_gb_s=float(found["gb_s"]),
        peak_tops={"fp32": float(found["gflops"]) / 1e3},
        source=f"measured here: numpy {np.__version__}, product of {SIDE} x {SIDE} FP32 matrices, copy of "
        f"{threads} x {COPY_BYTES >> 20} MiB",
        note=f"Best of {TRIES}. A copy reads and writes; both count.",
        measured=True,
    )


def probe_cpu(threads: int) -> None:
    """Prints one JSON object; runs in the probe's process."""
    sys.stdout.write(f'{{"gflops": {_product_gflops()}, "gb_s": {_copy_gb_s(threads)}}}\n')


def _product_gflops() -> float:
    """1e9 operations a second of an FP32 matrix product, two for each multiply-accumulate."""
    a = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    out = np.empty_like(a)
    return 2e-9 * SIDE**3 / _best(lambda: np.matmul(a, a, out=out))


def _copy_gb_s(threads: int) -> float:
    """1e9 bytes a second that copies move, read and written, all threads together."""
    pairs = [(np.ones(COPY_BYTES // 8), np.empty(COPY_BYTES // 8)) for _ in range(threads)]

    def copy_all() -> None:
        workers = [threading.Thread(target=np.copyto, args=(target, source)) for source, target in pairs]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return 2e-9 * threads * COPY_BYTES / _best(copy_all)


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest try, after one that is not counted."""
    work()
    return min(timeit.repeat(work, number=1, repeat=TRIES))
