"""Readers of the data sets' layouts, and `data-check`: every planted fault is found, and none in the clean ones."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.clips import DFEW_LABELS
from logoformer.errors import BadInputError, LogoformerError, RefusedError, UsageError
from logoformer.model.data import ferv39k
from logoformer.model.data.check import check_data
from logoformer.model.data.datasets import MAFW_LABELS, find_layout, list_listing, open_clips, open_listing
from logoformer.model.data.listing import Entry, ListedClips, Listing, Reading, numbered_as
from logoformer.model.synthetic.layout import synth
from PIL import Image

READING = Reading(size=32)


@pytest.fixture(scope="session")
def clean(tmp_path_factory) -> dict[str, Path]:
    """Small data sets in both layouts. Copy one before planting anything."""
    folder = tmp_path_factory.mktemp("clean")
    synth(folder / "dfew", identities=5, per_identity=7, side=32, workers=1)
    synth(folder / "ferv39k", "ferv39k", identities=5, per_identity=7, side=32, workers=1)
    return {name: folder / name for name in ("dfew", "ferv39k")}


@pytest.fixture
def planted(clean, tmp_path):
    """`planted("dfew")`: a copy to plant faults in."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(clean[name], tmp_path / name))

    return copy


def kinds(root: Path, *, faults: bool = True) -> set[str]:
    report = check_data(root)
    return {f.kind for f in (report.faults if faults else report.findings)}


# ------------------------------------------------------------------------------------------------------------ clean
@pytest.mark.parametrize("name", ["dfew", "ferv39k"])
def test_a_clean_data_set_has_no_faults(clean, name):
    report = check_data(clean[name])
    assert report.faults == () and report.layout == name and report.clips == 35
    assert set(report.classes) == set(DFEW_LABELS) and sum(report.classes.values()) == 35
    assert report.sizes == {"32 x 32": report.frames} and report.shortest >= 40
    assert "0 faults" in report.text() and report.to_json()["clips"] == 35


def test_a_data_set_of_one_split_has_no_other_fold(clean):
    with pytest.raises(UsageError, match="one split"):
        open_listing(clean["ferv39k"], "train", 2)
    assert open_listing(clean["dfew"], "train", 2).entries


def test_ferv39k_reads_both_numberings_alike(clean, planted):
    own, other = planted("ferv39k"), clean["ferv39k"]
    shutil.rmtree(own / ferv39k.LISTS)
    alphabetical, words = open_listing(own, "test"), open_listing(other, "test")
    assert alphabetical.source.endswith("Annotation/test.csv") and words.source.endswith("test_All.csv")
    assert alphabetical.entries == words.entries and words.labels == DFEW_LABELS
    text = (own / "label_index.txt").read_text().split()
    assert text[:4] == ["0", "Angry", "1", "Disgust"]  # not the numbers of words.labels


def test_a_model_of_the_other_numbering_is_scored_by_names(clean):
    """Both codings of FERV39k evaluate to the same UAR, and a wrong numbering would not."""
    from logoformer.model.training.evaluate import predict_all

    alphabetical = tuple(sorted(DFEW_LABELS))
    source = open_clips(clean["ferv39k"], "test", 1, Reading(size=32, fewest=8))
    truth = {source.frames(i, [0]).tobytes(): source.labels[source.label(i)] for i in range(len(source))}

    def knows(labels):
        """Right about six classes of seven, by name, in its own numbering."""

        def predict(clips):
            names = [truth[clip[:1].tobytes()] for clip in clips]
            return np.array([[float(n == name and n != "fear") for name in labels] for n in names])

        return predict

    from logoformer.clips import Sampling

    first = Sampling(1, 1)
    here = predict_all(knows(DFEW_LABELS), First(source), first).metrics()
    there = predict_all(knows(alphabetical), numbered_as(First(source), alphabetical), first).metrics()
    assert here.uar == there.uar == pytest.approx(6 / 7)
    wrong = predict_all(knows(alphabetical), First(source), first).metrics()
    assert wrong.uar < 0.5


class First:
    """A source whose clips are their first frame."""

    def __init__(self, source):
        self.source, self.labels, self.size = source, source.labels, source.size

    def __len__(self):
        return len(self.source)

    def label(self, index):
        return self.source.label(index)

    def clip_id(self, index):
        return self.source.clip_id(index)

    def count(self, index):
        return 1

    def frames(self, index, indices, box=None):
        return self.source.frames(index, [0] * len(indices), box)


# ----------------------------------------------------------------------------------------------------------- planting
def rewrite(path: Path, change) -> None:
    path.write_text(change(path.read_text()))


def zero_based(text: str) -> str:
    head, *rows = text.splitlines()
    return "\n".join([head, *(f"{r.split(',')[0]:0>5},{int(r.split(',')[1]) - 1}" for r in rows)]) + "\n"


TEST_1 = "EmoLabel_DataSplit/test(single-labeled)/set_1.csv"
TRAIN_1 = "EmoLabel_DataSplit/train(single-labeled)/set_1.csv"
CLIP = "Clip/clip_224x224/00001"
DFEW_FAULTS = {
    "labels from 0, as S2D redistributes them": ("bad list", lambda r: rewrite(r / TEST_1, zero_based)),
    "a label out of range": ("bad list", lambda r: rewrite(r / TEST_1, lambda t: t + "9,8\n")),
    "a clip listed twice": ("bad list", lambda r: rewrite(r / TEST_1, lambda t: t + t.splitlines()[1] + "\n")),
    "a list that is gone": ("bad list", lambda r: (r / TEST_1).unlink()),
    "a clip in training and test": (
        "in training and test",
        lambda r: rewrite(r / TRAIN_1, lambda t: t + (r / TEST_1).read_text().splitlines()[1] + "\n"),
    ),
    "a clip in two test folds": (
        "in two test folds",
        lambda r: rewrite(
            r / TEST_1.replace("set_1", "set_2"), lambda t: t + (r / TEST_1).read_text().splitlines()[1] + "\n"
        ),
    ),
    "a clip in no test fold": (
        "in no test fold", lambda r: rewrite(r / TEST_1, lambda t: "\n".join(t.splitlines()[:-1]) + "\n"),
    ),
    "a clip of two classes": (
        "two classes", lambda r: rewrite(r / TEST_1, lambda t: t.replace(",1\n", ",2\n", 1)),
    ),
    "a folder that is gone": ("missing clip", lambda r: shutil.rmtree(r / CLIP)),
    "an empty folder": ("missing clip", lambda r: (shutil.rmtree(r / CLIP), (r / CLIP).mkdir())),
    "a truncated frame": ("damaged frame", lambda r: truncate(next((r / CLIP).iterdir()))),
    "text in a frame's place": ("damaged frame", lambda r: next((r / CLIP).iterdir()).write_text("<html>")),
    "a link in a frame's place": ("not a regular file", lambda r: link(next((r / CLIP).iterdir()))),
}  # fmt: skip
DFEW_NOTES = {
    "256 in a folder called 224": ("another size than the folder's name", lambda r: resize_all(r / CLIP, 256)),
    "a clip of 11 frames": ("short clip", lambda r: [f.unlink() for f in sorted((r / CLIP).iterdir())[11:]]),
    "images of two sizes": ("images of several sizes", lambda r: resize_all(r / CLIP, 40, 3)),
    "a folder that no list names": ("folders that no list names", lambda r: (r / "Clip/clip_224x224/99999").mkdir()),
    "three frames that are gone": (
        "gaps between frames",
        lambda r: [f.unlink() for f in sorted((r / CLIP).iterdir())[4:7]],
    ),
    "a class without clips": (
        "class without clips",
        lambda r: rewrite(r / TEST_1, lambda t: "\n".join(x for x in t.splitlines() if not x.endswith(",7")) + "\n"),
    ),
}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def link(path: Path) -> None:
    other = path.with_name("other.bin")
    path.rename(other)
    path.symlink_to(other)


def resize_all(folder: Path, side: int, count: int = 1000) -> None:
    for path in sorted(folder.iterdir())[:count]:
        Image.open(path).resize((side, side)).save(path)


@pytest.mark.parametrize("fault", DFEW_FAULTS)
def test_every_planted_fault_of_dfew_is_found(planted, fault):
    kind, plant = DFEW_FAULTS[fault]
    root = planted("dfew")
    plant(root)
    found = kinds(root)
    assert kind in found
    # one fault may be seen from two sides: a clip that left its test list is in no test fold, and so on
    assert len(found) <= 2


@pytest.mark.parametrize("note", DFEW_NOTES)
def test_every_oddity_of_dfew_is_noted_and_is_no_fault(planted, note):
    kind, plant = DFEW_NOTES[note]
    root = planted("dfew")
    plant(root)
    assert kind in kinds(root, faults=False)
    if note != "a class without clips":  # then the clips are in no test fold, which is a fault
        assert kinds(root) == set()


WORDS = "4_setups/All_scenes/test_All.csv"
FERV_FAULTS = {
    "an unknown class": ("bad list", lambda r: rewrite(r / WORDS, lambda t: t + "War/Bored/0001 Bored\n")),
    "a class that is not its folder's": (
        "bad list", lambda r: rewrite(r / WORDS, lambda t: t.replace(" Happy", " Sad", 1)),
    ),
    "lists that disagree": ("bad list", lambda r: rewrite(r / WORDS, lambda t: "\n".join(t.splitlines()[1:]) + "\n")),
    "numbers without their index": (
        "bad list", lambda r: ((r / "label_index.txt").unlink(), shutil.rmtree(r / "4_setups")),
    ),
    "the other numbering's index": (
        "bad list",
        lambda r: (
            shutil.rmtree(r / "4_setups"),
            (r / "label_index.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(DFEW_LABELS))),
        ),
    ),
    "a path that climbs out": ("bad list", lambda r: rewrite(r / WORDS, lambda t: t + "../../x/Happy/0001 Happy\n")),
    "a clip in training and test": (
        "in training and test",
        lambda r: (
            shutil.rmtree(r / "Annotation"),
            rewrite(r / WORDS, lambda t: t + (r / WORDS.replace("test", "train")).read_text().splitlines()[0] + "\n"),
        ),
    ),
    "a folder that is gone": ("missing clip", lambda r: shutil.rmtree(next((r / ferv39k.FRAMES).glob("*/*/0001")))),
    "a truncated frame": ("damaged frame", lambda r: truncate(next((r / ferv39k.FRAMES).glob("*/*/*/*.jpg")))),
}  # fmt: skip


@pytest.mark.parametrize("fault", FERV_FAULTS)
def test_every_planted_fault_of_ferv39k_is_found(planted, fault):
    kind, plant = FERV_FAULTS[fault]
    root = planted("ferv39k")
    plant(root)
    assert kinds(root) == {kind}


# ------------------------------------------------------------------------------------------------------------- reading
def test_layouts_are_found_by_what_a_folder_holds(clean, tmp_path):
    assert {name: find_layout(root) for name, root in clean.items()} == {"dfew": "dfew", "ferv39k": "ferv39k"}
    with pytest.raises(BadInputError, match="no data set that is known here"):
        find_layout(tmp_path)
    with pytest.raises(UsageError, match="Unknown layout 'imagenet'"):
        open_listing(tmp_path, "train", layout="imagenet")


def frames_in(folder: Path, count: int, side: int = 24) -> None:
    folder.mkdir(parents=True)
    for number in range(count):
        Image.new("RGB", (side, side), (number * 10, 0, 0)).save(folder / f"{number + 1}.png")


def test_plain_lists_with_and_without_counts(tmp_path):
    frames_in(tmp_path / "a", 20)
    frames_in(tmp_path / "deep/b", 12)
    (tmp_path / "train.txt").write_text("a 20 0\ndeep/b 13 6\n")
    (tmp_path / "test.txt").write_text("deep/b/ 2\n")
    source = open_clips(tmp_path, "train", 1, READING)
    assert [source.clip_id(i) for i in range(2)] == ["a", "deep/b"] and source.count(1) == 12
    assert source.labels[source.label(1)] == "fear"
    report = check_data(tmp_path)
    assert {(f.kind, f.fault) for f in report.findings if f.fault} == {
        ("frame count differs", True), ("in training and test", True), ("two classes", True),
    }  # fmt: skip
    for text, message in [
        ("a 20 7\n", "the label 7; 7 classes"), ("a 20 7\nb 3 1\n", "counts from 1|label 7"), ("a\n", "is not '<dir>"),
        ("/data/a 20 0\n", "does not lie below"), ("a 20 0\na 20 0\n", "listed twice"),
        ("a x 0\n", "is not '<dir>"), ("a ¹ 0\n", "is not '<dir>"),
    ]:  # fmt: skip
        (tmp_path / "train.txt").write_text(text)
        with pytest.raises(BadInputError, match=message):
            list_listing(tmp_path, "train.txt")
    (tmp_path / "train.txt").write_text("a 20 1\ndeep/b 12 7\n")
    with pytest.raises(BadInputError) as caught:
        list_listing(tmp_path, "train.txt")
    assert "counts from 1" in caught.value.cause and "subtract 1" in caught.value.next


def test_lists_of_folds_by_their_names(tmp_path):
    frames_in(tmp_path / "a", 16)
    for fold in (1, 2):
        (tmp_path / f"DFEW_set_{fold}_train.txt").write_text(f"a 16 {fold}\n")
    assert [open_listing(tmp_path, "train", fold).entries[0].label for fold in (1, 2)] == [1, 2]
    (tmp_path / "DFEW_set_1_test.txt").write_text("a 16 1\n")
    (tmp_path / "DFEW_set_2_test.txt").write_text("a 17 2\n")
    found = {(f.kind, f.where) for f in check_data(tmp_path).faults}
    assert {("in training and test", "a"), ("in two test folds", "a"), ("bad list", "test, fold 5")} <= found
    (tmp_path / "MAFW_set_1_train.txt").write_text("a 16 1\n")
    with pytest.raises(BadInputError, match=r"several lists for 'train', fold 1: 'DFEW_set_1_train\.txt', 'MAFW"):
        open_listing(tmp_path, "train", 1)


def test_a_plain_list_of_ferv39k_in_the_other_numbering_is_refused(tmp_path):
    (tmp_path / "train.txt").write_text("Action/Happy/0063 30 0\nWar/Fear/0001 20 6\n")
    assert [entry.label for entry in list_listing(tmp_path, "train.txt").entries] == [0, 6]
    (tmp_path / "train.txt").write_text("Action/Happy/0063 30 3\nWar/Fear/0001 20 2\n")  # alphabetical
    with pytest.raises(BadInputError, match=r"line 1: the folder 'Action/Happy/0063' and the label 3 \(angry\)"):
        list_listing(tmp_path, "train.txt")


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> bytes:
    """20 frames, each of another grey."""
    import cv2

    path = tmp_path_factory.mktemp("video") / "v.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (64, 64))
    for number in range(20):
        writer.write(np.full((64, 64, 3), 12 * number, np.uint8))
    writer.release()
    return path.read_bytes()


def test_folders_of_videos_and_mafw(tmp_path, video):
    for place in ("train/happy", "train/fear", "test/happy"):
        (tmp_path / "v" / place).mkdir(parents=True)
        (tmp_path / "v" / place / "1.mp4").write_bytes(video)
    source = open_clips(tmp_path / "v", "train", 1, READING)
    assert source.labels == DFEW_LABELS and [source.label(i) for i in range(len(source))] == [0, 6]
    frames = source.frames(0, [3, 0, 19, 3])
    assert source.count(0) == 20 and frames.shape == (4, 32, 32, 3)
    assert np.abs(frames.mean((1, 2, 3)) - [36, 0, 228, 36]).max() < 6
    mafw = tmp_path / "mafw"
    (mafw / "split/single/no_caption/set_1").mkdir(parents=True)
    (mafw / "split/single/no_caption/set_1/train.txt").write_text("00025.mp4 contempt\n")
    (mafw / "data/clips").mkdir(parents=True)
    (mafw / "data/clips/00025.mp4").write_bytes(video)
    source = open_clips(mafw, "train", 1, READING)
    assert MAFW_LABELS[source.label(0)] == "contempt" and source.frames(0, [0, 1]).shape == (2, 32, 32, 3)
    (mafw / "data/clips/00025.mp4").write_bytes(video[:200])
    with pytest.raises(BadInputError, match=r"No frame of .*00025\.mp4"):
        open_clips(mafw, "train", 1, READING).count(0)
    (mafw / "data/clips/00025.mp4").unlink()
    (mafw / "data/clips/00025.mp4").symlink_to("/dev/null")
    with pytest.raises(RefusedError, match="not a regular file"):
        open_clips(mafw, "train", 1, READING).count(0)


def listing(root: Path) -> Listing:
    entries = (Entry("long", "long", 0), Entry("short", "short", 1))
    return Listing(root, DFEW_LABELS, entries, "list")


def test_short_clips_by_policy(tmp_path):
    frames_in(tmp_path / "long", 20)
    frames_in(tmp_path / "short", 5)

    def reds(policy, indices):
        source = ListedClips(listing(tmp_path), Reading(24, policy))
        return [int(frame[0, 0, 0]) // 10 for frame in source.frames(1, indices)], source.count(1)

    assert reds("former", [0, 4]) == ([0, 4], 5)
    assert reds("pad", [0, 4, 5, 15]) == ([0, 4, 4, 4], 16)
    assert reds("repeat", [0, 4, 5, 15]) == ([0, 4, 0, 0], 16)
    dropped = ListedClips(listing(tmp_path), Reading(24, "drop"))
    assert len(dropped) == 1 and dropped.dropped == ("short",)
    with pytest.raises(UsageError, match="Unknown policy 'zeros'"):
        Reading(24, "zeros")


def test_damaged_frames_are_counted_replaced_and_too_many_end_it(tmp_path):
    frames_in(tmp_path / "long", 20)
    frames_in(tmp_path / "short", 5)
    for number in (3, 4):
        (tmp_path / "long" / f"{number}.png").write_bytes(b"x")
    with pytest.raises(BadInputError, match=r"long/3\.png"):
        ListedClips(listing(tmp_path), Reading(24)).frames(0, [2])
    source = ListedClips(listing(tmp_path), Reading(24, max_damaged=2))
    assert [int(f[0, 0, 0]) // 10 for f in source.frames(0, [2, 3, 5])] == [1, 4, 5]
    assert sorted(Path(name).name for name in source.damaged) == ["3.png", "4.png"]
    (tmp_path / "long/9.png").write_bytes(b"x")
    with pytest.raises(BadInputError, match="3 frames cannot be read; 2 are allowed"):
        source.frames(0, [8])


@given(st.text(max_size=60) | st.from_regex(r"[A-Z][a-z]+/(Happy|Sad)/\d{4} (Happy|Sad|sad|Bored)", fullmatch=True))
@settings(max_examples=200, deadline=None)
def test_any_line_gives_clips_or_a_message(tmp_path_factory, line):
    root = tmp_path_factory.getbasetemp() / "ferv-any"
    (root / ferv39k.LISTS).mkdir(parents=True, exist_ok=True)
    (root / ferv39k.LISTS / "test_All.csv").write_bytes(line.encode("utf-8", "surrogatepass"))
    try:
        found = ferv39k.ferv39k_listing(root, "test")
    except LogoformerError:
        return
    assert all(os.path.normpath(entry.place).startswith(ferv39k.FRAMES + "/") for entry in found.entries)
