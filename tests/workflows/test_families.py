"""Every family goes the whole way: trained, scored by its own views, quantized, judged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from logoformer import load
from logoformer.bundle import Bundle
from logoformer.cli import main as cli
from logoformer.clips import view_indices
from logoformer.engine.golden import golden_answers
from logoformer.errors import UsageError
from logoformer.model.checkpoint import load_checkpoint
from logoformer.model.data.datasets import open_clips
from logoformer.model.data.listing import Reading
from logoformer.model.networks.network import to_tensor
from logoformer.model.synthetic.layout import synth
from logoformer.workflows.evaluate import evaluate_on
from logoformer.workflows.quantize import Calibration, quantize
from logoformer.workflows.verify import explain_layers

SMALL = ("tiny", "former-dfer-tiny", "mae-dfer-tiny")


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("families") / "dfew"
    synth(folder, identities=5, per_identity=7, side=32, workers=1)
    return folder


@pytest.mark.parametrize("name", SMALL)
def test_it_is_trained_and_scored_by_its_own_rule(name: str, faces: Path, tmp_path: Path):
    import torch

    out = tmp_path / "checkpoint"
    words = ["train", "--preset", name, "--data", str(faces), "-o", str(out), "--set", "steps=2", "batch=4"]
    assert cli.main([*words, "augment=none"]) == 0
    model, provenance = load_checkpoint(out)
    assert model.config.preset == name and provenance["extra"]["reading"]["fold"] == 1
    found = evaluate_on([out], faces)
    source = open_clips(faces, "test", 1, Reading(model.config.image_size, "former", model.config.frames))
    views = view_indices(source.count(0), model.config.sampling)
    assert len(views) == (2 if name.startswith("mae") else 1)
    with torch.inference_mode():
        clips = to_tensor(np.stack([source.frames(0, view) for view in views]))
        wanted = torch.softmax(model(clips), -1).mean(0).numpy()
    np.testing.assert_allclose(found.answers.scores[0], wanted, atol=1e-5)
    once = evaluate_on([out], faces, views=1).answers.scores[0]
    assert (np.abs(once - wanted).max() > 1e-5) == (len(views) > 1)


def test_what_has_no_trunk_takes_no_trunks_weights(faces: Path, tmp_path: Path, fails):
    words = ("train", "--preset", "mae-dfer-tiny", "--data", faces, "-o", tmp_path / "c", "--trunk", faces / "none.pth")
    text = fails(2, *words)
    assert "mae-dfer has no ResNet trunk" in text


def test_attention_schemes_are_logoformers_alone(tmp_path: Path, fails):
    assert "no attention schemes" in fails(
        2, "init", "--preset", "former-dfer-tiny", "--attention", "lgi", "-o", tmp_path / "x"
    )


def test_int8_is_placed_by_the_contract(family_bundle: Path, few_faces: Path, tmp_path: Path):
    copy = Path(shutil.copytree(family_bundle, tmp_path / "copy.bundle"))
    bundle = quantize(copy, Calibration(few_faces, clips=64, compensate=False))
    family = bundle.manifest["model"]["family"]
    int8 = bundle.precisions["int8"]
    assert int8["verdict"] == "insufficient clips" and all(found["finite"] for found in int8["parity"].values())
    share = {
        graph: bundle.graph(graph, "int8").macs.get("int8", 0) / sum(bundle.graph(graph, "int8").macs.values())
        for graph in ("clip", "frame", "temporal")
    }
    assert share["clip"] > (0.4 if family == "mae-dfer" else 0.55)  # a quarter of the small one's work is pixels
    # 9 rows a product (former-dfer) are not worth INT8, nor are pixels (mae-dfer).
    assert (share["temporal"] == 0) == (family == "former-dfer") and (share["frame"] == 0) == (family == "mae-dfer")
    with load(bundle, backend="onnxruntime", precision="int8", threads=1) as runtime:
        whole, pair = golden_answers(runtime, bundle.golden())
    np.testing.assert_allclose(whole, pair, atol=5e-3)


def test_layers_are_compared_in_one_form(family_bundle: Path, tmp_path: Path):
    pytest.importorskip("polygraphy", reason="Polygraphy is not installed (the extra 'export')")
    (report,) = explain_layers(family_bundle, tmp_path / "layers", clips=1)
    assert report.precision == "fp16" and len(report.layers) > 25 and report.first == ""
    assert json.loads((tmp_path / "layers" / "layers.fp16.json").read_text())["graph"] == "clip"


def test_the_manifest_and_the_card_name_the_family(family_bundle: Path):
    manifest = Bundle(family_bundle).manifest
    assert manifest["family"]["name"] == manifest["model"]["family"]
    assert {"code", "weights", "data"} == manifest["family"]["licences"].keys()
    card = (family_bundle / "CARD.md").read_text(encoding="utf-8")
    assert manifest["family"]["title"] in card
    assert manifest["family"]["paper"].split(",")[0] in card
    assert "Published by the authors" not in card, "figures of weights that these are not"


def test_schemes_are_compared_around_a_logoformer_only(family_bundle: Path):
    from logoformer.workflows.complexity import centre_of

    if Bundle(family_bundle).manifest["model"]["family"] == "logoformer":
        assert centre_of(family_bundle, None).preset == "tiny"
        return
    with pytest.raises(UsageError, match="around a LOGO-Former"):
        centre_of(family_bundle, None)
