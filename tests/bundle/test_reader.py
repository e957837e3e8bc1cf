"""Opening a bundle and reading from it: what it holds comes out, and nothing but what its index names."""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logoformer.bundle import Bundle, StreamSpec, TensorSpec
from logoformer.bundle.files import sha256
from logoformer.bundle.npz import dump_npz
from logoformer.clips import Sampling
from logoformer.errors import BadInputError, RefusedError


# ---------------------------------------------------------------------------------------------------------------- whole
def test_a_bundle_says_what_it_holds(small):
    bundle = Bundle(str(small))
    assert bundle.labels == ("calm", "glad", "Zürich")
    assert bundle.sampling == Sampling(2, 1, 1.0, 10.0)
    assert bundle.stream == StreamSpec(slots=5, faces=2, frames=2, grid=2, window=(2, 1, 2), embed_dim=3)
    assert (bundle.stream.tokens_per_frame, bundle.stream.rows) == (4, 40)
    assert (bundle.frames, bundle.image_size) == (2, 4)
    assert [(g.graph, g.precision) for g in bundle.graphs[:4]] == [
        ("clip", "fp32"), ("frame", "fp32"), ("temporal", "fp32"), ("clip", "fp16"),
    ]  # fmt: skip
    assert bundle.precisions["fp16"]["verdict"] == "accept"
    entry = bundle.graph("temporal", "fp16")
    assert entry.inputs == (TensorSpec("ring", "float32", (40, 3)), TensorSpec("order", "int32", (8,)))
    assert (entry.opset, entry.batch, entry.macs) == (20, 1, {"fp16": 1000})
    assert bundle.read_graph(entry) == b"temporal fp16 one " * 40
    assert bundle.golden().clips.shape == (4, 2, 4, 4, 3)
    assert bundle.golden().probabilities.sum(1) == pytest.approx(1, abs=1e-6)
    assert str(entry.inputs[1]) == "order: int32 [8]"


def test_files_are_named_by_their_content(small, contents):
    names = {name: data for name, data in contents(small).items() if name not in ("manifest.json", "CARD.md")}
    for name, data in names.items():
        pattern = r"graphs/(clip|frame|temporal)\.(fp32|fp16)\.b1\.%s\.onnx|golden/%s\.npz"
        assert re.fullmatch(pattern.replace("%s", sha256(data)[:8]), name), name
    assert len(names) == 7


def test_the_same_content_gives_the_same_bytes(small, tmp_path, write_bundle, contents):
    assert contents(write_bundle(tmp_path / "elsewhere", "one").path) == contents(small)
    assert contents(write_bundle(tmp_path / "other", "two").path).keys() != contents(small).keys()


def test_a_graph_that_is_not_there_names_those_that_are(small):
    for wanted in (("clip", "int8"), ("spatial", "fp32"), ("clip", "fp32", 4)):
        with pytest.raises(BadInputError, match="has no graph") as caught:
            Bundle(small).graph(*wanted)
        assert "'temporal fp16 b1'" in caught.value.cause
        assert caught.value.next


# -------------------------------------------------------------------------------------------------------------- missing
def test_where_no_bundle_stands_the_next_command_makes_one(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nothing", tmp_path / "empty", tmp_path / ("x" * 5000)):
        with pytest.raises(BadInputError, match="There is no bundle") as caught:
            Bundle(path)
        assert caught.value.next.startswith(f"logoformer export CHECKPOINT -o {str(path)[:900]}")
    with pytest.raises(BadInputError):
        Bundle("a\0b")


def test_what_stands_in_the_place_of_a_bundle_is_named_and_never_a_place_to_export_to(small, tmp_path):
    (tmp_path / "scene.mp4").write_bytes(b"x")
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "1.png").write_bytes(b"x")
    for path, named in (
        (tmp_path / "scene.mp4", "the bundle comes first"),
        (tmp_path / "frames", "'1.png', or the arguments are the other way round"),
        (small / "manifest.json", "it is the index of a bundle"),
    ):
        with pytest.raises(BadInputError, match="There is no bundle") as caught:
            Bundle(path)
        assert named in caught.value.cause and "CHECKPOINT" not in caught.value.next
    assert caught.value.next == f"name the folder: {small}"


def test_an_export_that_did_not_finish_is_done_again(small):
    (small / "manifest.json").unlink()
    with pytest.raises(BadInputError, match="There is no bundle") as caught:
        Bundle(small)
    assert "did not finish" in caught.value.cause and "graphs/" in caught.value.cause
    assert caught.value.next == f"logoformer export CHECKPOINT -o {small}"


DAMAGE: dict[str, Callable[[Path, Path], object]] = {
    "a link to the right file": lambda place, aside: place.rename(aside) and place.symlink_to(aside),
    "a link to nothing": lambda place, aside: place.unlink() or place.symlink_to(aside),
    "a pipe": lambda place, aside: place.unlink() or os.mkfifo(place),
    "a folder": lambda place, aside: place.unlink() or place.mkdir(),
    "nothing": lambda place, aside: place.unlink(),
    "an empty file": lambda place, aside: place.write_bytes(b""),
    "a shorter file": lambda place, aside: os.truncate(place, place.stat().st_size - 1),
    "a longer file": lambda place, aside: place.write_bytes(place.read_bytes() + b"\n"),
    "a huge file": lambda place, aside: os.truncate(place, 1 << 40),
}


@pytest.mark.parametrize("what", DAMAGE)
@pytest.mark.parametrize("where", ["manifest.json", "graphs", "golden"])
def test_another_thing_in_the_place_of_a_file_is_refused(small, tmp_path, what, where, impatient, descriptors, refused):
    place = next(p for p in sorted(small.rglob("*")) if p.is_file() and p.relative_to(small).parts[0] == where)
    DAMAGE[what](place, tmp_path / "aside")
    kind = BadInputError if (what, where) == ("nothing", "manifest.json") else RefusedError
    error = refused(small, kind)
    assert (str(place) if kind is RefusedError else str(small)) in error.what


@pytest.mark.parametrize("folder", ["graphs", "golden"])
def test_a_link_in_the_place_of_a_folder_is_refused_though_all_files_are_right(
    small, tmp_path, folder, descriptors, refused
):
    (small / folder).rename(tmp_path / "aside")
    (small / folder).symlink_to(tmp_path / "aside")
    refused(small)


def test_a_link_to_the_whole_bundle_is_followed_because_the_user_named_it(small, tmp_path, read_everything):
    (tmp_path / "link").symlink_to(small)
    assert len(read_everything(tmp_path / "link")) == 7


def test_a_whole_copy_is_as_good(small, tmp_path, read_everything):
    assert len(read_everything(Path(shutil.copytree(small, tmp_path / "copy")))) == 7


# ----------------------------------------------------------------------------------------------------------- one bit
def test_one_flipped_bit_anywhere_is_refused(small, contents, refused, read_everything):
    rng = random.Random(11)
    for name, good in contents(small).items():
        if name == "CARD.md":  # a note that no program reads
            continue
        places = range(len(good)) if len(good) < 60 else sorted(rng.sample(range(len(good)), 60))
        for place in places:
            changed = bytearray(good)
            changed[place] ^= 1 << rng.randrange(8)
            (small / name).write_bytes(changed)
            assert str(small / name) in refused(small).what
        (small / name).write_bytes(good)
    assert len(read_everything(small)) == 7


@pytest.mark.parametrize(
    "part",
    [b'"calm"', b"Z\\u00fcrich", b'"labels"', b'"digest"', b'"fps"', b"10.0", b'"accept"', b"\n  ", b"1000", b"}\n"],
)
def test_every_bit_of_every_kind_of_place_in_the_index_counts(small, part, refused):
    good = (small / "manifest.json").read_bytes()
    start = good.index(part)
    for place in range(start, start + len(part)):
        for bit in range(8):
            changed = bytearray(good)
            changed[place] ^= 1 << bit
            (small / "manifest.json").write_bytes(changed)
            refused(small)


def test_a_label_changed_by_hand_is_refused(small, refused):
    text = (small / "manifest.json").read_text()
    (small / "manifest.json").write_text(text.replace('"glad"', '"grim"'))
    error = refused(small)
    assert "does not match its own digest" in error.what
    assert error.next == f"logoformer export CHECKPOINT -o {small}"


# --------------------------------------------------------------------------------------------------------------- golden
@pytest.fixture
def with_golden(reseal):
    """`with_golden(bundle, data)`: puts other bytes into the place of the golden clips, with the right hash."""

    def put(bundle: Path, data: bytes) -> None:
        file = f"golden/{sha256(data)[:8]}.npz"
        (bundle / file).write_bytes(data)
        reseal(bundle, lambda m: m["golden"].update(file=file, sha256=sha256(data), size=len(data)))

    return put


def arrays(clips: Any = None, probabilities: Any = None) -> bytes:
    good = {"clips": np.zeros((4, 2, 4, 4, 3), np.uint8), "probabilities": np.zeros((4, 3), np.float32)}
    changed = {**good, "clips": clips, "probabilities": probabilities}
    return dump_npz({name: good[name] if value is None else value for name, value in changed.items()})


def bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("clips.npy", bytes(300 << 20))
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        arrays(clips=np.zeros((4, 2, 4, 4, 3), np.int8)),
        arrays(clips=np.zeros((4, 2, 8, 8, 3), np.uint8)),
        arrays(clips=np.zeros((4, 3, 4, 4, 3), np.uint8)),
        arrays(clips=np.zeros((2, 4, 4, 3), np.uint8)),
        arrays(clips=np.uint8(0)),
        arrays(probabilities=np.zeros((4, 3), np.float64)),
        arrays(probabilities=np.zeros((3, 3), np.float32)),
        arrays(probabilities=np.zeros((4, 4), np.float32)),
        arrays(clips=np.zeros((0, 2, 4, 4, 3), np.uint8), probabilities=np.zeros((0, 3), np.float32)),
        dump_npz({"clips": np.zeros((4, 2, 4, 4, 3), np.uint8)}),
        dump_npz({}),
        b"no archive",
    ],
)
def test_golden_clips_of_the_right_hash_and_the_wrong_kind_are_refused(small, data, refused, with_golden):
    with_golden(small, data)
    Bundle(small)  # opening reads the index only
    assert "golden/" in refused(small).what


def test_a_bomb_of_the_right_hash_is_refused_before_it_expands(small, refused, with_golden):
    with_golden(small, bomb())
    assert "expands from" in refused(small).what


def test_golden_clips_of_the_right_kind_are_read(small, with_golden):
    with_golden(small, arrays(clips=np.full((4, 2, 4, 4, 3), 7, np.uint8)))
    assert (Bundle(small).golden().clips == 7).all()
