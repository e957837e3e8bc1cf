"""The reader of DFEW's layout: what it accepts, what it refuses, and that its pixels are the runtime's."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.clips import DFEW_LABELS, resize
from logoformer.errors import BadInputError, RefusedError, UsageError
from logoformer.media.stills import decode_still
from logoformer.model.data.dfew import clip_name, dfew_listing, parse_list
from logoformer.model.data.listing import ListedClips, Reading
from PIL import Image

GOOD = b"video_name,label\n1,3\n16372,7\n"


def textured(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Noise: what betrays a second resize."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def open_dfew(root: Path, split: str, fold: int = 1, size: int = 64) -> ListedClips:
    return ListedClips(dfew_listing(root, split, fold), Reading(size))


def labelled(data: bytes) -> list[tuple[str, int]]:
    return [(entry.name, entry.label) for entry in parse_list(data, "set_1.csv")]


@pytest.fixture
def root(tmp_path) -> Path:
    """Three clips; 256 x 256 images in the folder that is called 224, one of another shape, names without zeros."""
    lists = tmp_path / "EmoLabel_DataSplit"
    for split, text in (("train", "video_name,label\n1,1\n2,7\n"), ("test", "video_name,label\n00003,5\n")):
        (lists / f"{split}(single-labeled)").mkdir(parents=True)
        (lists / f"{split}(single-labeled)" / "set_1.csv").write_text(text)
    for number, (count, height, width) in enumerate([(12, 256, 256), (3, 64, 64), (11, 200, 120)], start=1):
        folder = tmp_path / "Clip" / "clip_224x224" / clip_name(number)
        folder.mkdir(parents=True)
        for index in range(1, count + 1):
            Image.fromarray(textured(height, width, 100 * number + index)).save(folder / f"{index}.png")
    return tmp_path


# ------------------------------------------------------------------------------------------------------------ reading
def test_labels_names_and_counts(root):
    train, test = open_dfew(root, "train", 1), open_dfew(root, "test", 1)
    assert [train.clip_id(i) for i in range(len(train))] == ["00001", "00002"]
    assert [DFEW_LABELS[train.label(i)] for i in range(2)] == ["happy", "fear"]
    assert (test.clip_id(0), DFEW_LABELS[test.label(0)]) == ("00003", "surprise")
    assert [train.count(0), train.count(1), test.count(0)] == [12, 3, 11]


@pytest.mark.parametrize("size", [48, 64, 112])
def test_pixels_are_those_of_the_one_resize(root, size):
    reader = open_dfew(root, "train", 1, size)
    frames = reader.frames(0, [4, 0, 4, 11])
    assert frames.shape == (4, size, size, 3)
    for place, number in enumerate([5, 1, 5, 12]):
        np.testing.assert_array_equal(frames[place], resize(textured(256, 256, 100 + number), size))
    assert open_dfew(root, "test", 1, size).frames(0, [0]).shape == (1, size, size, 3)  # 200 x 120


def test_frame_10_comes_after_frame_9(root):
    frames = open_dfew(root, "test", 1, 64).frames(0, range(11))
    for index in range(11):
        np.testing.assert_array_equal(frames[index], resize(textured(200, 120, 301 + index), 64))


def test_only_the_frames_asked_for_are_opened(root):
    (root / "Clip/clip_224x224/00001/7.png").write_bytes(b"not an image")
    reader = open_dfew(root, "train", 1)
    reader.frames(0, [0, 5, 7])
    with pytest.raises(BadInputError, match=r"00001/7\.png"):
        reader.frames(0, [6])


def test_grey_and_alpha_images_become_rgb(root):
    folder = root / "Clip/clip_224x224/00002"
    Image.new("L", (64, 64), 200).save(folder / "1.png")
    Image.new("RGBA", (64, 64), (1, 2, 3, 4)).save(folder / "2.png")
    frames = open_dfew(root, "train", 1).frames(1, [0, 1])
    assert frames[0, 0, 0].tolist() == [200, 200, 200]
    assert frames[1, 0, 0].tolist() == [1, 2, 3]


# ----------------------------------------------------------------------------------------------------------- refusing
def test_missing_parts_are_named(root, tmp_path_factory):
    with pytest.raises(BadInputError, match="does not hold EmoLabel_DataSplit"):
        open_dfew(tmp_path_factory.mktemp("empty"), "train")
    with pytest.raises(BadInputError, match=r"set_2\.csv does not exist"):
        open_dfew(root, "train", 2)
    (root / "Clip/clip_224x224/00002").rename(root / "gone")
    with pytest.raises(BadInputError, match="00002"):
        open_dfew(root, "train", 1).count(1)
    (root / "Clip/clip_224x224/00002").mkdir()
    with pytest.raises(BadInputError, match="holds no image"):
        open_dfew(root, "train", 1).count(1)


@pytest.mark.parametrize("split, fold", [("validation", 1), ("train", 0), ("test", 6), ("../..", 1)])
def test_unknown_split_or_fold(root, split, fold):
    with pytest.raises(UsageError, match="split"):
        open_dfew(root, split, fold)


def test_truncated_frame_is_named(root):
    file = root / "Clip/clip_224x224/00001/1.png"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BadInputError, match=r"00001/1\.png .*truncated"):
        open_dfew(root, "train", 1).frames(0, [0])


def test_a_frame_that_vanished_is_named(root):
    reader = open_dfew(root, "train", 1)
    assert reader.count(0) == 12
    (root / "Clip/clip_224x224/00001/3.png").unlink()
    with pytest.raises(BadInputError, match=r"00001/3\.png does not exist"):
        reader.frames(0, [2])


def test_links_and_pipes_are_not_followed(root):
    folder = root / "Clip/clip_224x224/00001"
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to(folder / "2.png")
    (folder / "2.png").unlink()
    os.mkfifo(folder / "2.png")
    reader = open_dfew(root, "train", 1)
    for index in (0, 1):
        with pytest.raises(RefusedError):
            reader.frames(0, [index])


def test_huge_picture_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (7000, 7000)).save(tmp_path / "wide.png")
    with pytest.raises(BadInputError, match="7000 x 7000"):
        decode_still((tmp_path / "wide.png").read_bytes(), "wide.png")


# -------------------------------------------------------------------------------------------------------------- lists
def test_list_is_parsed():
    assert labelled(GOOD) == [("00001", 2), ("16372", 6)]
    assert labelled(b"\xef\xbb\xbfvideo_name,label\r\n00001, 3\r\n\r\n") == [("00001", 2)]


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "does not begin"),
        (b"1,3\n", "does not begin"),
        (b"video_name,label\n", "lists no clips"),
        (b"video_name,label\n1,0\n", "counts from 0"),
        (b"video_name,label\n1,8\n", "label 8"),
        (b"video_name,label\n1,-1\n", "in digits"),
        (b"video_name,label\n1\n", "in digits"),
        (b"video_name,label\n1,2,3\n", "in digits"),
        (b"video_name,label\n../../etc,2\n", "in digits"),
        ("video_name,label\n\u0663,2\n".encode(), "in digits"),
        (b"video_name,label\n1,2\n00001,3\n", "twice"),
        (b"\xff\xfe", "not a CSV"),
        (b'video_name,label\n"1,2\n', "not a CSV"),
    ],
)
def test_bad_lists_are_refused(data, message):
    with pytest.raises(BadInputError, match=message):
        parse_list(data, "set_1.csv")


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: GOOD + tail))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_a_list_or_a_message(data):
    try:
        entries = labelled(data)
    except BadInputError:
        return
    assert entries
    assert all(name.isdigit() and 0 <= label <= 6 for name, label in entries)


@given(st.lists(st.tuples(st.integers(1, 99999), st.integers(1, 7)), min_size=1, max_size=30, unique_by=lambda e: e[0]))
def test_lists_round_trip(entries):
    text = "video_name,label\n" + "".join(f"{name},{label}\n" for name, label in entries)
    assert labelled(text.encode()) == [(f"{name:05d}", label - 1) for name, label in entries]


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_any_bytes_give_an_image_or_a_message(data):
    for blob in (data, b"\x89PNG\r\n\x1a\n" + data, b"\xff\xd8\xff\xe0" + data):
        with pytest.raises(BadInputError):
            decode_still(blob, "frame")
