"""Clips that a model was trained on are known again: by their list, and by name and class where it was changed."""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from logoformer.clips import DFEW_LABELS
from logoformer.errors import RefusedError
from logoformer.model.data.datasets import MAFW_LABELS, open_clips
from logoformer.model.data.listing import ListedClips, Reading, Relabelled
from logoformer.workflows.held_out import MARKS, clip_marks, own_fold, require_unseen, seen_in_training

CLIPS = 60
Rows = Sequence[tuple[str, int]]


def rows(layout: str, salt: str = "") -> list[tuple[str, int]]:
    """Sixty clips of a layout by name and class; other salt, other classes at the same names."""
    classes = len(MAFW_LABELS) if layout == "mafw" else len(DFEW_LABELS)
    draw = random.Random(f"{layout}{salt}")
    return [(f"{number:05d}", draw.randrange(classes)) for number in range(1, CLIPS + 1)]


def write_split(root: Path, layout: str, split: str, fold: int, clips: Rows) -> None:
    """One list of a data set, in its authors' form; no frame is needed to know a clip."""
    if layout == "dfew":
        path = root / f"EmoLabel_DataSplit/{split}(single-labeled)/set_{fold}.csv"
        lines = ["video_name,label", *(f"{int(name)},{label + 1}" for name, label in clips)]
    elif layout == "mafw":
        (root / "clips").mkdir(parents=True, exist_ok=True)
        path = root / f"split/single/no_caption/set_{fold}/{split}.txt"
        lines = [f"{name}.mp4 {MAFW_LABELS[label]}" for name, label in clips]
    elif layout == "ferv39k":
        (root / "2_ClipsforFaceCrop").mkdir(parents=True, exist_ok=True)
        path = root / f"4_setups/All_scenes/{split}_All.csv"
        named = [(name, DFEW_LABELS[label].capitalize()) for name, label in clips]
        lines = [f"War/{word}/{name[1:]} {word}" for name, word in named]
    else:
        path = root / f"all_set_{fold}_{split}.txt"
        lines = [f"{name} 16 {label}" for name, label in clips]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def write_folds(root: Path, layout: str, clips: Rows, folds: Sequence[int] = (1, 2, 3, 4, 5)) -> Path:
    """Five folds whose test splits part the clips; the order of `folds` says which part is whose."""
    for place, fold in enumerate(folds):
        write_split(root, layout, "test", fold, clips[place::5])
        write_split(root, layout, "train", fold, [clip for n, clip in enumerate(clips) if n % 5 != place])
    return root


def opened(root: Path, split: str, fold: int) -> ListedClips:
    return open_clips(root, split, fold, Reading(64))


def read(root: Path, fold: int, *, marks: bool = True) -> dict:
    """What a checkpoint says that it was trained on; those of 0.1 have no marks."""
    source = opened(root, "train", fold)
    found = {"fold": fold, "train_list": source.fingerprint}
    return {**found, MARKS: clip_marks(source)} if marks else found


@pytest.mark.parametrize("marks", [True, False])
@pytest.mark.parametrize("layout", ["dfew", "mafw", "lists"])
def test_only_its_own_fold_judges_a_model(layout: str, marks: bool, tmp_path: Path):
    root = write_folds(tmp_path / "data", layout, rows(layout))
    reading = read(root, 2, marks=marks)
    seen = {fold: seen_in_training(reading, root, fold, opened(root, "test", fold)) for fold in range(1, 6)}
    assert seen == {1: 12, 2: 0, 3: 12, 4: 12, 5: 12} and own_fold(reading, root) == 2


@pytest.mark.parametrize("marks", [True, False])
def test_folds_of_other_numbers_do_not_deceive(marks: bool, tmp_path: Path):
    """Another copy numbers the folds otherwise: its fold 2 holds what fold 1 of the first one held."""
    clips = rows("dfew")
    reading = read(write_folds(tmp_path / "first", "dfew", clips), 1, marks=marks)
    other = write_folds(tmp_path / "second", "dfew", clips, folds=(2, 1, 3, 4, 5))
    assert seen_in_training(reading, other, 1, opened(other, "test", 1)) == 12
    assert seen_in_training(reading, other, 2, opened(other, "test", 2)) == 0
    assert own_fold(reading, other) is None


def test_the_one_split_of_ferv39k_judges_unless_its_lists_overlap(tmp_path: Path):
    clips = rows("ferv39k")
    write_split(tmp_path, "ferv39k", "train", 1, clips[:48])
    write_split(tmp_path, "ferv39k", "test", 1, clips[48:])
    reading = read(tmp_path, 1)
    assert seen_in_training(reading, tmp_path, 1, opened(tmp_path, "test", 1)) == 0
    write_split(tmp_path, "ferv39k", "test", 1, clips[40:])
    for known in (reading, read(tmp_path, 1, marks=False)):
        assert seen_in_training(known, tmp_path, 1, opened(tmp_path, "test", 1)) == 8


def test_a_changed_list_or_a_new_one_does_not_hide_the_clips(tmp_path: Path):
    clips = rows("lists")
    root = write_folds(tmp_path / "data", "lists", clips)
    reading = read(root, 1)
    write_split(root, "lists", "train", 1, clips[1::2])
    assert seen_in_training(reading, root, 2, opened(root, "test", 2)) == 12
    # Three clips that it learned from among many that nobody knows.
    mixed = tmp_path / "mixed"
    write_split(mixed, "lists", "test", 1, [*clips[1:4], *((f"new{n}", n % 7) for n in range(50))])
    write_split(mixed, "lists", "train", 1, [("another", 0)])
    test = opened(mixed, "test", 1)
    assert seen_in_training(reading, mixed, 1, test) == 3
    with pytest.raises(RefusedError, match="3 of the 53 test clips of fold 1") as refused:
        require_unseen("one", reading, mixed, 1, test)
    assert "--fold" not in refused.value.next  # no fold of that data set is its own


def test_the_same_names_in_another_data_set_are_other_clips(tmp_path: Path):
    reading = read(write_folds(tmp_path / "one", "lists", rows("lists")), 1)
    other = write_folds(tmp_path / "other", "lists", rows("lists", "other"))
    assert [seen_in_training(reading, other, fold, opened(other, "test", fold)) for fold in (1, 2, 3)] == [0, 0, 0]
    assert own_fold(reading, other) is None


def relabelled(clips: Rows, share: float, seed: int = 0) -> list[tuple[str, int]]:
    draw = random.Random(seed)
    return [(name, (label + draw.randrange(1, 7)) % 7 if draw.random() < share else label) for name, label in clips]


def test_labels_that_were_revised_or_strangers_of_the_same_names_do_not_hide_the_clips(tmp_path: Path):
    draw = random.Random(0)
    clips = [(f"{number:05d}", draw.randrange(7)) for number in range(1000)]
    write_split(tmp_path, "lists", "train", 1, clips)
    reading = read(tmp_path, 1)
    strangers = [(name, draw.randrange(7)) for name, _ in clips]
    for test, fewest in (
        (relabelled(clips, 0.05), 930),
        (relabelled(clips, 0.11), 860),
        (relabelled(clips, 0.5), 450),
        ([*clips[:500], *strangers[500:600]], 500),
        ([*clips[:300], *strangers[300:]], 300),
    ):
        write_split(tmp_path / "test", "lists", "test", 1, test)
        assert seen_in_training(reading, tmp_path / "none", 1, opened(tmp_path / "test", "test", 1)) >= fewest


@pytest.mark.parametrize("shares", [[1, 1, 1, 1, 1, 1, 1], [60, 10, 10, 5, 5, 5, 5]])
def test_another_data_set_agrees_by_chance_alone_whatever_its_class_shares(shares: list[int], tmp_path: Path):
    draw, found = random.Random(1), []
    write_split(
        tmp_path, "lists", "train", 1, [(f"{n:05d}", c) for n, c in enumerate(draw.choices(range(7), shares, k=1000))]
    )
    reading = read(tmp_path, 1)
    for count in (20, 100, 1000) * 8:
        test = [(f"{n:05d}", c) for n, c in enumerate(draw.choices(range(7), shares, k=count))]
        write_split(tmp_path / "test", "lists", "test", 1, test)
        found.append(seen_in_training(reading, tmp_path / "none", 1, opened(tmp_path / "test", "test", 1)))
    assert found == [0] * len(found)


def write_videos(root: Path, split: str, contents: Sequence[int]) -> None:
    """Files in folders of classes, each with what its number says; no frame is needed to know a file."""
    for place, content in enumerate(contents):
        folder = root / split / DFEW_LABELS[place % 7]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{place:04d}.mp4").write_bytes(random.Random(content).randbytes(1000))


def test_videos_are_known_by_their_files_whatever_split_they_moved_to(tmp_path: Path):
    root = tmp_path / "data"
    write_videos(root, "train", range(30))
    write_videos(root, "test", range(100, 130))  # the same names, other videos
    reading = read(root, 1)
    assert seen_in_training(reading, root, 1, opened(root, "test", 1)) == 0
    (root / "train").rename(root / "other")
    (root / "test").rename(root / "train")
    (root / "other").rename(root / "test")
    test = opened(root, "test", 1)
    assert seen_in_training(reading, root, 1, test) == 30
    assert clip_marks(Relabelled(test, DFEW_LABELS[::-1])) == clip_marks(test), "a view is marked as its source"
    with pytest.raises(RefusedError, match=r"30 of the 30 .* such as 'test/happy/0000\.mp4'") as refused:
        require_unseen("one", reading, root, 1, test)
    assert "put together anew" in refused.value.cause
    # Marks that name no files, as those of checkpoints before, tell nothing here, and nothing wrong.
    names = [f"train/{DFEW_LABELS[n % 7]}/{n:04d}.mp4\n{DFEW_LABELS[n % 7]}" for n in range(30)]
    old = base64.b64encode(b"".join(sorted(hashlib.sha256(n.encode()).digest()[:5] for n in names))).decode()
    assert set(marks_of(old)) < set(marks_of(reading[MARKS]))
    assert seen_in_training({**reading, MARKS: old}, root, 1, test) == 0


def test_a_video_among_others_is_known_under_another_name_and_class(tmp_path: Path):
    write_videos(tmp_path / "one", "train", range(30))
    reading = read(tmp_path / "one", 1)
    write_videos(tmp_path / "two", "test", [200, 201, 7, 203, 8, 205, 206])
    assert seen_in_training(reading, tmp_path / "two", 1, opened(tmp_path / "two", "test", 1)) == 2
    stranger = tmp_path / f"two/test/{DFEW_LABELS[5]}/0005.mp4"
    stranger.unlink()
    stranger.symlink_to("nowhere")  # reading it is refused later, by name
    assert seen_in_training(reading, tmp_path / "two", 1, opened(tmp_path / "two", "test", 1)) == 2


def marks_of(text: str) -> list[bytes]:
    data = base64.b64decode(text)
    return [data[start : start + 5] for start in range(0, len(data), 5)]


@pytest.mark.parametrize("marks", [None, 7, "not base64!", "AAAA", ""])
def test_marks_that_are_none_are_no_marks(marks: object, tmp_path: Path):
    root = write_folds(tmp_path, "lists", rows("lists"))
    assert seen_in_training({"fold": 1, "train_list": "", MARKS: marks}, root, 2, opened(root, "test", 2)) == 0
