"""`python -m logoformer.studies.faces BUNDLE`: faces of a camera, their cost and accuracy.

Writes `benchmarks/results/faces.json` and the table between the markers of `docs/benchmarks.md`: what detection,
tracking and alignment of one face cost on one core, as multiples of a product of two 256 x 256 matrices that was timed
in between, and how well a trained bundle reads drawn people who walk about. BUNDLE is the demo's.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..benchmarks.load.closed import Candidate, LoadConfig, closed_loop
from ..benchmarks.report.text_tables import table
from ..benchmarks.statistics import numpy_percentile, ratio
from ..bundle.alignment import STANDARD
from ..camera.faces.blaze import RefinedDetector
from ..camera.faces.crop import face_crop
from ..camera.faces.finder import FaceFinder
from ..camera.faces.tracker import Tracker
from ..cli.terminal import Bar
from ..model.synthetic.recordings import FPS
from ..model.synthetic.street import draw_street
from .results import FOLDER, measured, show_results, write_results
from .scenes import WAYS, SceneScore, score_scene
from .watching import require_one_core

RESULTS, PAGE = FOLDER / "faces.json", Path("docs/benchmarks.md")
COMMAND = "python -m logoformer.studies.faces demo/face.bundle"
FRAMES, CROP = 60, 112  # of the timed street; they are shown to and fro
LOAD = LoadConfig(rounds=24, block=20, settle=2, warmup=10)
STREETS = [(seed, people) for seed in range(4) for people in (2, 3)]
TITLES = {
    "chain": "a frame: detection every 5th, the known face between, tracking, alignment",
    "detect": "one look at a whole frame (back-256, then front-128)",
    "refine": "one look at a known face (front-128)",
    "track": "tracking",
    "align": f"alignment to {CROP} x {CROP}",
}


def candidates() -> list[Candidate]:
    """The chain, each of its stages, and the product that they are compared with."""
    shown = [frame for frame, _ in draw_street(0, 1, 1).frames(range(FRAMES))]
    finder, detector, tracker = FaceFinder(), RefinedDetector(), Tracker()
    (known,) = detector.detect(shown[0])
    (face,) = finder.find(shown[0], "rgb", 0.0).faces
    left, right = np.random.default_rng(0).random((2, 256, 256), np.float32)
    times = {"chain": 0, "track": 0}

    def at(count: int) -> int:
        """Place of a count in the frames, to and fro: nobody jumps."""
        place = count % (2 * FRAMES - 2)
        return place if place < FRAMES else 2 * FRAMES - 2 - place

    def chain(_index: int) -> None:
        times["chain"] += 1
        frame = shown[at(times["chain"])]
        for one in finder.find(frame, "rgb", times["chain"] / FPS).faces:
            face_crop(frame, one, STANDARD, CROP)

    def track(_index: int) -> None:
        times["track"] += 1
        tracker.update([known], times["track"] / FPS)

    return [
        Candidate("chain", chain),
        Candidate("detect", lambda index: detector.detect(shown[at(index)])),
        Candidate("refine", lambda index: detector.refine(shown[0], known.box)),
        Candidate("track", track),
        Candidate("align", lambda index: face_crop(shown[0], face, STANDARD, CROP)),
        Candidate("product", lambda index: left @ right),
    ]


def stage_costs(bar: Callable[[str, int, int], None] | None = None, load: LoadConfig = LOAD) -> dict[str, Any]:
    """Time each candidate, by the clock and by CPU time, and its ratio to the product.

    Everything runs on one thread. Where others use the machine too, the clock counts their turns; CPU time does not.
    """
    found: dict[str, Any] = {"frame": "640 x 480, one face", "crop": CROP, "threads": 1}
    found |= {"rounds": load.rounds, "block": load.block}
    for name, clock in (("clock", time.perf_counter_ns), ("cpu", time.process_time_ns)):
        latency = closed_loop(candidates(), load, clock=clock, progress=bar).latency_ms
        flat = {stage: np.asarray(values).ravel() for stage, values in latency.items()}
        found[name] = {
            "p50_ms": {stage: numpy_percentile(values, 50.0) for stage, values in flat.items()},
            "p95_ms": {stage: numpy_percentile(values, 95.0) for stage, values in flat.items()},
            "mean_ms": {stage: float(values.mean()) for stage, values in flat.items()},
            "ratio": {stage: asdict(ratio(latency[stage], latency["product"])) for stage in TITLES},
        }
    return found


def street_accuracy(
    bundle: str | Path, streets: Sequence[tuple[int, int]], bar: Callable[[str, int, int], None]
) -> SceneScore:
    """The bundle on streets of unseen people, (seed, people) each."""
    total: SceneScore | None = None
    for done, (seed, people) in enumerate(streets):
        bar("streets", done, len(streets))
        street = draw_street(seed, people)
        frames = ((frame, [face.to_json() for face in faces]) for frame, faces in street.frames())
        score = score_scene(bundle, frames, street.spans(), FPS)
        total = score if total is None else total + score
    if total is None:
        raise ValueError("no street was given")
    return total


def faces_table(found: Mapping[str, Any]) -> str:
    """The table and the sentence of the page, from the committed figures."""
    c, a = found["cost"]["cpu"], found["accuracy"]
    lines = ["| one core, 640 x 480, one face | CPU time, p50 | times a 256³ product |", "|---|---:|---:|"]
    for name, title in TITLES.items():
        r = c["ratio"][name]
        times = f"{r['value']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
        lines.append(f"| {title} | {c['p50_ms'][name]:.2f} ms | {times} |")
    lines += [
        "",
        f"The mean frame takes {c['mean_ms']['chain']:.2f} ms, the product {c['p50_ms']['product']:.2f} ms of CPU time "
        f"on {found['machine']['cpu']}, one thread. In brackets: 99 % intervals. `{COMMAND}`.",
        "",
    ]
    uar = a["uar"]
    lines += [
        f"On {a['frames']} frames of drawn streets with 2 or 3 people who cross and leave, `tiny` at {a['spans']} "
        f"labelled spans: UAR {uar['given']:.3f} with the boxes that were drawn, {uar['aligned']:.3f} with faces "
        f"found, tracked and aligned, {uar['square']:.3f} with squares around the found boxes instead. Clips that "
        f"mixed two people: {a['mixed']}; changes of a person's id: {a['id_changes']}.",
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Measures both and writes the file and the page."""
    parser = argparse.ArgumentParser(prog=COMMAND)
    parser.add_argument("bundle", help="the demo's, made with: logoformer demo -o demo")
    given = parser.parse_args(argv)
    require_one_core(f"{__package__}.faces", [given.bundle])
    bar = Bar()
    costs = stage_costs(bar)
    scores = street_accuracy(given.bundle, STREETS, bar)
    bar.clear()
    found = measured(COMMAND, cost=costs, accuracy={"streets": STREETS, **scores.to_json()})
    write_results(RESULTS, found)
    show_results(PAGE, {"faces": faces_table(found)})
    print(table([("way", "UAR"), *((way, f"{scores.uar(way):.3f}") for way in WAYS)]))
    print(faces_table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
