"""Export is fail-first and atomic, and says where it went wrong."""

import filecmp
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from logoformer.bundle import Bundle, BundleWriter
from logoformer.errors import BadInputError, UsageError, VerificationError
from logoformer.export import acceptance
from logoformer.export import exporter as module
from logoformer.export.exporter import ExportConfig, RealClips, export_bundle, ring_slots
from logoformer.model.checkpoint import load_checkpoint
from logoformer.model.networks.configs import PRESETS
from logoformer.model.networks.logoformer.model import LogoFormer
from logoformer.model.synthetic.recordings import synthetic_clips
from logoformer.workflows import init
from logoformer.workflows.export import export_checkpoint

TINY = PRESETS["tiny"]


@pytest.fixture(scope="module")
def real() -> RealClips:
    return RealClips(synthetic_clips(8, TINY.sampling, TINY.image_size, 1)[0], "synthetic", synthetic=True)


@pytest.fixture
def model(tiny_checkpoint: Path) -> LogoFormer:
    return load_checkpoint(tiny_checkpoint)[0]


def test_the_bundle_says_what_it_is(untrained_bundle: Path, tiny_checkpoint: Path):
    bundle = Bundle(untrained_bundle)
    assert {(g.graph, g.precision) for g in bundle.graphs} == {
        (graph, precision) for graph in ("clip", "frame", "temporal") for precision in ("fp32", "fp16")
    }
    m = bundle.manifest
    assert m["provenance"]["checkpoint"]["sha256"] == load_checkpoint(tiny_checkpoint)[1]["sha256"]
    assert m["precisions"]["fp32"]["parity"]["clip"]["evaluator"].startswith("onnxruntime")
    assert m["precisions"]["fp16"]["parity"]["pair"]["evaluator"].startswith("rounding reference")
    assert m["precisions"]["fp16"]["verdict"] == "accept" and m["golden"]["source"].startswith("synthetic")
    for entry in bundle.graphs:
        data = bundle.read_graph(entry)
        assert b".py" not in data and b"site-packages" not in data and b"aten" not in data, entry.file


def test_two_exports_are_the_same_bytes(untrained_bundle: Path, tiny_checkpoint: Path, tmp_path: Path):
    elsewhere = Path(shutil.copytree(tiny_checkpoint, tmp_path / "a place" / "ckpt"))
    again = export_checkpoint(elsewhere, tmp_path / "again.bundle", ExportConfig(), clips=16)
    names = [p.relative_to(untrained_bundle) for p in untrained_bundle.rglob("*") if p.is_file() and p.name != ".lock"]
    _, different, missing = filecmp.cmpfiles(untrained_bundle, again.path, map(str, names), shallow=False)
    assert not different and not missing


def test_a_wrong_graph_is_caught_named_and_never_written(
    model: LogoFormer, real: RealClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    build = module.build_graph

    def planted(name: str, own: LogoFormer, **form: bool) -> torch.nn.Module:
        graph = build(name, own, **form)
        if name == "clip":
            with torch.no_grad():
                graph.temporal.blocks[1].local_attention.v.weight *= 1.5
        return graph

    monkeypatch.setattr(module, "build_graph", planted)
    with pytest.raises(VerificationError) as caught:
        export_bundle(model, tmp_path / "x.bundle", real, ExportConfig(precisions=("fp32",)))
    assert "of the deviation between clips" in caught.value.what
    assert not (tmp_path / "x.bundle" / "manifest.json").exists()


def test_blame_names_the_first_tensor_that_parts(model: LogoFormer, real: RealClips):
    from logoformer.export.graphs import build_graph, example_inputs
    from logoformer.export.parity import worst_tensor
    from logoformer.export.trace import trace

    clean = build_graph("clip", model)
    broken = build_graph("clip", model)
    with torch.no_grad():
        broken.temporal.blocks[1].local_attention.v.weight *= 3.0
    traced = trace(broken, example_inputs("clip", TINY, 20), "probabilities")
    said = worst_tensor(traced, clean, {"clip": real.clips[:1]})
    assert said.startswith("first to part: temporal.blocks.1.local_attention.v ")
    same = worst_tensor(trace(clean, example_inputs("clip", TINY, 20), "p"), clean, {"clip": real.clips[:1]})
    assert "relative error 0" in same or "e-0" in same


def test_fp16_that_fails_is_refused_but_fp32_is_shipped(
    model: LogoFormer, real: RealClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with torch.no_grad():  # far past FP16, and the protection switched off
        model.blocks[0].ffn.fc1.weight *= 1e6
        model.blocks[0].ffn.fc2.weight /= 1e6
    monkeypatch.setattr(acceptance, "protect", lambda graph, ranges: [])
    bundle = export_bundle(model, tmp_path / "x.bundle", real)
    fp16 = bundle.precisions["fp16"]
    assert fp16["verdict"] == "refuse: use fp32"
    assert any("temporal.blocks.0.ffn" in line for line in fp16["worst_tensors"])
    import logoformer

    with logoformer.load(bundle, precision="verdict") as engine:
        assert engine.precision == "fp32"


def test_real_faces_stay_at_home(model: LogoFormer, real: RealClips, tmp_path: Path):
    filmed = RealClips(real.clips, "someone's data", synthetic=False)
    with pytest.raises(BadInputError, match="real faces") as caught:
        export_bundle(model, tmp_path / "x.bundle", filmed)
    assert "--share-clips" in caught.value.next and not (tmp_path / "x.bundle").exists()


@pytest.mark.parametrize(
    "clips",
    [
        np.zeros((7, 8, 64, 64, 3), np.uint8),
        np.zeros((8, 8, 32, 64, 3), np.uint8),
        np.zeros((8, 8, 64, 64, 3), np.float32),
    ],
)
def test_unfit_clips_are_refused_before_tracing(model: LogoFormer, tmp_path: Path, clips: np.ndarray):
    with pytest.raises(BadInputError, match="at least 8"):
        export_bundle(model, tmp_path / "x.bundle", RealClips(clips, "s", synthetic=True))


def test_a_foreign_folder_is_left_alone(model: LogoFormer, real: RealClips, tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        export_bundle(model, tmp_path, real)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("wrong", [{"precisions": ("fp16",)}, {"precisions": ("fp32", "int4")}, {"faces": 0}])
def test_wrong_settings(wrong):
    with pytest.raises(UsageError):
        ExportConfig(**wrong)


def test_the_ring_reaches_over_the_span_at_the_fastest_camera():
    slots = ring_slots(PRESETS["base"], 30.0)
    assert slots == 107
    assert (slots - 1) / 30.0 >= PRESETS["base"].sampling.span_s


@pytest.mark.parametrize("place", ["torch_answers", "add_models", "add_golden"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_export_that_ends_early_leaves_no_folder(
    model: LogoFormer, real: RealClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str,
    error: type[BaseException],
):  # fmt: skip
    def ended(*_: object) -> None:
        raise error

    monkeypatch.setattr(module if hasattr(module, place) else BundleWriter, place, ended)
    with pytest.raises(error):
        export_bundle(model, tmp_path / "x.bundle", real, ExportConfig(precisions=("fp32",)))
    assert not list(tmp_path.iterdir())


def test_a_foreign_folder_is_refused_before_the_checkpoint_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from logoformer.model import checkpoint

    monkeypatch.setattr(checkpoint, "load_checkpoint", None)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        export_checkpoint("ckpt", tmp_path, ExportConfig())


def test_a_place_for_no_checkpoint_is_refused_before_weights_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(init, "initialise", None)
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(BadInputError, match="not a checkpoint"):
        init.init_checkpoint("base", tmp_path / "text.txt")
