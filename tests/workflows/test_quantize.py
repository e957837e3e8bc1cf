"""INT8 from end to end on `tiny`: the verb, the record, the runtime, and every set that is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from logoformer import load
from logoformer.bundle import Bundle, BundleWriter, Golden
from logoformer.bundle.files import sha256
from logoformer.cli import main as cli
from logoformer.engine.golden import answers_of_clip, golden_answers
from logoformer.engine.verify import verify
from logoformer.errors import BadInputError, MachineError, RefusedError, VerificationError
from logoformer.model.data.datasets import open_clips
from logoformer.model.data.dfew import list_path
from logoformer.model.data.listing import Reading
from logoformer.workflows.quantize import Calibration, quantize, quantize_bundle
from PIL import Image


@pytest.fixture
def copied(untrained_bundle: Path, tmp_path: Path) -> Path:
    """A bundle to add INT8 to."""
    return Path(shutil.copytree(untrained_bundle, tmp_path / "copy.bundle"))


# --------------------------------------------------------------------------------------------------------------- result
def test_the_index_tells_what_was_done_and_nothing_loads_it_unasked(int8_bundle: Path, few_faces: Path):
    bundle = Bundle(int8_bundle)
    int8 = bundle.precisions["int8"]
    assert int8["verdict"] == "insufficient clips" and "no accuracy gate" in int8["reason"]
    assert int8["promised_share"] == {"clip": 0.95, "frame": 0.95, "temporal": 0.95}
    for parity in int8["parity"].values():
        assert parity["evaluator"].startswith("rounding reference") and parity["finite"]
    for graph in ("clip", "frame", "temporal"):
        macs = bundle.graph(graph, "int8").macs
        assert macs["int8"] / sum(macs.values()) >= 0.95 and "fp32" not in macs
        assert bundle.graph(graph, "int8").inputs == bundle.graph(graph, "fp16").inputs
    with load(bundle) as engine:
        assert engine.precision != "int8"
    found = bundle.calibration()
    assert found["count"] == 64 and sum(found["classes"].values()) == 64 and min(found["classes"].values()) >= 9
    assert found["source"] == "few-faces, fold 1, training split, seed 0" and str(few_faces.parent) not in str(found)
    assert found["preprocessing"] == bundle.manifest["preprocessing"] and found["tools"]["numpy"] == np.__version__
    source = open_clips(few_faces, "train", 1, Reading(bundle.image_size))
    names = {source.clip_id(index) for index in range(len(source))}
    assert {clip["id"] for clip in found["clips"]} <= names
    assert len({clip["sha256"] for clip in found["clips"]}) == 64


def test_the_pair_answers_as_the_clip_graph_does(int8_bundle: Path):
    golden = Bundle(int8_bundle).golden()
    with load(int8_bundle, precision="int8") as engine:
        whole, pair = golden_answers(engine, golden)
    np.testing.assert_array_equal(whole.argmax(1), pair.argmax(1))
    np.testing.assert_allclose(whole, pair, atol=1e-3)


@pytest.mark.slow
def test_verify_and_inspect_take_it(int8_bundle: Path, few_faces: Path, tmp_path: Path, capsys):
    path = Path(shutil.copytree(int8_bundle, tmp_path / "v.bundle"))
    rows = [(row.backend, row.what) for row in verify(path).rows if row.precision == "int8"]
    backends = {backend for backend, _ in rows}
    assert "onnxruntime" in backends
    assert set(rows) == {(backend, what) for backend in backends for what in ("clip", "frame + temporal")}
    assert cli.main(["inspect", str(path)]) == 0
    assert "int8: insufficient clips" in capsys.readouterr().out
    assert {row["precision"] for row in Bundle(path).manifest["verification"]["rows"]} == {"fp32", "fp16", "int8"}
    # Rows about graphs that are replaced go with them; the others stay.
    again = quantize(path, Calibration(few_faces, clips=8, few=True))
    assert {row["precision"] for row in again.manifest["verification"]["rows"]} == {"fp32", "fp16"}


@pytest.mark.slow
def test_the_same_clips_and_seed_give_the_same_bytes_and_another_seed_does_not(
    copied: Path, int8_bundle: Path, few_faces: Path
):
    before = Bundle(int8_bundle)
    bundle = quantize(copied, Calibration(few_faces, clips=64))
    assert bundle.precisions["int8"] == before.precisions["int8"]
    for graph in ("clip", "frame", "temporal"):
        assert bundle.graph(graph, "int8").sha256 == before.graph(graph, "int8").sha256
    other = quantize(copied, Calibration(few_faces, clips=64, seed=1))
    assert other.precisions["int8"]["calibration"] != bundle.precisions["int8"]["calibration"]


@pytest.mark.slow
def test_exclusions_are_left_in_fp16_and_promised(copied: Path, few_faces: Path, capsys: pytest.CaptureFixture[str]):
    code = cli.main(
        ["quantize", str(copied), "--data", str(few_faces), "--calibration-clips", "8", "--few", "--json",
         "--exclude", "trunk.layer1", "block0.ffn", "--method", "mse", "--no-attention", "--no-fold"]
    )  # fmt: skip
    assert code == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["precisions"]["int8"]["verdict"] == "insufficient clips"
    bundle = Bundle(copied)
    int8 = bundle.precisions["int8"]
    assert int8["excluded"] == ["trunk.layer1", "block0.ffn"]
    for graph in ("clip", "frame", "temporal"):
        macs = bundle.graph(graph, "int8").macs
        share = macs["int8"] / sum(macs.values())
        assert share - 0.001 <= int8["promised_share"][graph] <= share < 0.95
    assert bundle.calibration()["quantize"] == {
        "method": "mse", "exclude": ["trunk.layer1", "block0.ffn"], "attention": False, "fold_weights": False,
    }  # fmt: skip


# -------------------------------------------------------------------------------------------------------------- refused
def copy_with(few_faces: Path, to: Path, change: Callable[[Path], None]) -> Path:
    shutil.copytree(few_faces, to)
    change(to)
    return to


def keep_only(count: int, label: str | None = None) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / list_path("train", 1)
        header, *rows = path.read_text().splitlines()
        kept = [row for row in rows if label is None or row.split(",")[1] == label]
        if label is not None:
            kept = [f"{row.split(',')[0]},{label}" for row in rows]
        path.write_text("\n".join([header, *kept[:count]]) + "\n")

    return change


def names_of(root: Path) -> list[str]:
    return [row.split(",")[0].zfill(5) for row in (root / list_path("train", 1)).read_text().splitlines()[1:]]


def blacken(root: Path) -> None:
    for image in (root / "Clip/clip_224x224" / names_of(root)[0]).iterdir():
        Image.new("RGB", (64, 64), (9, 9, 9)).save(image)


def duplicate(root: Path) -> None:
    first, second = (root / "Clip/clip_224x224" / name for name in names_of(root)[:2])
    shutil.rmtree(second)
    shutil.copytree(first, second)


SETS: dict[str, tuple[Callable[[Path], None], str]] = {
    "too few": (keep_only(63), "63 calibration clips; at least 64"),
    "one class": (keep_only(999, "3"), "are of class 2"),
    "constant": (blacken, "one colour in all pixels"),
    "copies": (duplicate, "copies of others"),
}


@pytest.mark.parametrize("what", SETS)
def test_a_set_that_cannot_stand_for_the_camera(
    what: str, copied: Path, few_faces: Path, tmp_path: Path, fails, contents
):
    change, said = SETS[what]
    data = copy_with(few_faces, tmp_path / "data", change)
    before = contents(copied)
    fails(3, "quantize", copied, "--data", data, "--calibration-clips", "84", names=(said,))
    assert contents(copied) == before


def test_no_data_no_folder_no_group_no_method(
    copied: Path, few_faces: Path, tiny_checkpoint: Path, tmp_path: Path, fails
):
    fails(2, "quantize", copied, names=("needs clips to calibrate on", "--calibration DIR"))
    fails(3, "quantize", copied, "--data", tmp_path / "none")
    fails(2, "quantize", copied, "--data", few_faces, "--exclude", "block7.ffn", names=("no group 'block7.ffn'",))
    fails(2, "quantize", copied, "--data", few_faces, "--method", "guess", names=("--method: unknown value 'guess'",))
    fails(3, "quantize", tmp_path / "no.bundle", "--data", few_faces)
    out = tmp_path / "out.bundle"
    fails(2, "export", tiny_checkpoint, "-o", out, "--precisions", "fp32", "fp16", "int8", names=("needs clips",))
    fails(3, "export", tiny_checkpoint, "-o", out, "--calibration", tmp_path / "none")
    assert not out.exists()  # refused before anything was exported


def test_a_bundle_without_fp16_and_clips_of_another_shape(copied: Path, few_faces: Path):
    bundle = Bundle(copied)
    wrong = Calibration(few_faces, clips=8, few=True).choose(bundle.sampling, 32)
    with pytest.raises(BadInputError, match="takes 8 frames of 64 x 64"):
        quantize_bundle(copied, wrong, Calibration(few_faces))
    m = bundle.manifest
    BundleWriter(copied).commit({**m, "precisions": {"fp32": m["precisions"]["fp32"]}})
    with pytest.raises(BadInputError, match="no FP16 graphs"):
        quantize(copied, Calibration(few_faces, clips=8, few=True))


def test_a_graph_that_breaks_the_policy_is_not_written(copied: Path, few_faces: Path, monkeypatch, contents):
    monkeypatch.setattr("logoformer.calibration.quantize.SCALE_FLOOR", 0.0)
    monkeypatch.setattr("logoformer.calibration.quantize.LEVELS", 1e9)
    before = contents(copied)
    with pytest.raises(VerificationError, match="graph rules"):
        quantize(copied, Calibration(few_faces, clips=8, few=True))
    assert contents(copied) == before


def test_a_bundle_that_changed_meanwhile_is_not_overwritten(copied: Path, few_faces: Path, monkeypatch):
    from logoformer.export import parity

    measure = parity.measure_parity

    def meanwhile(*words):
        m = Bundle(copied).manifest
        if "note" not in m:
            BundleWriter(copied).commit({**m, "note": "another process"})
        return measure(*words)

    monkeypatch.setattr(parity, "measure_parity", meanwhile)
    with pytest.raises(MachineError, match="changed by another process"):
        quantize(copied, Calibration(few_faces, clips=8, few=True))
    assert Bundle(copied).manifest["note"] == "another process" and "int8" not in Bundle(copied).precisions


def test_a_record_that_was_changed_is_refused(int8_bundle: Path, tmp_path: Path, untrained_bundle: Path):
    path = Path(shutil.copytree(int8_bundle, tmp_path / "r.bundle"))
    (file,) = (path / "calibration").iterdir()
    assert sha256(file.read_bytes())[:8] == file.stem
    file.write_bytes(file.read_bytes().replace(b'"count": 64', b'"count": 65'))
    with pytest.raises(RefusedError, match="calibration/"):
        Bundle(path).calibration()
    with pytest.raises(BadInputError, match="no calibration record"):
        Bundle(untrained_bundle).calibration()


# ----------------------------------------------------------------------------------------------------------------- slow
@pytest.mark.slow
def test_the_streaming_pair_answers_as_the_clip_graph_does(tiny_bundle: Path, demo_run, tmp_path: Path):
    from logoformer.model.synthetic.recordings import synthetic_clips

    path = Path(shutil.copytree(tiny_bundle, tmp_path / "trained.bundle"))
    bundle = quantize(path, Calibration(demo_run[1] / "faces"))
    clips, labels, _ = synthetic_clips(500, bundle.sampling, bundle.image_size, 123)
    asked = Golden(clips, np.zeros((500, len(bundle.labels)), np.float32))
    with load(bundle, precision="int8") as engine:
        whole, pair = golden_answers(engine, asked)
    with load(bundle, precision="fp32") as engine:
        exact = answers_of_clip(engine.session("clip"), asked)
    agreement, kept = (whole.argmax(1) == pair.argmax(1)).mean(), (whole.argmax(1) == exact.argmax(1)).mean()
    print(f"INT8 pair against INT8 clip {agreement:.4f}, INT8 clip against FP32 {kept:.4f} on {len(labels)} clips")
    # How far INT8 may be from FP32 is for the gate to judge, on thousands of clips; here it must be the same network.
    assert agreement >= 0.995 and kept >= 0.9


@pytest.mark.slow
def test_export_with_calibration_adds_int8(tiny_checkpoint: Path, few_faces: Path, tmp_path: Path, capsys):
    out = tmp_path / "all.bundle"
    words = ["--calibration", str(few_faces), "--calibration-clips", "8", "--few", "--clips", "8"]
    assert cli.main(["export", str(tiny_checkpoint), "-o", str(out), *words]) == 0
    assert "int8: insufficient clips" in capsys.readouterr().out
    assert set(Bundle(out).precisions) == {"fp32", "fp16", "int8"}
