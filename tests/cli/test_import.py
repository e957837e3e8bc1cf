"""The verb import on whole, broken and foreign files: each refusal has its cause, and a next step that helps."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shlex
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from foreign_files import Touches, saved
from logoformer.cli import main as cli
from logoformer.model.checkpoint import load_checkpoint
from logoformer.model.networks.configs import PRESETS
from published import mae_file, theirs

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402
from safetensors.torch import save as safetensors_bytes  # noqa: E402

MAE = ("--heads", "4")  # of a width that no entry of the authors has


@pytest.fixture(scope="session")
def mae() -> dict[str, Any]:
    """The small MAE-DFER's weights, under its authors' names."""
    return theirs(PRESETS["mae-dfer-tiny"])


@pytest.fixture
def importing(tmp_path: Path, fails) -> Callable[..., str]:
    """`importing(code, data, *options)`: the import of a file with these bytes fails so, and writes nothing."""

    def check(code: int, data: bytes | None, *options: object, name: str = "best.pth") -> str:
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        text: str = fails(code, "import", path, *options, "-o", tmp_path / "out", names=(name,))
        assert "Likely cause: " in text or "Next: logoformer" in text
        assert not (tmp_path / "out").exists()
        return text

    return check


def imported(path: Path, out: Path, *options: object) -> dict[str, Any]:
    """Imports, and gives our state dict."""
    assert cli.main([str(word) for word in ("import", path, *options, "-o", out, "--quiet")]) == 0
    return load_file(out / "model.safetensors")


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# ----------------------------------------------------------------------------------------------------- what is accepted
def test_published_files_of_both_families(tmp_path, mae, capsys):
    from logoformer.model.networks.families import untrained

    for name, content, options in (
        ("mae.pth", mae_file(mae), MAE),
        ("former.pth", {"epoch": 99, "state_dict": theirs(PRESETS["former-dfer"]), "best_acc": np.float64(65.7)}, ()),
    ):
        (tmp_path / name).write_bytes(saved(content))
        assert cli.main(["import", str(tmp_path / name), *options, "-o", str(tmp_path / name[:-4])]) == 0
        text = capsys.readouterr().out
        assert "0 missing, 0 unexpected" in text and "licence" in text and "academic, non-commercial" in text
        scored = name == "former.pth"  # of the published size; the other is a small one that nobody ever scored
        assert ("published on DFEW, of the paper's network, not of this file" in text) is scored, text
        assert ("chosen on" in text) is scored
        model, provenance = load_checkpoint(tmp_path / name[:-4])
        preset = "mae-dfer-tiny" if options else "former-dfer"
        wanted = untrained(PRESETS[preset]).state_dict()
        assert same(model.state_dict(), wanted)
        extra = provenance["extra"]
        assert extra["imported"]["file"] == name and "academic" in extra["licenses"]["data"]
        assert bool(extra["published"]) is scored  # which the card of a bundle shows
        assert "MIT" in extra["licenses"]["code"] and "no licence" in extra["licenses"]["weights"]


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.model."])
@pytest.mark.parametrize("wrapper", ["state_dict", "model", "module", "model_state_dict", None])
def test_prefixes_and_wrappers(tmp_path, mae, wrapper, prefix):
    state = {prefix + name: value for name, value in mae.items()}
    content = mae_file({}) | {"model": 0} | {wrapper: state} if wrapper else state
    (tmp_path / "x.pth").write_bytes(saved(content))
    options = ("--heads", 4, "--region", "2,2,4", "--frames", 8, "--size", 64)
    found = imported(tmp_path / "x.pth", tmp_path / "out", *options)
    (tmp_path / "plain.pth").write_bytes(saved(mae_file(mae)))
    assert same(found, imported(tmp_path / "plain.pth", tmp_path / "plain", *MAE))


@pytest.mark.parametrize("prefix", ["net.", "module.net.", "network.backbone.model.", "backbone."])
@pytest.mark.parametrize("beside", [{}, {"criterion.weight": torch.ones(7), "net_ema_decay": torch.ones(1)}])
def test_a_lightning_module_with_any_attribute(tmp_path, mae, prefix, beside, capsys):
    args = vars(mae_file(mae)["args"])
    state = {prefix + name: value for name, value in mae.items()} | beside
    (tmp_path / "x.ckpt").write_bytes(saved({"state_dict": state, "hyper_parameters": args}))
    assert cli.main(["import", str(tmp_path / "x.ckpt"), *MAE, "-o", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert f"prefix {prefix!r}" in text and "wrapper" in text and f"{len(beside)} unexpected" in text
    (tmp_path / "plain.pth").write_bytes(saved(mae_file(mae)))
    found = load_file(tmp_path / "out/model.safetensors")
    assert same(found, imported(tmp_path / "plain.pth", tmp_path / "plain", *MAE))


def test_a_pre_training_encoder_is_not_taken_for_a_wrapper(importing, mae):
    state = {f"encoder.{name}": value for name, value in mae.items()}
    assert "pre-training" in importing(3, saved({"model": state}), *MAE)


def test_halves_are_cast_with_a_word(tmp_path, mae, capsys):
    halves = {name: value.half() for name, value in mae.items()}
    (tmp_path / "x.pth").write_bytes(saved(mae_file(halves)))
    assert cli.main(["import", str(tmp_path / "x.pth"), *MAE, "-o", str(tmp_path / "out")]) == 0
    assert "71 tensors are float16 in the file; they were cast to float32" in capsys.readouterr().out
    assert load_file(tmp_path / "out/model.safetensors")["head.weight"].dtype == torch.float32


def test_safetensors_with_more_beside_the_weights(tmp_path, mae, capsys):
    more = {"io.logits": torch.zeros(7), "mid.block0": torch.zeros(3)}
    data = safetensors_bytes({f"model.{name}": value for name, value in mae.items()} | more)
    (tmp_path / "x.safetensors").write_bytes(data)
    options = ("--heads", "4", "--region", "2x2x4", "--frames", "8", "--size", "64")
    assert cli.main(["import", str(tmp_path / "x.safetensors"), *options, "-o", str(tmp_path / "out")]) == 0
    assert "2 unexpected" in (text := capsys.readouterr().out) and "io.logits" in text


def test_a_module_that_was_pickled_whole(tmp_path, mae, monkeypatch):
    from logoformer.model.networks.families import untrained

    model = untrained(PRESETS["tiny"])
    (tmp_path / "whole.pth").write_bytes(saved({"model": model, "config": model.config.to_json()}))
    assert same(imported(tmp_path / "whole.pth", tmp_path / "out"), dict(model.state_dict()))


def test_labels_and_options_go_before_the_files_arguments(tmp_path, mae):
    (tmp_path / "x.pth").write_bytes(saved(mae_file(mae)))
    imported(tmp_path / "x.pth", tmp_path / "a", *MAE, "--labels", "a,b,c,d,e,f,g", "--stride", 2)
    config = load_checkpoint(tmp_path / "a")[0].config
    assert config.labels == tuple("abcdefg") and config.sampling.stride == 2
    imported(tmp_path / "x.pth", tmp_path / "b", *MAE, "--labels", "ferv39k")
    assert load_checkpoint(tmp_path / "b")[0].config.labels[0] == "happy"


def test_where_each_setting_is_from_and_which_no_shape_can_check(tmp_path, mae, capsys):
    """Wrong heads load and answer: nobody but the caller can know them."""
    (tmp_path / "x.pth").write_bytes(saved(mae_file(mae, sampling_rate=None)))
    for heads in ("4", "8"):
        assert cli.main(["import", str(tmp_path / "x.pth"), "--heads", heads, "-o", str(tmp_path / heads)]) == 0
        text = capsys.readouterr().out
        assert "from the file: region 2,2,4; frames 8; size 64" in text
        assert f"from options: heads {heads}" in text and "assumed, as published: stride 4" in text
        loose = next(line for line in text.splitlines() if line.startswith("no shape can check"))
        assert all(name in loose for name in ("heads", "stride", "order of the classes")) and "size" not in loose
        kept = load_checkpoint(tmp_path / heads)[1]["extra"]["imported"]["settings"]
        assert kept["heads"] == {"value": int(heads), "from": "option", "checked": ""}
        assert kept["frames"]["from"] == "file" and "regions" in kept["frames"]["checked"]
    (tmp_path / "own.pth").write_bytes(
        saved({"state_dict": own_state(tmp_path / "8"), "config": own_config(tmp_path / "8")})
    )
    assert cli.main(["import", str(tmp_path / "own.pth"), "--dry-run", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["imported"]["settings"]
    assert {one["from"] for one in again.values()} == {"file"} and again.keys() == kept.keys()


def own_state(folder: Path) -> dict[str, Any]:
    return dict(load_checkpoint(folder)[0].state_dict())


def own_config(folder: Path) -> dict[str, Any]:
    return load_checkpoint(folder)[0].config.to_json()


@pytest.mark.parametrize(
    ("args", "assumed"), [({"num_frames": None}, "frames 16 (--frames)"), ({"input_size": None}, "size 160")]
)
def test_what_had_to_be_assumed_is_said_where_it_may_be_what_is_wrong(importing, mae, args, assumed):
    text = importing(3, saved(mae_file(mae, **args)), *MAE)
    assert "assumed as published" in text and assumed in text.split("Next: ")[0]


def test_an_assumed_size_that_no_region_divides_is_to_be_named(tmp_path, mae, capsys):
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(mae))
    words = ["import", str(tmp_path / "x.safetensors"), "--region", "2,2,4", "--frames", "8", "--heads", "4"]
    assert cli.main([*words, "-o", str(tmp_path / "out")]) == 3
    text = capsys.readouterr().err
    assert "w=4 does not divide the 10 tokens" in text and "size 160 (--size)" in text
    assert "Next: name what was assumed with --size; where that is right, choose w from" in text
    assert cli.main([*words, "--size", "64", "-o", str(tmp_path / "out"), "-q"]) == 0


def test_another_size_of_former_dfer_is_named(importing):
    state = theirs(PRESETS["former-dfer"])
    state["s_former.pos_embedding"] = torch.zeros(1, 196, 256)
    text = importing(3, saved({"state_dict": state}))
    assert "pictures of about 224 pixels (196 places), not 112 (49)" in text and "are assumed" in text
    state["s_former.pos_embedding"] = torch.zeros(1, 49, 256)
    state["t_former.pos_embedding"] = torch.zeros(1, 9, 512)
    assert "clips of 8 frames, not 16" in importing(3, saved({"state_dict": state}))


@pytest.mark.parametrize(
    ("code", "options", "word"),
    [
        (2, ("--heads", 4), "--heads has no effect"), (2, ("--region", "2,2,4"), "--region"),
        (2, ("--stride", 2), "--stride"),
        (3, ("--size", 224), "--size"), (3, ("--frames", 8), "--frames"), (3, ("--labels", "mafw"), "MAFW"),
    ],
)  # fmt: skip
def test_options_that_change_nothing_are_refused(importing, code, options, word):
    assert word in importing(code, saved({"state_dict": theirs(PRESETS["former-dfer"])}), *options)


def test_options_that_say_what_is_so_are_taken(tmp_path):
    (tmp_path / "x.pth").write_bytes(saved({"state_dict": theirs(PRESETS["former-dfer"])}))
    imported(tmp_path / "x.pth", tmp_path / "out", "--size", 112, "--frames", 16, "--labels", "dfew")


def test_a_checkpoint_is_not_replaced_unasked(tmp_path, mae, fails):
    (tmp_path / "x.pth").write_bytes(saved(mae_file(mae)))
    imported(tmp_path / "x.pth", tmp_path / "out", *MAE)
    before = (tmp_path / "out/model.safetensors").read_bytes()
    shutil.copy(tmp_path / "x.pth", tmp_path / "y.pth")
    text = fails(3, "import", tmp_path / "y.pth", *MAE, "-o", tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() == before
    assert cli.main(shlex.split(text.split("Next: ")[1].splitlines()[0])[1:]) == 0


def test_quiet_leaves_the_result_alone(tmp_path, mae, capsys):
    (tmp_path / "x.pth").write_bytes(saved(mae_file(mae)))
    assert cli.main(["import", str(tmp_path / "x.pth"), *MAE, "-o", str(tmp_path / "out"), "-q"]) == 0
    assert capsys.readouterr() == (f"{tmp_path / 'out'}: written\n", "")


def test_a_dry_run_writes_nothing(tmp_path, mae, capsys):
    (tmp_path / "x.pth").write_bytes(saved(mae_file(mae)))
    before = sorted(tmp_path.iterdir())
    assert cli.main(["import", str(tmp_path / "x.pth"), *MAE, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tensors"]["matched"] == 71 and told["checkpoint"] is None
    assert told["names_not_run"] == ["argparse.Namespace"] and sorted(tmp_path.iterdir()) == before


# ----------------------------------------------------------------------------------------------------- what is refused
def test_another_family(importing, mae):
    text = importing(3, saved(mae_file(mae)), *MAE, "--family", "former-dfer")
    assert "holds a MAE-DFER, not a Former-DFER" in text and "Next: logoformer import" in text
    assert "--family" not in text.split("Next: ")[1]


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (("conv1.weight", "layer1.0.conv1.weight", "bn1.weight"), "train --trunk"),
        (("visual.conv1.weight", "text_encoder.x", "prompt_learner.ctx"), "CLIP"),
        (("blocks.0.attn.qkv.weight", "cls_token", "fc_norm.weight"), "VideoMAE"),
        (("a", "b", "c"), "another project"),
    ],
)
def test_networks_of_other_projects(importing, names, word):
    assert word in importing(3, saved({"state_dict": {name: torch.ones(2, 2) for name in names}}))


def test_pre_training(importing, mae):
    state = {f"encoder.{name}": value for name, value in mae.items() if not name.startswith(("head", "fc_norm"))}
    state |= {"mask_token": torch.zeros(1, 1, 64), "decoder.head.weight": torch.zeros(4, 4)}
    assert "pre-training" in importing(3, saved({"model": state}), *MAE)


@pytest.mark.parametrize(
    "flag",
    [
        {"lg_no_second": True},
        {"lg_third_attn_type": "self"},
        {"attn_type": "joint"},
        {"lg_attn_param_sharing_all": True},
    ],
)
def test_other_flags(importing, mae, flag):
    assert next(iter(flag)) in importing(3, saved(mae_file(mae, **flag)), *MAE)


@pytest.mark.parametrize(
    "args",
    [
        {"depth": 3}, {"nb_classes": 11}, {"lg_region_size": [1, 2, 4]}, {"num_frames": 16}, {"input_size": 160},
        {"lg_region_size": "2,2,4"}, {"lg_region_size": [2, "x", 4]}, {"num_frames": "many"}, {"input_size": -64},
        {"num_frames": 2**31 - 8, "lg_region_size": [2**28, 2, 4]}, {"input_size": 2**31 - 1},
        {"num_frames": 10**30}, {"lg_region_size": None}, {"tubelet_size": 0},
    ],
)  # fmt: skip
def test_arguments_that_the_shapes_contradict(importing, mae, args):
    importing(3, saved(mae_file(mae, **args)), *MAE)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda s: s.pop("blocks.1.norm2.weight"), "1 are missing"),
        (lambda s: s.update({f"blocks.{'9' * 5000}.norm2.weight": torch.ones(64)}), "sizes cannot be read"),
        (lambda s: s.update({"module." * 50 + "x": torch.ones(64)}), "unexpected: module.module."),
        (lambda s: s.update({"blocks.1.gamma_1": torch.ones(64)}), "layer scale"),
        (lambda s: s.update({"blocks.1.extra.weight": torch.ones(64)}), "unexpected: blocks.1.extra.weight"),
        (lambda s: s.update({"fc_norm.bias": torch.ones(65)}), "fc_norm.bias: [65] in the file, [64]"),
        (lambda s: s.update({"head.weight": torch.eye(7, 64, dtype=torch.complex64)}), "complex64"),
        (lambda s: s.update({"head.weight": torch.eye(7, 64).to(torch.float8_e4m3fn)}), "float8_e4m3fn"),
        (lambda s: s.update({"head.weight": torch.eye(7, 64, dtype=torch.int8)}), "int8"),
        (lambda s: s.update({"fc_norm.bias": torch.full((64,), float("nan"))}), "NaN"),
        (lambda s: s.update({"head.weight": torch.zeros(7, 64)}), "zero throughout"),
        (lambda s: s.update({"fc_norm.bias": torch.empty(64, device="meta")}), "meta"),
    ],
)
def test_half_matches_and_unfit_values(importing, mae, change, word):
    state = dict(mae)
    change(state)
    assert word in importing(3, saved(mae_file(state)), *MAE)


def test_absurd_depths_end_at_once(importing, mae):
    deep = {**mae, f"blocks.{10**12}.norm2.weight": torch.ones(64)}
    assert "more layers than" in importing(3, saved(mae_file(deep, depth=None)), *MAE)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse", "quantized"])
def test_kinds_without_plain_values(importing, mae, kind):
    head = mae["head.weight"]
    other = head.to_sparse() if kind == "sparse" else torch.quantize_per_tensor(head, 0.1, 0, torch.qint8)
    text = importing(3, saved(mae_file({**mae, "head.weight": other})), *MAE)
    assert "The tensor 'head.weight' of" in text and f"is {kind}" in text.replace("is qint8", "is quantized")


@pytest.mark.parametrize("key", ["model_ema", "ema.shadow", "state_dict_ema"])
def test_averages_are_taken_when_they_are_named(importing, mae, tmp_path, key):
    state: Any = mae
    for part in reversed(key.split(".")):
        state = {part: state}
    text = importing(3, saved(state | {"args": mae_file({})["args"]}), *MAE)
    assert "EMA" in text
    advised = shlex.split(text.split("Next: ")[1].splitlines()[0])
    assert ["--weights", key] == advised[advised.index("--weights") :][:2]
    assert cli.main(advised[1:]) == 0


def test_the_usual_weights_go_before_averages(tmp_path, mae, capsys):
    ema = {name: value * 2 for name, value in mae.items()}
    (tmp_path / "x.pth").write_bytes(saved(mae_file(mae) | {"model_ema": ema}))
    assert cli.main(["import", str(tmp_path / "x.pth"), *MAE, "-o", str(tmp_path / "out")]) == 0
    assert "also has weights at 'model_ema'" in capsys.readouterr().out
    doubled = imported(tmp_path / "x.pth", tmp_path / "ema", *MAE, "--weights", "model_ema")
    assert torch.equal(doubled["head.weight"], mae["head.weight"] * 2)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}, "state of a training and no weights"),
        ({"optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}, "epoch": 3}, "state of a training and no weights"),
        ({"decay": 0.99, "num_updates": 5, "shadow_params": [torch.ones(2)]}, "shadow_params"),
        ([torch.ones(2)], "lists"),
        (torch.ones(2), "one tensor without a name"),
        ({"accuracy": 0.7}, "no tensors by name"),
        (None, "NoneType"),
        ({}, "no tensors by name"),
    ],
)
def test_files_without_weights(importing, content, word):
    assert word in importing(3, saved(content))


def test_weights_that_are_not_there(importing, mae):
    assert "no weights at 'best'" in importing(3, saved(mae_file(mae)), *MAE, "--weights", "best")


def zipped(name: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as files:
        files.writestr(name, data)
    return stream.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as files:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        files.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def numpy_bytes(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def torchscript() -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), stream)
    return stream.getvalue()


GOOD = saved({"model": {"a": torch.ones(100)}})
FORMATS: dict[str, tuple[int, bytes, str]] = {
    "TorchScript": (4, torchscript(), "TorchScript"),
    "truncated": (3, GOOD[:-100], "truncated copy"),
    "truncated early": (3, GOOD[:200], "truncated copy"),
    "a pointer of Git LFS": (
        3,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 339\n",
        "git lfs pull",
    ),
    "a pointer of git-annex": (3, b"/annex/objects/SHA256E-s1--1.pth\n", "git annex get"),
    "a web page": (3, b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning", "web page"),
    "a web page with a mark": (3, b"\xef\xbb\xbf\n  <HTML lang='en'>", "web page"),
    "XML": (3, b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "an error in JSON": (3, b'{"error": {"code": 403, "message": "quota"}}', "JSON"),
    "an index": (
        3,
        b'{"metadata": {"total_size": 1}, "weight_map": {"a": "model-00001.safetensors"}}',
        "several files",
    ),
    "empty": (3, b"", "empty"),
    "zeros": (3, bytes(5000), "zeros"),
    "gzip": (3, gzip.compress(GOOD), "gzip"),
    "tar": (3, tarred("best.pth", GOOD), "tar archive"),
    "a zip around it": (3, zipped("download/best.pth", GOOD), "unzip -j"),
    "npz": (3, numpy_bytes(a=np.ones(3)), "numpy"),
    "npy": (3, b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'", "numpy"),
    "a pickle of numpy": (3, pickle.dumps({"a": np.ones(3)}), "none that torch.save wrote"),
    "a pickle of protocol 0": (3, pickle.dumps({"a": 1}, 0), "protocol 0"),
    "HDF5": (3, b"\x89HDF\r\n\x1a\n" + bytes(100), "Keras"),
    "Keras": (3, zipped("model.weights.h5", b"x"), "Keras"),
    "a compressed archive": (3, zipped("archive/data.pkl", b"N."), "compresses nothing"),
    "a SavedModel": (3, b"\x08\x01\x12\x05serve", "ONNX"),
    "TensorFlow Lite": (3, b"\x1c\x00\x00\x00TFL3" + bytes(64), "TensorFlow Lite"),
    "ONNX": (3, b"\x08\x0a\x12\x07pytorch\x1a\x052.1.0", "ONNX"),
    "PDF": (3, b"%PDF-1.7", "PDF"),
    "a picture": (3, b"\x89PNG\r\n\x1a\n" + bytes(40), "picture"),
    "a video": (3, b"\x00\x00\x00\x20ftypisom" + bytes(40), "video"),
    "7z": (3, b"7z\xbc\xaf\x27\x1c" + bytes(40), "7z"),
    "noise": (3, bytes(range(1, 256)) * 9, "file "),
    "code": (4, saved({"model": {"a": torch.ones(2)}, "x": Touches(Path("trap"))}), "Nothing was run"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_other_formats(importing, kind, tmp_path):
    code, data, word = FORMATS[kind]
    assert word in importing(code, data)
    assert not Path("trap").exists()


@pytest.mark.parametrize("name", ["model.ckpt.index", "model.data-00000-of-00001", "frozen.pb"])
def test_parts_of_a_tensorflow_checkpoint(importing, name):
    assert "TensorFlow" in importing(3, b"\x00\x00\x09leveldb" + bytes(range(90)), name=name)


def test_what_is_ours_already_is_told(importing, tmp_path):
    for name, beside in (("config.json", "model.safetensors"), ("manifest.json", "graphs")):
        (tmp_path / beside).write_bytes(b"")
        assert "a file was named in place of its folder" in importing(3, b'{"extra": {}}', name=name)
    text = importing(3, None, name=".")
    assert "looks like" in text


def test_a_bundle_is_no_checkpoint(importing, tmp_path, fails):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "manifest.json").write_text("{}")
    assert "looks like a bundle" in importing(3, None, name="b")
    text = fails(3, "export", tmp_path / "b", "-o", tmp_path / "out")
    assert "but a bundle" in text and "Next: logoformer inspect" in text


@pytest.mark.parametrize("verb", ["import", "export"])
def test_nothing_is_downloaded(verb, fails, tmp_path):
    text = fails(3, verb, "https://example.org/best.pth", "-o", tmp_path / "out")
    assert "a URL" in text and "Next: download the file" in text


def test_a_link_that_leads_nowhere(fails, tmp_path):
    (tmp_path / "x.pth").symlink_to("gone.pth")
    assert "leads nowhere" in fails(3, "export", tmp_path / "x.pth", "-o", tmp_path / "out")
    assert "leads nowhere" in fails(4, "import", tmp_path / "x.pth", "-o", tmp_path / "out")


@pytest.mark.parametrize("kind", ["TorchScript", "a zip around it", "npz", "truncated"])
def test_archives_are_told_apart_by_export_too(kind, fails, tmp_path):
    code, data, word = FORMATS[kind]
    (tmp_path / "x.pth").write_bytes(data)
    text = fails(
        code, "export", tmp_path / "x.pth", "-o", tmp_path / "out", names=(word if kind != "truncated" else "trunc",)
    )
    assert "logoformer init" not in text


def test_weights_alone_lead_to_the_import_and_ours_to_their_folder(fails, tmp_path, mae):
    (tmp_path / "best.safetensors").write_bytes(safetensors_bytes(mae))
    assert "Next: logoformer import" in fails(3, "export", tmp_path / "best.safetensors", "-o", tmp_path / "out")
    (tmp_path / "model.safetensors").write_bytes(safetensors_bytes(mae))
    (tmp_path / "config.json").write_text("{}")
    assert "name the folder" in fails(3, "export", tmp_path / "model.safetensors", "-o", tmp_path / "out")


def test_a_folder_with_one_file_keeps_the_callers_options(importing, tmp_path, mae):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "best.pth").write_bytes(saved(mae_file(mae)))
    text = importing(3, None, *MAE, name="folder")
    assert cli.main(shlex.split(text.split("Next: ")[1].splitlines()[0])[1:]) == 0


@pytest.mark.parametrize("options", [(), ("--family", "logoformer"), ("--preset", "base")])
def test_the_preset_of_a_logo_former_is_found_by_its_shapes(options, importing):
    from logoformer.model.networks.families import untrained

    text = importing(3, saved({"state_dict": dict(untrained(PRESETS["tiny"]).state_dict())}), *options)
    assert "those of the preset 'tiny'" in text
    assert cli.main(shlex.split(text.split("Next: ")[1].splitlines()[0])[1:]) == 0


def test_an_unfinished_download(importing):
    assert "unfinished" in importing(3, b"\x01\x02\x03" * 99, name="best.pth.crdownload")


@pytest.mark.parametrize(
    "data",
    [b"\x10\x00\x00\x00\x00\x00\x00\x00{", b"\xff\xff\xff\xff\x00\x00\x00\x00{" + bytes(50), b"\x08\x00", b"hello"],
)
def test_damaged_safetensors(importing, data):
    assert "truncated" in importing(3, data, name="model.safetensors")


def test_paths(importing, tmp_path, mae, fails, impatient, monkeypatch):
    real = tmp_path / "blobs" / "4d7a"
    real.parent.mkdir()
    real.write_bytes(saved(mae_file(mae)))
    (tmp_path / "best.pth").symlink_to("blobs/4d7a")
    text = importing(4, None, *MAE)
    advised = shlex.split(text.split("Next: ")[1].splitlines()[0])
    assert advised[:3] == ["logoformer", "import", str(real)] and str(tmp_path / "out") in advised
    assert cli.main(advised[1:]) == 0
    shutil.rmtree(tmp_path / "out")
    os.mkfifo(tmp_path / "pipe.pth")
    assert "regular file" in importing(4, None, name="pipe.pth")
    assert "no file at" in importing(3, None, name="nothing.pth")
    (tmp_path / "folder").mkdir()
    assert "is a folder" in importing(3, None, name="folder")
    shutil.copy(real, tmp_path / "folder/best.pth")
    assert f"logoformer import {tmp_path / 'folder/best.pth'}" in importing(3, None, name="folder")
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.R_OK)  # root may read everything
    shutil.copy(real, tmp_path / "secret.pth")
    assert "chmod u+r" in importing(3, None, name="secret.pth")


def test_a_place_that_holds_something_else_is_left_alone(tmp_path, fails, mae):
    (tmp_path / "x.pth").write_bytes(saved(mae_file(mae)))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    fails(3, "import", tmp_path / "x.pth", *MAE, "-o", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_a_call_without_a_place(fails, tmp_path):
    assert "logoformer import x.pth -o checkpoint" in fails(2, "import", "x.pth")
    assert "at least two classes" in fails(2, "import", "x.pth", "--labels", "dfe", "-o", tmp_path / "out")
    assert "--map" in fails(2, "import", "x.pth", "--map", "m", "--suggest-map", "n")


def test_an_import_that_fails_at_the_end_leaves_nothing(tmp_path, mae, fails):
    data = bytearray(saved(mae_file(mae)))
    last = mae["head.bias"].numpy().tobytes()
    place = data.rindex(last)
    data[place] ^= 1
    (tmp_path / "x.pth").write_bytes(data)
    assert "checksum" in fails(3, "import", tmp_path / "x.pth", *MAE, "-o", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.pth"]
