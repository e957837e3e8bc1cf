"""Loading speed of a data set on one core: `logoformer data-check --speed`.

The loop that is timed is training's own (`data.batches`): sampled frames, augmentation, batches. It runs on one core:
on Linux a thread's affinity is its own, and the threads that it starts inherit it. Every file is read once before, so
what is timed is the processor's work with files in the page cache and not a disk.

Two figures are given. By the clock is what was seen; another program on the same core slows it. By CPU time is what the
core would give alone.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...clips import Sampling
from ...errors import UsageError
from ...media.stills import decode_still
from .augment import draw_augmentations
from .clips import Indices, Progress, batches, in_order, random_pick
from .datasets import open_clips
from .listing import ListedClips, Reading

BATCH = 32
REPEATS = 3


@dataclass(frozen=True)
class Loading:
    """Loading speed of one core.

    Attributes:
        data: name of the data set's folder.
        clips: different clips that were read in each repeat.
        frames: T, of each.
        size: S, pixels of a side as the network sees it.
        stored: clips by 'width x height' of an image of theirs, as it lies on the disk; empty for videos.
        augment: of the recipe.
        clips_per_s: by the clock, the best repeat.
        clips_per_cpu_s: by CPU time, the best repeat.
        files_share, decode_share, rest_share: of the CPU time: reading files, decoding, and all else (cutting,
            resizing, mirroring, batches); None for videos.
        repeats: how often all was read.
        load_1min: of the machine, when it ended.
    """

    data: str
    clips: int
    frames: int
    size: int
    stored: dict[str, int]
    augment: str
    clips_per_s: float
    clips_per_cpu_s: float
    files_share: float | None
    decode_share: float | None
    rest_share: float | None
    repeats: int
    load_1min: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def text(self) -> str:
        """The figures as readable text."""
        stored = ", ".join(self.stored) or "videos"
        lines = [
            f"{self.data}: {self.clips} clips of {self.frames} frames, {stored} -> {self.size} x {self.size}, "
            f"augmentation '{self.augment}'",
            f"  {self.clips_per_cpu_s:.0f} clips/s per core by CPU time; "
            f"{self.clips_per_s:.0f} by the clock, at a load of {self.load_1min:.1f}",
        ]
        if self.decode_share is not None:
            shares = (self.files_share, self.decode_share, self.rest_share)
            lines.append("  files {:.0%}, decoding {:.0%}, cutting, resizing and the rest {:.0%}".format(*shares))
        lines.append("  files were in the page cache; a disk that is slower than this decides instead")
        return "\n".join(lines)


def measure_loading(
    root: str | os.PathLike[str],
    *,
    size: int,
    sampling: Sampling,
    augment: str,
    clips: int = 200,
    progress: Progress | None = None,
) -> Loading:
    """Measures how fast clips of a data set's first training split are read.

    Args:
        root: the data set's folder.
        size: S, of the model.
        sampling: of the model.
        augment: 'shift', 'crop' or 'none'.
        clips: how many to read, spread over the split.
        progress: called with (stage, done, total).

    Raises:
        BadInputError: no data set is there, or a frame cannot be read.
        UsageError: no clip is to be read.
    """
    if clips < 1:
        raise UsageError(f"The speed of reading {clips} clips cannot be measured.")
    source = open_clips(root, "train", 1, Reading(size, fewest=sampling.frames))
    chosen = np.unique(np.linspace(0, len(source) - 1, min(clips, len(source))).astype(np.int64))
    core = max(os.sched_getaffinity(0))
    with ThreadPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, {core})) as pool:
        return pool.submit(_measure, source, chosen, Path(root).name, sampling, augment, progress).result()


def _measure(
    source: ListedClips, chosen: Indices, name: str, sampling: Sampling, augment: str, progress: Progress | None
) -> Loading:
    pick = random_pick(sampling, 0, 0)
    groups = [chosen[places] for places in in_order(len(chosen), BATCH)]
    done, total = 0, len(chosen) * (1 + 2 * REPEATS)

    def tell(clips: int) -> None:
        nonlocal done
        done += clips
        if progress:
            progress("data-check --speed", done, total)

    def read_all() -> tuple[float, float]:
        """Seconds by the clock, and seconds of CPU time of the whole process."""
        shown = draw_augmentations(augment, groups, source.size, (0, 0), np.random.default_rng(0))
        began, began_cpu = time.perf_counter(), time.process_time()
        for clips, _ in batches(source, groups, pick, shown):
            tell(len(clips))
        return time.perf_counter() - began, time.process_time() - began_cpu

    stored: Counter[str] = Counter()
    for index in chosen:
        frames = pick(int(index), source.count(int(index)))
        source.frames(int(index), frames)
        for data in source.files(int(index), frames[:1]):
            stored["{} x {}".format(*decode_still(data, name).size)] += 1
        tell(1)
    whole, parts = [], []
    for _ in range(REPEATS):  # taking turns, so that a change of the machine's load meets both
        whole.append(read_all())
        files = decoding = 0.0
        for index in chosen:
            began = time.thread_time()
            encoded = source.files(int(index), pick(int(index), source.count(int(index))))
            read = time.thread_time()
            for data in encoded:
                decode_still(data, name)
            files, decoding = files + read - began, decoding + time.thread_time() - read
            tell(1)
        parts.append((files, decoding))
    cpu = min(cpu for _, cpu in whole)
    files, decoding = min(f for f, _ in parts) / cpu, min(d for _, d in parts) / cpu
    return Loading(
        data=name,
        clips=len(chosen),
        frames=sampling.frames,
        size=source.size,
        stored=dict(stored.most_common()),
        augment=augment,
        clips_per_s=len(chosen) / min(clock for clock, _ in whole),
        clips_per_cpu_s=len(chosen) / cpu,
        files_share=files if stored else None,
        decode_share=decoding if stored else None,
        rest_share=max(0.0, 1.0 - files - decoding) if stored else None,
        repeats=REPEATS,
        load_1min=os.getloadavg()[0],
    )
