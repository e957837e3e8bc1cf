"""A damaged or hostile bundle at the command line: refused by every verb that would use it, and left as it is."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.bundle import Bundle, BundleWriter, Golden
from logoformer.bundle.files import sha256
from logoformer.bundle.sealed import seal
from logoformer.cli import main as cli
from logoformer.engine.describe import describe, describe_text
from logoformer.errors import RefusedError
from PIL import Image

Change = Callable[[Path], object]


@pytest.fixture
def bundle(untrained_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_bundle, tmp_path / "face.bundle"))


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A folder of pictures, enough for one answer."""
    (tmp_path / "frames").mkdir()
    for number in range(3):
        Image.fromarray(np.full((64, 64, 3), 40 * number, np.uint8)).save(tmp_path / "frames" / f"{number}.png")
    return tmp_path / "frames"


@pytest.fixture
def refused(fails, frames, contents) -> Callable[..., None]:
    """`refused(bundle, verbs)`: these verbs end with exit code 4 and change nothing, `inspect` and `run` included."""

    def check(bundle: Path, verbs: str, *names: object) -> None:
        words = {"inspect": ["inspect", bundle], "verify": ["verify", bundle], "run": ["run", bundle, frames]}
        before = contents(bundle)
        for verb in verbs.split():
            fails(4, *words[verb], names=names or (bundle,))
            assert contents(bundle) == before

    return check


def one(bundle: Path, pattern: str) -> Path:
    return next(iter(sorted(bundle.glob(pattern))))


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def reseal(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    change(manifest)
    (bundle / "manifest.json").write_bytes(seal(manifest))


def exchange(bundle: Path, graph: str, data: bytes) -> Path:
    """Puts other bytes into a graph's place, with the right hash in a well sealed index."""
    file = f"graphs/{graph}.fp32.b1.{sha256(data)[:8]}.onnx"
    (bundle / file).write_bytes(data)

    def change(manifest: dict[str, Any]) -> None:
        entry = next(e for e in manifest["graphs"] if (e["graph"], e["precision"]) == (graph, "fp32"))
        entry.update(file=file, sha256=sha256(data), size=len(data))

    reseal(bundle, change)
    return bundle / file


def everything(bundle: Path) -> bytes:
    return (bundle / "manifest.json").read_bytes()


# ------------------------------------------------------------------------------------------------------------ the index
def test_a_whole_bundle_is_taken_by_every_verb(bundle, frames, capsys):
    for words in (["inspect", bundle], ["verify", bundle, "--no-write"], ["run", bundle, frames]):
        assert cli.main([str(word) for word in words]) == 0, capsys.readouterr().err


def test_a_missing_bundle(fails, tmp_path, frames):
    for words in (["inspect"], ["verify"], ["build"], ["bench"]):
        fails(3, *words, tmp_path / "nothing", names=(tmp_path / "nothing",))
    fails(3, "run", tmp_path / "nothing", frames, names=(tmp_path / "nothing",))


@pytest.mark.parametrize("place", [0, 100, -2])
def test_a_flipped_bit_in_the_index(bundle, refused, place):
    flip(bundle / "manifest.json", place)
    refused(bundle, "inspect verify run", "manifest.json")


def test_a_label_changed_in_the_index(bundle, refused):
    text = everything(bundle)
    (bundle / "manifest.json").write_bytes(text.replace(b'"happy"', b'"hapqy"'))
    assert everything(bundle) != text
    refused(bundle, "inspect verify run", "own digest")


INDEXES: dict[str, tuple[Change, str]] = {
    "deep": (lambda b: (b / "manifest.json").write_bytes(b"[" * 100_000), "nested deeper"),
    "huge": (lambda b: (b / "manifest.json").write_bytes(b" " * (5 << 20)), "4194304"),
    "newer": (lambda b: reseal(b, lambda m: m.update(schema_version=2)), "pip install --upgrade logoformer"),
    "climbing": (lambda b: reseal(b, lambda m: m["graphs"][0].update(file="../../secret")), "../../secret"),
    "a pipe": (lambda b: (b / "manifest.json").unlink() or os.mkfifo(b / "manifest.json"), "not a regular file"),
    "a link": (
        lambda b: (b / "manifest.json").rename(b.parent / "m") and (b / "manifest.json").symlink_to(b.parent / "m"),
        "symbolic link",
    ),
    "a ring that is too large": (lambda b: reseal(b, lambda m: m["stream"].update(slots=500)), "do not fit"),
}


@pytest.mark.parametrize("what", INDEXES)
def test_an_index_that_cannot_be_trusted(bundle, refused, what, impatient):
    change, word = INDEXES[what]
    change(bundle)
    refused(bundle, "inspect verify run", "manifest.json", word)


# ------------------------------------------------------------------------------------------------------------ the files
@pytest.mark.parametrize("graph", ["clip", "frame", "temporal"])
def test_a_flipped_bit_in_a_graph(bundle, refused, graph):
    path = one(bundle, f"graphs/{graph}.fp32.*")
    for place in (0, path.stat().st_size // 2, -1):
        flip(path, place)
        refused(bundle, "verify" if graph == "clip" else "verify run", path)
        flip(path, place)


def test_a_flipped_bit_in_the_golden_clips(bundle, refused):
    path = one(bundle, "golden/*")
    flip(path, 5000, 3)
    refused(bundle, "verify", path)


PLACES: dict[str, Change] = {
    "missing": lambda p: p.unlink(),
    "a link": lambda p: p.rename(p.parents[2] / "aside") and p.symlink_to(p.parents[2] / "aside"),
    "a pipe": lambda p: p.unlink() or os.mkfifo(p),
    "shorter": lambda p: os.truncate(p, 1000),
}


@pytest.mark.parametrize("what", PLACES)
@pytest.mark.parametrize("pattern", ["graphs/frame.fp32.*", "golden/*"])
def test_another_thing_in_the_place_of_a_file(bundle, refused, what, pattern, impatient):
    path = one(bundle, pattern)
    PLACES[what](path)
    refused(bundle, "verify run" if "frame" in pattern else "verify", path)


def test_the_folder_of_the_graphs_is_a_link(bundle, refused, tmp_path):
    (bundle / "graphs").rename(tmp_path / "elsewhere")
    (bundle / "graphs").symlink_to(tmp_path / "elsewhere")
    refused(bundle, "verify run")


# ------------------------------------------------------------------------------------------ right hash, hostile content
def test_an_external_tensor_in_a_graph_of_the_right_hash(bundle, refused, tmp_path, fails):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(one(bundle, "graphs/frame.fp32.*").read_bytes())
    tensor = max(model.graph.initializer, key=lambda item: len(item.raw_data))
    (tmp_path / "secret").write_bytes(tensor.raw_data)  # it would even work
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    path = exchange(bundle, "frame", model.SerializeToString())
    refused(bundle, "verify run", path.name, "lies outside the file", tensor.name)
    pytest.importorskip("tensorrt_rtx", reason="the rest builds an engine")
    fails(4, "build", bundle, "--graph", "frame", "--precision", "fp32", names=(path.name, "lies outside the file"))
    assert not (bundle / "engines").exists()


@pytest.mark.parametrize("data", [b"no graph at all " * 50, bytes(5000), b"PK\x03\x04" * 20])
def test_a_graph_of_the_right_hash_that_is_none(bundle, refused, data):
    path = exchange(bundle, "frame", data)
    refused(bundle, "verify run", path.name)


def test_a_graph_of_the_right_hash_that_the_runtime_does_not_take(bundle, fails):
    path = exchange(bundle, "frame", b"\x3a\x00")  # clean protobuf: a model with an empty graph
    fails(5, "verify", bundle, names=(path.name,))  # each backend's row has failed, and says why


def test_a_graph_of_another_kind_under_a_right_hash(bundle, refused):
    other = one(bundle, "graphs/clip.fp32.*").read_bytes()
    path = exchange(bundle, "frame", other)
    refused(bundle, "verify run", path.name, "the index promises")


def test_an_npz_bomb_of_the_right_hash(bundle, refused):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("clips.npy", bytes(300 << 20))
    data = stream.getvalue()
    file = f"golden/{sha256(data)[:8]}.npz"
    (bundle / file).write_bytes(data)
    reseal(bundle, lambda m: m["golden"].update(file=file, sha256=sha256(data), size=len(data)))
    refused(bundle, "verify", file, "decompression bomb")


def test_engines_are_held_to_their_index(bundle, refused):
    from logoformer.engine.trust.index import EngineEntry, add_to_index, write_engine

    file, digest = write_engine(bundle / "engines", "rtx1.7.1-sm86", "clip.fp16.b1", b"native code")
    entry = EngineEntry(
        "clip", "fp16", 1, "rtx1.7.1-sm86", file, digest, 11, "0" * 64, "1.7.1", ("sm86",), "linux-x86_64", {}
    )
    add_to_index(bundle / "engines", [entry])
    flip(bundle / "engines" / file, 3)
    refused(bundle, "verify", file)
    flip(bundle / "engines" / file, 3)
    flip(bundle / "engines" / "index.json", 50)
    refused(bundle, "verify inspect", "engines/index.json")


# ---------------------------------------------------------------------------------------------------------------- print
def test_no_text_of_a_bundle_moves_the_cursor(bundle, capsys):
    def change(manifest: dict[str, Any]) -> None:
        manifest["precisions"]["fp32"]["reason"] = "\x1b]0;owned\x07"

    reseal(bundle, change)
    assert cli.main(["inspect", str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\\x1b]0;owned\\x07" in shown
    assert len(shown.splitlines()) > 10


def test_a_label_that_would_move_the_cursor_is_refused(bundle, fails):
    reseal(bundle, lambda manifest: manifest["labels"].__setitem__(0, "\x1b[2Jhappy\x07"))
    assert "\x1b" not in fails(4, "inspect", bundle, names=("\\x1b[2Jhappy",))


@pytest.fixture(scope="module")
def good_manifest(untrained_bundle: Path) -> dict[str, Any]:
    return json.loads((untrained_bundle / "manifest.json").read_bytes())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**62) | st.floats(-9, 9) | st.sampled_from(["", "x", "fp32", "nan"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "node"]), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_inspect_shows_any_sealed_index_or_refuses_it(bundle, good_manifest, data):
    manifest = json.loads(json.dumps(good_manifest))
    holder: Any = manifest
    while True:
        key = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else range(len(holder))))
        if not (isinstance(holder[key], dict | list) and holder[key]) or data.draw(st.integers(0, 3)) == 0:
            break
        holder = holder[key]
    if data.draw(st.booleans()):
        holder[key] = data.draw(VALUES)
    else:
        del holder[key]
    (bundle / "manifest.json").write_bytes(seal(manifest))
    try:
        text = describe_text(describe(bundle))
    except RefusedError:
        return
    assert str(bundle) in text


def test_golden_answers_that_are_no_numbers_fail_the_verification(bundle, fails):
    opened = Bundle(bundle)
    golden = opened.golden()
    writer = BundleWriter(bundle)
    wrong = writer.add_golden(Golden(golden.clips, np.full_like(golden.probabilities, np.nan)), "planted")
    writer.commit({**opened.manifest, "golden": wrong})
    fails(5, "verify", bundle, names=("checks failed on the golden clips",))
