"""Synthetic faces on disk: in the layouts of DFEW and FERV39k, and as videos.

A data set appears whole or not at all: it is written beside its place and renamed when the last file is there.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle.files import atomic_folder, atomic_path, dump_json, require_space, write_atomic
from ...clips import DFEW_LABELS, Frame
from ...engine.machine.parent import join_pool
from ...errors import BadInputError, MachineError, UsageError, one_of
from ...media.files import ascii_name
from ...media.marks import mark_video
from ..data import ferv39k
from ..data.clips import Progress
from ..data.dfew import FOLDS, FRAMES, HEADER, clip_name, list_path
from ..data.listing import SPLITS
from .recordings import FIRST_GOLDEN_IDENTITY, FIRST_VIDEO_IDENTITY, FPS, Recording, SyntheticClips, draw_untrimmed
from .street import HEIGHT, WIDTH, draw_street

KINDS = ("dfew", "ferv39k", "video", "scene")
_CLIPS_PER_TASK = 20
_JPEG_QUALITY = 90
_FRAMES_OF_A_CLIP, _HEAD_BYTES, _PIXELS_OF_A_BYTE = 50, 600, 5  # fewer, smaller and more than measured


@dataclass(frozen=True)
class SynthResult:
    """Record of what was written.

    Attributes:
        path: the data set's folder, or the video.
        clips: clips of the data set, or labelled spans of the video.
        frames: pictures.
    """

    path: Path
    clips: int
    frames: int

    def to_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "clips": self.clips, "frames": self.frames}


def synth(
    out: str | os.PathLike[str],
    kind: str = "dfew",
    *,
    seed: int = 0,
    identities: int = 100,
    per_identity: int = 14,
    side: int = 96,
    people: int = 2,
    workers: int | None = None,
    progress: Progress | None = None,
) -> SynthResult:
    """Writes synthetic faces: a data set, or a video.

    A data set is frame folders and lists. DFEW's five folds each test on a fifth of the people and train on the others;
    FERV39k's split tests on a fifth, in lists of both numberings that are in the wild. The bytes depend on the other
    arguments alone, not on the number of processes.

    Args:
        out: the new folder of a data set, or the `.mp4` file of a video.
        kind: 'dfew' or 'ferv39k' for a data set in that layout, 'video' for one untrimmed video of an unseen person,
            'scene' for one of several people who walk about.
        seed: of everything.
        identities: people of a data set, 5 to a million.
        per_identity: clips of each.
        side: of the pictures, pixels; a scene is 640 x 480.
        people: of a scene, 1 to 3.
        workers: processes that draw a data set; None takes one for each core, 1 stays in this process.
        progress: called with (stage, done, total).

    Raises:
        UsageError: an unknown kind, fewer people than folds, or more than there are.
        BadInputError: something else exists at `out`.
        MachineError: the disk is full or may not be written.
    """
    if kind not in KINDS:
        raise UsageError(f"Unknown kind {kind!r}.", next=f"choose from {one_of(KINDS)}")
    if kind == "video":
        return write_untrimmed(out, seed=seed, side=side, progress=progress)
    if kind == "scene":
        return write_scene(out, seed=seed, people=people, progress=progress)
    if identities < len(FOLDS):
        raise UsageError(f"{identities} people cannot be split into {len(FOLDS)} folds.", next="give at least 5")
    if identities > FIRST_GOLDEN_IDENTITY:
        raise UsageError(
            f"{identities} people are too many: from number {FIRST_GOLDEN_IDENTITY} on they are kept for golden clips "
            "and videos, which no data set may show.",
            next=f"give at most {FIRST_GOLDEN_IDENTITY}",
        )
    final = Path(out)
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise BadInputError(f"{final} exists and is not an empty folder; it was left alone.", next="name a new folder")
    frame_bytes = _HEAD_BYTES + side * side // _PIXELS_OF_A_BYTE
    needed = identities * per_identity * _FRAMES_OF_A_CLIP * frame_bytes
    require_space(final, needed, "the data set", "ask for fewer people with --identities, or name another place")
    source = SyntheticClips(seed, range(identities), per_identity, side)
    places, lists = _dfew(source) if kind == "dfew" else _ferv39k(source)
    with atomic_folder(final) as part:
        frames = _write_all(part, source, places, workers or len(os.sched_getaffinity(0)), progress)
        for path, text in lists.items():
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            (part / path).write_text(text, encoding="ascii")
    return SynthResult(final, len(source), frames)


# ----------------------------------------------------------------------------------------------------------- data set
def _dfew(source: SyntheticClips) -> tuple[list[str], dict[str, str]]:
    """DFEW's layout: (folder of each clip, text of each list by its path).

    Person n is tested in fold n % 5 + 1.
    """
    lists: dict[str, str] = {}
    for fold in FOLDS:
        rows: dict[str, list[str]] = {split: [",".join(HEADER)] for split in SPLITS}
        for index in range(len(source)):
            tested = index // source.per_identity % len(FOLDS) + 1 == fold
            rows["test" if tested else "train"].append(f"{index + 1},{source.label(index) + 1}")
        lists |= {list_path(split, fold): "\n".join(lines) + "\n" for split, lines in rows.items()}
    return [f"{FRAMES}/{clip_name(index + 1)}" for index in range(len(source))], lists


def _ferv39k(source: SyntheticClips) -> tuple[list[str], dict[str, str]]:
    """FERV39k's layout: (folder of each clip, text of each list by its path).

    Every fifth person is tested.
    """
    clips, counts = [], Counter[tuple[str, str]]()
    for index in range(len(source)):
        scene = ferv39k.SCENES[index // source.per_identity % len(ferv39k.SCENES)]
        emotion = source.labels[source.label(index)].capitalize()
        counts[scene, emotion] += 1
        clips.append(f"{scene}/{emotion}/{counts[scene, emotion]:04d}")
    alphabetical = sorted({clip.split("/")[1] for clip in clips})
    lists = {ferv39k.S2D_INDEX: "".join(f"{number} {name}\n" for number, name in enumerate(alphabetical))}
    for split in SPLITS:
        rows = [c for n, c in enumerate(clips) if (n // source.per_identity % 5 == 0) == (split == "test")]
        named = [(clip, clip.split("/")[1]) for clip in rows]
        lists[f"{ferv39k.LISTS}/{split}_All.csv"] = "".join(f"{clip} {name}\n" for clip, name in named)
        s2d = "".join(f"{clip},{alphabetical.index(name)}\n" for clip, name in named)
        lists[f"{ferv39k.S2D_LISTS}/{split}.csv"] = "path,id\n" + s2d
    return [f"{ferv39k.FRAMES}/{clip}" for clip in clips], lists


def _write_all(
    part: Path, source: SyntheticClips, places: Sequence[str], workers: int, progress: Progress | None
) -> int:
    """Writes every clip's frames; returns how many."""
    everything = range(len(source))
    tasks = [everything[start : start + _CLIPS_PER_TASK] for start in everything[::_CLIPS_PER_TASK]]
    work = partial(_write_clips, part, source, places)
    frames = 0
    with contextlib.ExitStack() as closing:
        counts: Iterable[int] = map(work, tasks)
        if workers != 1:
            # spawn: a child forked from a process with threads (OpenCV's, torch's) may hang.
            pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), join_pool, (os.getpid(),))
            closing.callback(pool.shutdown, cancel_futures=True)  # an interrupt does not wait for what is not begun
            counts = pool.map(work, tasks)
        for clips, count in zip(tasks, counts, strict=True):
            frames += count
            if progress:
                progress("synth", clips.stop, len(source))
    return frames


def _write_clips(folder: Path, source: SyntheticClips, places: Sequence[str], clips: range) -> int:
    """Writes the frames of some clips as JPEG files; returns how many."""
    import cv2

    cv2.setNumThreads(1)
    written = 0
    for index in clips:
        place = folder / places[index]
        place.mkdir(parents=True)
        for number, frame in enumerate(source.frames(index, range(source.count(index))), start=1):
            _, data = cv2.imencode(".jpg", frame[:, :, ::-1], (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
            (place / f"{number:05d}.jpg").write_bytes(data.tobytes())
            written += 1
    return written


# -------------------------------------------------------------------------------------------------------------- video
def write_untrimmed(
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    identity: int = FIRST_VIDEO_IDENTITY,
    rounds: int = 1,
    side: int = 96,
    progress: Progress | None = None,
) -> SynthResult:
    """Writes a video of one person who now and then shows an expression, and its labels.

    `NAME.json` beside it is a list of `{"start_s", "end_s", "label"}`; frame i is shown at i / 25 s, and the last frame
    of an expression comes before `end_s`.

    Args:
        path: the new `.mp4` file.
        seed: of everything.
        identity: number of the person; the default is in no data set.
        rounds: how often each of the seven classes is shown.
        side: of the picture, pixels; even.
        progress: called with (stage, frames done, frames).

    Raises:
        UsageError: another file type, or an odd side.
        MachineError: this OpenCV cannot write mp4v, or the disk is full.
    """
    final = Path(path)
    if final.suffix.lower() != ".mp4" or side % 2 or side < 16:
        raise UsageError(
            f"A video needs a name that ends in .mp4 and an even side of at least 16; got {final}, {side}."
        )
    order = np.random.default_rng([seed, identity]).permutation(np.tile(np.arange(len(DFEW_LABELS)), rounds))
    recording = draw_untrimmed(seed, identity, [int(label) for label in order])
    with atomic_path(final) as temporary:
        _encode(temporary, _blocks(recording, side), recording.count, (side, side), progress)
    spans = [
        {"start_s": span.start / FPS, "end_s": span.end / FPS, "label": DFEW_LABELS[span.script.label]}
        for span in recording.spans
    ]
    write_atomic(final.with_suffix(".json"), dump_json(spans))
    return SynthResult(final, len(spans), recording.count)


def _blocks(recording: Recording, side: int) -> Iterator[Frame]:
    for start in range(0, recording.count, 64):
        yield from recording.frames(range(start, min(start + 64, recording.count)), side)


def write_scene(
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    people: int = 2,
    rounds: int = 7,
    progress: Progress | None = None,
) -> SynthResult:
    """Writes a video of people who walk about, cross and leave, and the truth about it.

    `NAME.json` beside it is `{"fps", "width", "height", "frames", "spans"}`. `frames` holds for each frame a list of
    `FaceTruth`; `spans` is what is shown: `{"face", "start_s", "end_s", "label"}`.

    Args:
        path: the new `.mp4` file.
        seed: of everything.
        people: 1 to 3.
        rounds: expressions of each person.
        progress: called with (stage, frames done, frames).

    Raises:
        UsageError: another file type or number of people.
        MachineError: this OpenCV cannot write mp4v, or the disk is full.
    """
    final = Path(path)
    if final.suffix.lower() != ".mp4":
        raise UsageError(f"A scene needs a name that ends in .mp4; got {final}.", next="-o scene.mp4")
    street = draw_street(seed, people, rounds)
    truths = []

    def frames() -> Iterator[Frame]:
        for frame, faces in street.frames():
            truths.append([face.to_json() for face in faces])
            yield frame

    with atomic_path(final) as temporary:
        _encode(temporary, frames(), street.count, (WIDTH, HEIGHT), progress)
    spans = street.spans()
    truth = {"fps": FPS, "width": WIDTH, "height": HEIGHT, "frames": truths, "spans": spans}
    write_atomic(final.with_suffix(".json"), dump_json(truth))
    return SynthResult(final, len(spans), street.count)


def _encode(path: Path, frames: Iterable[Frame], count: int, size: tuple[int, int], progress: Progress | None) -> None:
    import cv2

    with ascii_name(path) as name:
        writer = cv2.VideoWriter(name, cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
    if not writer.isOpened():
        raise MachineError(
            "OpenCV cannot write an mp4v video here.",
            cause="an OpenCV built without FFmpeg",
            next="pip install opencv-python-headless",
        )
    try:
        for done, frame in enumerate(frames, start=1):
            writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
            if progress and (done % 64 == 0 or done == count):
                progress("video", done, count)
    finally:
        writer.release()
    mark_video(path)
