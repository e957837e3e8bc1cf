"""A checkpoint is checked at the door: what is wrong with its weights, the tensor, and the command that mends it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from logoformer.cli import main as cli

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402

HEAD, VAR = "head.weight", "trunk.bn1.running_var"


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def weights_of(checkpoint: Path) -> dict[str, Any]:
    return load_file(checkpoint / "model.safetensors")


def replace_weights(checkpoint: Path, **changes: Any) -> None:
    save_file({**weights_of(checkpoint), **changes}, checkpoint / "model.safetensors")


def filled(checkpoint: Path, name: str, value: float) -> None:
    whole = weights_of(checkpoint)[name]
    whole.view(-1)[0] = value
    replace_weights(checkpoint, **{name: whole})


# -------------------------------------------------------------------------------------------------------------- values
@pytest.mark.parametrize("verb", ["export", "evaluate"])
@pytest.mark.parametrize(
    ("name", "value", "word"), [(HEAD, float("nan"), "NaN"), (VAR, -1.0, "negative variance"), ("cls", 3e38, "")]
)
def test_values(checkpoint, fails, tmp_path, verb, name, value, word):
    filled(checkpoint, name, value if word else float("inf"))
    more = ["--data", tmp_path] if verb == "evaluate" else ["-o", tmp_path / "b"]
    text = fails(3, verb, checkpoint, *more, names=(name,))
    assert word in text and "logoformer init" not in text
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("change", [lambda w: w * 0, lambda w: w * 1e-20, lambda w: w[:1].expand_as(w).contiguous()])
def test_matrices_that_say_nothing(checkpoint, fails, tmp_path, change):
    replace_weights(checkpoint, **{HEAD: change(weights_of(checkpoint)[HEAD])})
    assert "collapsed" in fails(3, "export", checkpoint, "-o", tmp_path / "b", names=(HEAD,))


def test_weights_that_answer_every_clip_alike(checkpoint, fails, tmp_path):
    """Small, but not so small that one tensor shows it; parity would blame the exporter."""
    replace_weights(checkpoint, **{HEAD: weights_of(checkpoint)[HEAD] * 1e-9})
    text = fails(3, "export", checkpoint, "-o", tmp_path / "b", names=(HEAD,))
    assert "alike" in text and "collapsed" in text


def test_weights_whose_answers_are_not_finite(checkpoint, fails, tmp_path):
    """Each weight is finite, and what it computes is not."""
    layers = [f"blocks.0.ffn.{name}.weight" for name in ("fc1", "fc2")]
    replace_weights(checkpoint, **{name: weights_of(checkpoint)[name] * 1e30 for name in layers})
    text = fails(3, "export", checkpoint, "-o", tmp_path / "b")
    assert "not finite" in text and any(name in text for name in layers)


def test_scaling_of_bytes(checkpoint, fails, tmp_path):
    config = json.loads((checkpoint / "config.json").read_bytes())
    config["model"] |= {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
    (checkpoint / "config.json").write_text(json.dumps(config))
    text = fails(3, "export", checkpoint, "-o", tmp_path / "b", names=("mean", "123.675"))
    assert "[0.485, 0.456, 0.406]" in text


@pytest.mark.parametrize("dtype", ["complex64", "float8_e4m3fn", "float8_e5m2", "int8"])
def test_kinds(checkpoint, fails, tmp_path, dtype):
    replace_weights(checkpoint, **{HEAD: weights_of(checkpoint)[HEAD].to(getattr(torch, dtype))})
    assert dtype in fails(3, "export", checkpoint, "-o", tmp_path / "b", names=(HEAD,))


def as_pt(checkpoint: Path, **changes: Any) -> Path:
    config = json.loads((checkpoint / "config.json").read_bytes())["model"]
    path = checkpoint.parent / "face.pt"
    content = {"config": config, "state_dict": weights_of(checkpoint), **changes}
    torch.save({key: value for key, value in content.items() if value is not None}, path)
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse", "quantized", "meta"])
def test_kinds_that_only_torch_saves(checkpoint, fails, tmp_path, kind):
    head = weights_of(checkpoint)[HEAD]
    changed = {
        "sparse": head.to_sparse(), "quantized": torch.quantize_per_tensor(head, 0.1, 0, torch.qint8),
        "meta": head.to("meta"),
    }[kind]  # fmt: skip
    path = as_pt(checkpoint, state_dict={**weights_of(checkpoint), HEAD: changed})
    assert kind in fails(3, "export", path, "-o", tmp_path / "b", names=(HEAD,))


def test_half_weights_are_taken_with_a_word(checkpoint, tmp_path, caplog):
    from logoformer.model.checkpoint import load_checkpoint

    good = weights_of(checkpoint).items()
    halves = {name: value.half() if value.is_floating_point() else value for name, value in good}
    save_file(halves, checkpoint / "model.safetensors")
    model, _ = load_checkpoint(checkpoint)
    assert model.head.weight.dtype == torch.float32
    assert "float16; they are used as float32" in caplog.text


@pytest.mark.parametrize("word", ["sparse", "NaN", "negative variance"])
def test_a_trunk_file_is_checked_too(checkpoint, fails, few_faces, tmp_path, word):
    trunk = {n.removeprefix("trunk."): v for n, v in weights_of(checkpoint).items() if n.startswith("trunk.")}
    bad = {"sparse": ("conv1.weight", trunk["conv1.weight"].to_sparse()),
           "NaN": ("conv1.weight", trunk["conv1.weight"] * float("nan")),
           "negative variance": ("bn1.running_var", -trunk["bn1.running_var"])}[word]  # fmt: skip
    torch.save(trunk | dict([bad]), tmp_path / "trunk.pth")
    words = ["--data", few_faces, "--trunk", tmp_path / "trunk.pth", "-o", tmp_path / "c"]
    assert word in fails(3, "train", *words, names=(bad[0],))


# ------------------------------------------------------------------------------------------------- causes and commands
def mended(text: str) -> int:
    """Runs the advised command; its exit code."""
    following = text.split("Next: ")[1].splitlines()[0]
    assert following.startswith("logoformer import "), following
    return cli.main(shlex.split(following)[1:])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
@pytest.mark.parametrize("kind", ["folder", "pt"])
def test_prefixes(checkpoint, fails, tmp_path, prefix, kind):
    state = {prefix + name: value for name, value in weights_of(checkpoint).items()}
    good = weights_of(checkpoint)
    if kind == "pt":
        path = as_pt(checkpoint, state_dict=state)
    else:
        path = checkpoint
        save_file(state, checkpoint / "model.safetensors")
    text = fails(3, "export", path, "-o", tmp_path / "b")
    assert f"the prefix {prefix!r}" in text
    assert mended(text) == 0
    again = weights_of(tmp_path / f"{path.stem}-imported")
    assert again.keys() == good.keys() and all(torch.equal(again[name], good[name]) for name in good)


def test_wrappers(checkpoint, fails, tmp_path):
    good = weights_of(checkpoint)
    config = json.loads((checkpoint / "config.json").read_bytes())["model"]
    for content in ({"config": config, "model": good}, {"config": config, "state_dict": {"model": good}}):
        torch.save(content, tmp_path / "face.pt")
        text = fails(3, "export", tmp_path / "face.pt", "-o", tmp_path / "b")
        assert mended(text) == 0
        assert weights_of(tmp_path / "face-imported").keys() == good.keys()


def test_missing_counters(checkpoint, fails, tmp_path, capsys):
    good = weights_of(checkpoint)
    save_file(
        {n: v for n, v in good.items() if not n.endswith("num_batches_tracked")}, checkpoint / "model.safetensors"
    )
    text = fails(3, "export", checkpoint, "-o", tmp_path / "b", names=("num_batches_tracked",))
    assert "counters were left out" in text
    assert mended(text) == 0
    assert "became 0" in capsys.readouterr().out
    assert weights_of(tmp_path / "checkpoint-imported").keys() == good.keys()


def test_links(checkpoint, fails, tmp_path):
    path = as_pt(checkpoint)
    (tmp_path / "link.pt").symlink_to(path)
    assert str(path) in fails(4, "export", tmp_path / "link.pt", "-o", tmp_path / "b").split("Next: ")[1]
    cache = tmp_path / "snapshot"
    cache.mkdir()
    for name in ("config.json", "model.safetensors"):
        (cache / name).symlink_to(checkpoint / name)
    text = fails(4, "export", cache, "-o", tmp_path / "b")
    advised = shlex.split(text.split("Next: ")[1].splitlines()[0])
    assert advised[:2] == ["cp", "-rL"]
    os.spawnvp(os.P_WAIT, advised[0], advised)
    assert cli.main(["evaluate", advised[-1], "--data", str(tmp_path)]) == 3  # read, and the data set is none


def test_a_pointer_of_git_lfs(checkpoint, fails, tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 339512345\n"
    (checkpoint / "model.safetensors").write_bytes(pointer)
    assert "git lfs pull" in fails(3, "export", checkpoint, "-o", tmp_path / "b")
    (tmp_path / "face.pt").write_bytes(pointer)
    assert "git lfs pull" in fails(3, "export", tmp_path / "face.pt", "-o", tmp_path / "b")


def test_a_file_of_another_program_beside_no_configuration(checkpoint, fails, tmp_path):
    (tmp_path / "theirs").mkdir()
    torch.save({"model": weights_of(checkpoint)}, tmp_path / "theirs" / "best.pth")
    text = fails(3, "export", tmp_path / "theirs", "-o", tmp_path / "b")
    assert "another program" in text and "logoformer import" in text


def test_formats_under_a_wrong_name(checkpoint, fails, tmp_path):
    pt = as_pt(checkpoint)
    shutil.copy(checkpoint / "model.safetensors", tmp_path / "renamed.pt")
    assert "mv " in fails(3, "export", tmp_path / "renamed.pt", "-o", tmp_path / "b")
    shutil.copy(pt, checkpoint / "model.safetensors")
    assert "a PyTorch checkpoint" in fails(3, "export", checkpoint, "-o", tmp_path / "b")
