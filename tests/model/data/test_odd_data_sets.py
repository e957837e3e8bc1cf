"""Odd data sets: training, `evaluate`, `quantize` and `data-check` see the same classes and clips, or refuse alike."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import media_files
import numpy as np
import pytest
from logoformer.calibration.choose import choose
from logoformer.clips import DFEW_LABELS, Sampling
from logoformer.errors import LogoformerError
from logoformer.model.data.check import check_data
from logoformer.model.data.clips import batches, fingerprint, in_order, random_pick
from logoformer.model.data.datasets import clips_for, open_clips
from logoformer.model.data.listing import Reading
from logoformer.model.training.evaluate import predict_all
from PIL import Image

pytest.importorskip("av", reason="PyAV is not installed (the extra 'train')")

SIZE, SAMPLING = 8, Sampling(segments=2, frames_per_segment=2)


class Maker:
    """Plants files into a data set; each video and each picture has other content."""

    def __init__(self, root: Path, videos: list[bytes]) -> None:
        self.root, self._videos, self._pictures = root, iter(videos), 0

    def video(self, *places: str | bytes) -> None:
        for place in places:
            self.file(place, next(self._videos))

    def file(self, place: str | bytes, content: bytes | str = b"x") -> Path:
        path = self.root / os.fsdecode(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def folder(self, place: str) -> None:
        (self.root / place).mkdir(parents=True)

    def copy(self, one: str, other: str) -> None:
        self.file(other, (self.root / one).read_bytes())

    def link(self, place: str, target: str) -> None:
        (self.root / place).parent.mkdir(parents=True, exist_ok=True)
        (self.root / place).symlink_to(self.root / target)

    def frames(self, place: str, *names: str, count: int = 4) -> None:
        for name in names or [f"{number:05d}.png" for number in range(count)]:
            self._pictures += 1
            grey = Image.new("RGB", (8, 8), (self._pictures, 99, 0))
            self.file(f"{place}/{name}", media_files.image_bytes(grey, "JPEG" if name.endswith("jpg") else "PNG"))

    def base(self) -> None:
        """Two classes of DFEW's, one clip each in both splits."""
        self.video("train/happy/0.mp4", "train/sad/0.mp4", "test/happy/0.mp4", "test/sad/0.mp4")

    def lists(self, train: str | bytes = "a 4 0\nb 4 1\n", test: str = "c 4 0\nd 4 1\n") -> None:
        for name in "abcd":
            self.frames(name)
        self.file("train.txt", train)
        self.file("test.txt", test)


@dataclass(frozen=True)
class Case:
    """One odd data set.

    Attributes:
        plant: makes it.
        labels: its classes, or None where reading it is refused.
        clips: names of the training clips.
        refusal: part of the refusal's words.
        faults, notes: kinds that `data-check` gives, all of them.
    """

    plant: Callable[[Maker], object]
    labels: tuple[str, ...] | None = DFEW_LABELS
    clips: tuple[str, ...] = ("train/happy/0.mp4", "train/sad/0.mp4")
    refusal: str = ""
    faults: frozenset[str] = frozenset()
    notes: frozenset[str] = field(default=frozenset({"short clip", "class without clips"}))


USUAL = frozenset({"short clip", "class without clips"})
LISTED = ("a", "b")


def also(*steps: Callable[[Maker], object], base: Callable[[Maker], object] = Maker.base) -> Callable[[Maker], None]:
    def plant(maker: Maker) -> None:
        for step in (base, *steps):
            step(maker)

    return plant


def litter(*places: str) -> Callable[[Maker], None]:
    return also(*(lambda m, place=place: m.video(place) for place in places))


def refused(plant: Callable[[Maker], object], words: str, *faults: str) -> Case:
    return Case(plant, None, refusal=words, faults=frozenset(faults or ("bad list",)), notes=frozenset())


def lines(train: str | bytes, words: str) -> Case:
    return refused(lambda m: m.lists(train), words)


TABLE: dict[str, Case] = {
    # --------------------------------------------------------------------------------------------- folders that litter
    "clean": Case(Maker.base),
    "git in train": Case(litter("train/.git/hooks/0.mp4", "train/.git/0.mp4")),
    "git at the root": Case(litter(".git/hooks/0.mp4")),
    "results of trainings": Case(litter("runs/exp1/0.mp4", "runs/exp2/0.mp4")),
    "a third split": Case(litter("val/contempt/0.mp4", "validation/contempt/0.mp4")),
    "notebook checkpoints": Case(litter("train/.ipynb_checkpoints/0.mp4", "train/happy/.ipynb_checkpoints/0.mp4")),
    "a Mac's archive": Case(litter("__MACOSX/train/happy/._0.mp4", "train/__MACOSX/0.mp4", "train/happy/._0.mp4")),
    "a NAS's previews": Case(litter("train/@eaDir/0.mp4", "train/happy/@eaDir/0.mp4")),
    "Python's cache": Case(litter("train/__pycache__/0.mp4")),
    "a found folder": Case(litter("train/lost+found/0.mp4")),
    "a hidden class": Case(litter("train/.contempt/0.mp4")),
    # ------------------------------------------------------------------------------------------------------- classes
    "classes of our own": Case(
        lambda m: m.video(
            "train/yes/0.mp4",
            "train/no/0.mp4",
            "train/maybe/0.mp4",
            "test/yes/0.mp4",
            "test/no/0.mp4",
            "test/maybe/0.mp4",
        ),
        ("maybe", "no", "yes"),
        ("train/maybe/0.mp4", "train/no/0.mp4", "train/yes/0.mp4"),
        notes=frozenset({"short clip"}),
    ),
    "a class in test alone": Case(litter("test/fear/0.mp4")),
    "an eighth class in test alone": Case(
        litter("test/contempt/0.mp4"),
        ("contempt", "happy", "sad"),
    ),
    "an empty class": Case(also(lambda m: m.folder("train/fear"))),
    "a class with a hidden file alone": Case(also(lambda m: m.file("train/fear/.DS_Store"))),
    "a class of another kind of file": refused(
        also(lambda m: m.file("train/fear/0.rmvb"), lambda m: m.file("test/fear/0.rmvb")),
        "holds no video that is read",
    ),
    "a class of frame folders": refused(
        also(lambda m: m.frames("train/fear/0001"), lambda m: m.frames("test/fear/0001")),
        "other entries such as '0001'",
    ),
    "classes that differ in case": refused(litter("train/Happy/0.mp4"), "differ in case only"),
    "a file in place of a class": Case(
        also(lambda m: m.file("train/fear")),
    ),
    "nothing in its folders": refused(
        also(lambda m: m.folder("train/happy"), lambda m: m.folder("test/happy"), base=lambda m: None),
        "holds no videos",
    ),
    "a class whose name is no text": Case(
        also(lambda m: m.video(b"train/\xe9/0.mp4", b"test/\xe9/0.mp4")),
        ("happy", "sad", "\udce9"),
        ("train/happy/0.mp4", "train/sad/0.mp4", "train/\udce9/0.mp4"),
        notes=frozenset({"short clip"}),
    ),
    "a class of two lines": Case(
        also(lambda m: m.video("train/a\nb/0.mp4", "test/a\nb/0.mp4")),
        ("a\nb", "happy", "sad"),
        ("train/a\nb/0.mp4", "train/happy/0.mp4", "train/sad/0.mp4"),
        notes=frozenset({"short clip"}),
    ),
    # ---------------------------------------------------------------------------------------------------------- clips
    "a clip whose name is no text": Case(
        also(lambda m: m.video(b"train/sad/\xff.mp4")),
        clips=("train/happy/0.mp4", "train/sad/0.mp4", "train/sad/\udcff.mp4"),
    ),
    "capital suffixes": Case(
        also(lambda m: m.video("train/sad/1.MP4")), clips=("train/happy/0.mp4", "train/sad/0.mp4", "train/sad/1.MP4")
    ),
    "another suffix that is read": Case(
        also(lambda m: m.video("train/sad/1.m4v")), clips=("train/happy/0.mp4", "train/sad/0.mp4", "train/sad/1.m4v")
    ),
    "clips in natural order": Case(
        also(lambda m: m.video("train/sad/10.mp4", "train/sad/9.mp4")),
        clips=("train/happy/0.mp4", "train/sad/0.mp4", "train/sad/9.mp4", "train/sad/10.mp4"),
    ),
    "other files beside the clips": Case(also(lambda m: m.file("train/sad/readme.txt")), notes=USUAL | {"not read"}),
    "a clip in no class": Case(litter("train/9.mp4"), notes=USUAL | {"not read"}),
    "a folder under a video's name": Case(also(lambda m: m.frames("train/sad/9.mp4")), notes=USUAL | {"not read"}),
    "a copy in the other split": Case(
        also(lambda m: m.copy("train/sad/0.mp4", "test/sad/7.mp4")), faults=frozenset({"copy in training and test"})
    ),
    "a copy in another class": Case(
        also(lambda m: m.copy("train/sad/0.mp4", "train/happy/7.mp4")),
        clips=("train/happy/0.mp4", "train/happy/7.mp4", "train/sad/0.mp4"),
        faults=frozenset({"copy in another class"}),
    ),
    "a copy in the same class": Case(
        also(lambda m: m.copy("train/sad/0.mp4", "train/sad/0 (1).mp4")),
        clips=("train/happy/0.mp4", "train/sad/0 (1).mp4", "train/sad/0.mp4"),
        notes=USUAL | {"copies of one clip"},
    ),
    "a damaged clip": refused(
        also(lambda m: m.file("train/sad/1.mp4", b"junk"), lambda m: m.file("test/sad/1.mp4", b"junk")),
        "can be decoded as video",
        "damaged clip",
    ),
    "a linked clip": refused(
        also(
            lambda m: m.link("train/sad/1.mp4", "train/sad/0.mp4"), lambda m: m.link("test/sad/1.mp4", "test/sad/0.mp4")
        ),
        "not a regular file",
        "damaged clip",
    ),
    "a linked split": Case(
        lambda m: (
            m.video("elsewhere/happy/0.mp4", "elsewhere/sad/0.mp4", "test/happy/0.mp4", "test/sad/0.mp4"),
            m.link("train", "elsewhere"),
        )
    ),
    "a pipe": refused(
        also(*(lambda m, s=s: os.mkfifo(m.root / s / "sad/1.mp4") for s in ("train", "test"))),
        "not a regular file",
        "damaged clip",
    ),
    # ---------------------------------------------------------------------------------------------------------- lists
    "a list": Case(Maker.lists, clips=LISTED),
    "a list from Windows": Case(lambda m: m.lists(b"\xef\xbb\xbfa 4 0\r\n\r\nb 4 1\r\n"), clips=LISTED),
    "a list with tabs": Case(lambda m: m.lists("a\t4\t0\n  b   1  \n"), clips=LISTED),
    "a list with slashes": Case(lambda m: m.lists("a/ 0\nb 1\n"), clips=LISTED),
    "a list of videos": Case(
        also(
            lambda m: m.video("x.mp4", "y.mp4"), lambda m: m.file("train.txt", "x.mp4 0\ny.mp4 1\n"), base=Maker.lists
        ),
        clips=("x.mp4", "y.mp4"),
    ),
    "a Mac's shadow of a list": Case(also(lambda m: m.file("._b_train.txt"), base=Maker.lists), clips=LISTED),
    "an absolute path": lines("/a 0\n", "does not lie below"),
    "a path that climbs": lines("../a 0\n", "does not lie below"),
    "a path with a zero byte": lines(b"a\0b 0\n", "does not lie below"),
    "labels from 1": lines("a 1\nb 7\n", "7 classes are numbered"),
    "a label of another script": lines("a \u0661\n", "is not '<dir>"),
    "a label of a thousand digits": lines(f"a {'9' * 5000}\n", "is not '<dir>"),
    "a count of a thousand digits": lines(f"a {'9' * 5000} 0\n", "is not '<dir>"),
    "a name with a space": lines("a b 0\n", "is not '<dir>"),
    "a clip listed twice": lines("a 0\na 0\n", "listed twice"),
    "an empty list": lines("\n\n", "lists no clips"),
    "a list that is no text": lines(b"\xff\xfe\x00a", "is not a text file"),
    "a wrong count": Case(lambda m: m.lists("a 9 0\nb 4 1\n"), clips=LISTED, faults=frozenset({"frame count differs"})),
    "a missing folder": refused(
        lambda m: (m.lists(), shutil.rmtree(m.root / "b"), shutil.rmtree(m.root / "d")),
        "cannot be listed",
        "missing clip",
    ),
    "a frame that is there twice": refused(
        lambda m: (m.lists(), *(m.copy(f"{c}/00001.png", f"{c}/00001 (1).png") for c in "abcd")),
        "one frame twice",
        "damaged clip",
    ),
    "a drawing beside each photo": refused(
        lambda m: (m.lists(), *(m.frames(c, "00000.jpg", "00001.jpg", "00002.jpg") for c in "abcd")),
        "one frame twice",
        "damaged clip",
    ),
    "a Mac's shadow of each frame": Case(
        lambda m: (m.lists(), *(m.file(f"{c}/._{n:05d}.png") for c in "abcd" for n in range(4))), clips=LISTED
    ),
    "a gap between frames": Case(
        lambda m: (m.lists("a 0\nb 1\n", "c 0\nd 1\n"), (m.root / "a/00001.png").unlink()),
        clips=LISTED,
        notes=USUAL | {"gaps between frames"},
    ),
    "a copied clip in test": Case(
        lambda m: (m.lists(), [m.copy(f"a/{n:05d}.png", f"c/{n:05d}.png") for n in range(4)]),
        clips=LISTED,
        faults=frozenset({"copy in training and test"}),
    ),
    "a deep grey frame": refused(
        lambda m: (
            m.lists(),
            *(
                m.file(f"{c}/00000.png", media_files.image_bytes(Image.fromarray(np.full((8, 8), 9999, np.uint16))))
                for c in "abcd"
            ),
        ),
        "more than 8 bits",
        "damaged frame",
    ),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("videos")
    return [
        media_files.write_video(folder / f"{n}.mp4", [np.full((8, 8, 3), 20 * n, np.uint8)] * 4).read_bytes()
        for n in range(10)
    ]


def attempt(read: Callable[[], object]) -> tuple[str, object]:
    try:
        return "read", read()
    except LogoformerError as error:
        return "refused", error.what


@pytest.mark.parametrize("name", TABLE)
def test_an_odd_data_set_is_the_same_to_every_reader(name, tmp_path, videos):
    case = TABLE[name]
    case.plant(Maker(tmp_path, videos))
    report = check_data(tmp_path)
    assert {finding.kind for finding in report.faults} == case.faults, report.text()

    def train() -> tuple[tuple[str, ...], tuple[str, ...]]:
        source = open_clips(tmp_path, "train", 1, Reading(SIZE, fewest=4))
        for _ in batches(source, in_order(len(source), 2), random_pick(SAMPLING, 0, 0)):
            pass
        ids = tuple(source.clip_id(index) for index in range(len(source)))
        assert fingerprint(zip(ids, range(len(ids)), strict=True))
        return tuple(source.labels), ids

    def evaluate() -> tuple[str, ...]:
        source = open_clips(tmp_path, "test", 1, Reading(SIZE, fewest=4))
        scored = clips_for(tmp_path, "test", 1, SIZE, tuple(source.labels))
        answers = predict_all(lambda clips: np.eye(len(scored.labels))[[0] * len(clips)], scored, SAMPLING)
        assert len(answers.ids) == len(scored)
        return tuple(scored.labels)

    def quantize() -> tuple[str, ...]:
        source = open_clips(tmp_path, "train", 1, Reading(SIZE, fewest=4))
        choose(source, SAMPLING, len(source), seed=0)
        return tuple(source.labels)

    outcomes = {"train": attempt(train), "evaluate": attempt(evaluate), "quantize": attempt(quantize)}
    if case.labels is None:
        assert outcomes["train"] == outcomes["quantize"]
        assert outcomes["train"][0] == "refused" and case.refusal in outcomes["train"][1]
        return
    assert outcomes["train"] == ("read", (case.labels, case.clips))
    assert outcomes["evaluate"] == outcomes["quantize"] == ("read", case.labels)
    assert {finding.kind for finding in report.findings if not finding.fault} == case.notes, report.text()


def test_the_table_is_long_enough():
    assert len(TABLE) >= 60


def test_test_clips_are_opened_although_training_has_clips_of_their_names(tmp_path, videos):
    """`train/happy/0.mp4` and `test/happy/0.mp4` were one clip to `data-check`, which then never opened the second."""
    maker = Maker(tmp_path, videos)
    maker.base()
    maker.file("test/happy/0.mp4", b"junk")
    report = check_data(tmp_path)
    assert report.clips == 4
    assert [(finding.kind, Path(finding.where).parts[-3:]) for finding in report.faults] == [
        ("damaged clip", ("test", "happy", "0.mp4"))
    ]
