"""`python -m logoformer.studies.watching`: `base` on a camera of 640 x 480 at 25 Hz.

Writes `benchmarks/results/watching.json` and the table of docs/watch.md: whether it keeps up, how old answers are, what
was dropped, how busy the CPU was; and the stages of a frame one by one. The camera is a drawn scene of one person,
decoded and handed out at its own pace as a camera's driver does: nobody waits for who is late.
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmarks.load.camera import camera_stages
from ..benchmarks.sensors.machine import usable_cpus
from ..camera.sources.live import Arrived, Capture, LiveSource
from ..camera.sources.open import open_source
from ..camera.watch import Watch
from ..cli.terminal import Bar
from ..errors import MachineError
from .results import FOLDER, measured, read_results, show_results, write_results

if TYPE_CHECKING:
    from ..engine import Runtime

RESULTS, PAGE = FOLDER / "watching.json", Path("docs/watch.md")
COMMAND = "python -m logoformer.studies.watching"
FPS, HOP = 25.0, 4
PAUSE_S = 1.0  # without an answer: the face was away
WARM_S = 6.0  # until the ring is full and rates are steady
STAGE_FRAMES = 500
ONE_CORE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # the matrix product beside the stages is of one core


def require_one_core(module: str, words: Sequence[str]) -> None:
    """Begins the program anew with numpy's products on one core, unless they are.

    Numpy asks when it is loaded.
    """
    if any(os.environ.get(name) != "1" for name in ONE_CORE):
        command = [sys.executable, "-m", module, *words]
        os.execve(sys.executable, command, {**os.environ, **dict.fromkeys(ONE_CORE, "1")})


class PacedVideo(Capture):
    """A video handed out at a camera's pace, over and over; implements `Capture`.

    Args:
        path: of the video.
        fps: frames a second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._step_s = path, 1 / fps
        self.fps = fps
        self._ended = threading.Event()

    def open(self) -> None:
        """Nothing to connect to."""

    def read(self) -> Iterator[Arrived | None]:
        due_s = time.monotonic()
        while not self._ended.is_set():
            with open_source(self._path) as source:
                for timed in source:
                    due_s += self._step_s
                    if self._ended.wait(max(0.0, due_s - time.monotonic())):
                        return
                    pixels = np.ascontiguousarray(timed.frame if timed.color == "rgb" else timed.frame[:, :, ::-1])
                    yield Arrived(partial(np.asarray, pixels), None, (pixels.shape[1], pixels.shape[0]))

    def abort(self) -> None:
        self._ended.set()

    def close(self) -> None:
        """The video is closed by its own block."""


def watch_camera(runtime: Runtime, scene: Path, seconds: float, bar: Bar) -> dict[str, Any]:
    """Watches for so many seconds after the warm-up."""
    source = LiveSource(lambda: PacedVideo(scene, FPS), "scene", FPS)
    ages: list[float] = []
    gaps_ms: list[float] = []
    last: dict[int, float] = {}  # time of the newest answer of each face
    with Watch(runtime, [source], hop=HOP) as watch:
        begin: tuple[float, float, float, Any] | None = None
        started = time.monotonic()
        for answer in watch:
            now = time.monotonic()
            (state,) = watch.board.state()[1]
            if begin is None and now - started >= WARM_S:
                begin = (now, cpu_seconds(), machine_busy_seconds(), state)
            elif begin is not None:
                ages.append(answer.age_ms)
                if answer.time_s - last.get(answer.face, -math.inf) < PAUSE_S:
                    gaps_ms.append(1e3 * (answer.time_s - last[answer.face]))
                last[answer.face] = answer.time_s
                bar("watch", round(now - begin[0]), round(seconds))
                if now - begin[0] >= seconds:
                    break
    if begin is None:
        raise MachineError("The watch ended before it was warm.", next=f"{COMMAND} on a machine with less to do")
    began, own, machine, before = begin
    wall, cores = now - began, usable_cpus()
    p50, p99 = np.percentile(ages, (50, 99))
    return {
        "seconds": wall,
        "captured_hz": (state.frames - before.frames) / wall,
        "answers": len(ages),
        "gap_p50_ms": float(np.median(gaps_ms)),
        "gap_p99_ms": float(np.percentile(gaps_ms, 99)),
        "wanted_gap_ms": 1e3 * HOP / FPS,
        "age_p50_ms": float(p50),
        "age_p99_ms": float(p99),
        "dropped": {cause: count - before.dropped.get(cause, 0) for cause, count in state.dropped.items()},
        "hop": state.hop,
        "cpu_share": (cpu_seconds() - own) / wall / cores,
        "others_cpu_share": max(0.0, (machine_busy_seconds() - machine) - (cpu_seconds() - own)) / wall / cores,
        "cores": cores,
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
    }


def cpu_seconds() -> float:
    """CPU time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def machine_busy_seconds() -> float:
    """CPU time of every process of this machine so far.

    What a hypervisor took away counts as busy.
    """
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def tables(found: dict[str, Any]) -> dict[str, str]:
    """The texts between the markers of the page."""
    run, stages = found["watch"], found["stages"]
    dropped = ", ".join(f"{count} {cause}" for cause, count in run["dropped"].items())
    rows = [
        ("what", "figure"),
        ("frames a second that came", f"{run['captured_hz']:.1f}"),
        (
            "from one answer for a face to the next, p50 and p99",
            f"{run['gap_p50_ms']:.0f} and {run['gap_p99_ms']:.0f} ms; asked for: {run['wanted_gap_ms']:.0f} ms",
        ),
        ("age of an answer, p50", f"{run['age_p50_ms']:.0f} ms"),
        ("age of an answer, p99", f"{run['age_p99_ms']:.0f} ms"),
        ("frames dropped", dropped),
        (f"of {run['cores']} cores, by this program", f"{run['cpu_share']:.0%}"),
        ("of them, by other programs beside it", f"{run['others_cpu_share']:.0%}"),
    ]
    of_stages = [("stage", "p50", "p99", "p50 / product of 256 x 256 matrices")]
    of_stages += [
        (one["name"], f"{one['p50_ms']:.2f} ms", f"{one['p99_ms']:.2f} ms", f"{one['products']:.1f}")
        for one in (*stages["stages"], stages["finding"])
    ]
    machine = found["machine"]
    note = f"\n{run['seconds']:.0f} s on {machine['cpu']}, {run['cores']} cores; load before it {machine['load_1min']}."
    note += f" `{found['command']}`"
    note += f" at nice {run['nice']}, beside other programs.\n" if run["nice"] else "\n"
    return {"watching": _markdown(rows) + note, "stages": _markdown(of_stages)}


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]]) + "\n"


def make_scene(folder: Path, bar: Bar) -> Path:
    """A minute of one drawn person."""
    from ..model.synthetic.layout import write_scene

    write_scene(folder / "scene.mp4", seed=0, people=1, rounds=8, progress=bar)
    return folder / "scene.mp4"


def make_base_bundle(folder: Path, bar: Bar) -> Path:
    """An untrained `base`, which costs what a trained one costs."""
    from ..export.exporter import ExportConfig
    from ..workflows.export import export_checkpoint
    from ..workflows.init import init_checkpoint

    checkpoint = init_checkpoint("base", folder / "base")
    config = ExportConfig(precisions=("fp32",))
    return export_checkpoint(checkpoint, folder / "base.bundle", config, clips=8, progress=bar).path


def main() -> int:
    """Measures, writes the file and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, help="an exported base; default: a new one, which takes a minute")
    parser.add_argument("--seconds", type=float, default=50.0, help="measured; default 50")
    parser.add_argument("--show", action="store_true", help="measure nothing: print the page from the file")
    a = parser.parse_args()
    require_one_core(f"{__package__}.watching", sys.argv[1:])
    bar = Bar()
    if not a.show:
        from ..engine import load

        found = measured(COMMAND)  # the machine is read before the load is ours
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            scene, bundle = make_scene(folder, bar), a.bundle or make_base_bundle(folder, bar)
            with load(bundle, backend="onnxruntime", precision="fp32") as runtime:
                found["watch"] = watch_camera(runtime, scene, a.seconds, bar)
            with load(bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime, open_source(scene) as one:
                found["stages"] = camera_stages(runtime, one, frames=STAGE_FRAMES, hop=HOP, progress=bar).to_json()
        write_results(RESULTS, found)
    show_results(PAGE, tables(read_results(RESULTS)))
    bar.clear()
    print(f"{RESULTS} and {PAGE}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
