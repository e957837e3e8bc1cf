"""trtexec: its definitions, the command that makes its figures comparable, and its run.

Its numbers are not ours: trtexec feeds an engine one query ahead and counts CUDA events, we count a caller's wall
clock. And its own defaults changed between 10.x and 11.x, so that two trtexec figures need not be comparable either.
Source of the definitions: NVIDIA TensorRT, samples/common/sampleOptions, sampleInference and sampleReporting.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ...bundle import Bundle
from ...bundle.sealed import read_stored
from ...engine.trust.admit import read_signature
from ...engine.trust.index import EngineEntry, engines_folder, read_index
from ...engine.trust.store import TrustStore
from ..report.records import TrtexecRun
from ..sensors.find import Sensors
from .contract import Skipped

PLACES = (Path("/usr/src/tensorrt/bin/trtexec"),)  # where JetPack and the Debian packages put it
NAME = "trtexec"
TIMEOUT_S = 300.0
MAX_ENGINE_BYTES = 4 << 30

# (what, in this report, trtexec 10.x by default, trtexec 11.x by default)
DEFINITIONS = (
    ("latency", "wall clock, frame in host memory to answer in host memory: preprocess ... postprocess",
     "H2D + GPU compute + D2H, spans of CUDA events; no enqueue, wake-up, pre- or post-processing",
     "GPU compute only: no data transfers (--includeDataTransfers adds them)"),
    ("device time", "device_ms: engines alone, between two events", "GPU Compute Time", "GPU Compute Time"),
    ("transfers", "within latency, outside of device_ms", "included; H2D and D2H Latency", "left out"),
    ("CUDA graph", "used where capture succeeds", "off (--useCudaGraph)", "on (--noCudaGraph undoes it)"),
    ("waiting", "until the answer is there", "blocking sync (--useSpinWait)", "spin-wait (--noSpinWait undoes it)"),
    ("in flight", "one query", "two where transfers overlap: throughput is not 1 / latency", "one"),
    ("percentile", "numpy's, and MLPerf's bound", "sorted[n - 1 - int((1 - p) n)]", "the same"),
    ("input", "golden clips in rotation", "random, one and the same", "random, one and the same"),
)  # fmt: skip


def trtexec_words(
    engine: str | Path, tensorrt_version: str, executable: str | Path = NAME, device: int = 0
) -> list[str]:
    """The command whose figures compare with `device_ms`, on any version.

    Args:
        engine: the engine's file.
        tensorrt_version: that it was built with, such as '10.3.0.30'; only that version loads it.
        executable: what to call.
        device: which card, as CUDA counts them.
    """
    words = [str(executable), f"--loadEngine={engine}", *([f"--device={device}"] if device else [])]
    if int(tensorrt_version.split(".")[0]) < 11:
        words += ["--useCudaGraph", "--useSpinWait", "--noDataTransfers"]  # what 11.x does by itself
    return [*words, "--warmUp=500", "--duration=10", "--percentile=50,90,95,99"]


def find_trtexec(places: Sequence[Path] = PLACES) -> Path | None:
    """On PATH, or where JetPack puts it."""
    found = shutil.which(NAME)
    return Path(found) if found else next((path for path in places if path.is_file()), None)


def compare_trtexec(
    bundle: Bundle, precision: str, sensors: Sensors, device: int = 0
) -> tuple[tuple[TrtexecRun, ...], tuple[Skipped, ...]]:
    """Runs trtexec on every TensorRT engine for one face inside a bundle in one precision.

    Args:
        bundle: whose engines.
        precision: of them.
        sensors: of this machine; without a GPU nothing is run.
        device: which card, as CUDA counts them.

    Returns:
        What trtexec said, and what was left out with the reason.

    Raises:
        RefusedError: an engine is not what the index names, or nobody vouches for it.
    """
    executable = find_trtexec()
    if executable is None:
        return (), (Skipped(NAME, f"it is neither on PATH nor at {PLACES[0]}"),)
    if sensors.gpu is None:
        return (), (Skipped(NAME, "this machine shows no GPU"),)
    folder = engines_folder(bundle.path, None)
    single = [one for one in read_index(folder) if one.batch == 1 and one.precision == precision]
    engines = [one for one in single if one.target.startswith("tensorrt")]
    if not engines:
        return (), (Skipped(NAME, f"the bundle holds no TensorRT engine in {precision}: logoformer build"),)
    runs: list[TrtexecRun] = []
    skipped: list[Skipped] = []
    for engine in engines:
        try:
            runs.append(_run(executable, folder, engine, device))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            skipped.append(Skipped(f"{NAME} {engine.graph}", f"{error}"[:300]))
    return tuple(runs), tuple(skipped)


def _run(executable: Path, folder: Path, engine: EngineEntry, device: int) -> TrtexecRun:
    """One engine; the bytes that were checked are the bytes that trtexec loads."""
    data = read_stored(folder, engine.file, engine.sha256, engine.size, MAX_ENGINE_BYTES)
    # trtexec runs it as native code, so the same is asked as before our own runtime.
    signature = read_signature(folder, engine.file)
    TrustStore().require_engine(engine.sha256, engine.graph_sha256, f"{folder}/{engine.file}", signature)
    with tempfile.TemporaryDirectory() as private:
        copy = Path(private) / "checked.engine"
        copy.write_bytes(data)
        words = trtexec_words(copy, engine.tensorrt_version, executable, device)
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=private, check=False)
    shown = shlex.join(trtexec_words(engine.file, engine.tensorrt_version, device=device))
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:]
        raise ValueError(f"it ended with {done.returncode}: {''.join(last)}")
    return parse(done.stdout, engine.graph, shown)


def parse(output: str, graph: str, command: str) -> TrtexecRun:
    """Reads trtexec's performance summary.

    Args:
        output: everything that it printed.
        graph: of the bundle.
        command: word for word.

    Raises:
        ValueError: there is no such summary in it.
    """
    version = re.search(r"\[TensorRT v(\d+)\]", output)
    throughput = re.search(r"\] Throughput: ([\d.]+) qps", output)
    if version is None or throughput is None:
        raise ValueError("it printed no performance summary that this program understands")
    return TrtexecRun(
        graph=graph,
        version=_version(int(version[1])),
        command=command,
        latency_ms=_figures(output, "Latency"),
        gpu_ms=_figures(output, "GPU Compute Time"),
        throughput_hz=float(throughput[1]),
    )


def _figures(output: str, what: str) -> tuple[tuple[str, float], ...]:
    """The (name, ms) pairs of a line such as `[I] Latency: min = 5.3 ms, ...`."""
    line = re.search(rf"\[I\] {what}: (min = .*)", output)
    if line is None:
        raise ValueError(f"its summary has no line {what!r}")
    found = re.findall(r"([a-z]+(?:\([\d.]+%\))?) = ([\d.]+(?:e[+-]?\d+)?) ms", line[1])
    if len(found) < 4:
        raise ValueError(f"its line {what!r} was not understood: {line[1][:120]}")
    return tuple((re.sub(r"percentile\(([\d.]+)%\)", r"p\1", name), float(value)) for name, value in found)


def _version(number: int) -> str:
    """'10.3.0' of 100300; '8.6.1' of 8601, as TensorRT 8 wrote it."""
    unit = 10_000 if number >= 100_000 else 1000
    return f"{number // unit}.{number % unit // 100}.{number % 100}"
