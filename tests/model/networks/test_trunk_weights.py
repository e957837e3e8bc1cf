"""The three layouts load; what does not fit is refused with reasons."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from logoformer.errors import BadInputError, RefusedError
from logoformer.model.networks.backbone import Trunk
from logoformer.model.networks.weight_files import load_trunk
from safetensors.torch import save_file

WIDTHS, BLOCKS = (8, 16, 32, 64), (2, 2, 2, 2)


def donor() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    trunk = Trunk(7, WIDTHS, BLOCKS)
    for name, buffer in trunk.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return {**trunk.state_dict(), "fc.weight": torch.randn(10, 64), "fc.bias": torch.randn(10)}


LAYOUTS = {
    "module prefix, fc and feature": lambda s: {
        "state_dict": {**{f"module.{k}": v for k, v in s.items()}, "module.feature.weight": torch.zeros(3, 3)}
    },
    "plain names in a state_dict": lambda s: {"state_dict": s, "iter": 60000},
    "bare": lambda s: s,
}


def fresh() -> Trunk:
    torch.manual_seed(1)
    return Trunk(7, WIDTHS, BLOCKS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_fills_the_whole_trunk(layout: str, tmp_path: Path):
    state, path = donor(), tmp_path / "weights.pth.tar"
    torch.save(LAYOUTS[layout](state), path)
    trunk = fresh()
    done = load_trunk(trunk, path)
    assert (done.matched, done.prefix) == (done.wanted, "module." if layout.startswith("module") else "")
    for name, value in trunk.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, state[name]), name
    assert any(name.endswith("fc.weight") for name in done.unused)
    assert f"{done.wanted} of {done.wanted}" in done.line() and len(done.sha256) == 64


def test_safetensors_and_a_shorter_trunk(tmp_path: Path):
    state, path = donor(), tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in state.items()}, path)
    trunk = Trunk(7, WIDTHS[:3], BLOCKS[:3])
    assert load_trunk(trunk, path).matched == load_trunk(trunk, path).wanted
    assert torch.equal(trunk.conv1.weight, state["conv1.weight"])


def test_bgr_weights_are_turned_round(tmp_path: Path):
    state, path = donor(), tmp_path / "weights.pth"
    torch.save(state, path)
    trunk = fresh()
    assert load_trunk(trunk, path, color="bgr").color == "bgr"
    assert torch.equal(trunk.conv1.weight, state["conv1.weight"].flip(1))


def test_a_wrong_prefix_is_refused_and_nothing_is_loaded(tmp_path: Path):
    path, trunk = tmp_path / "weights.pth", fresh()
    torch.save({f"encoder.q.{k}": v for k, v in donor().items()}, path)
    before = trunk.conv1.weight.detach().clone()
    with pytest.raises(BadInputError, match=r"fills 0 of the trunk's \d+ tensors; 95% are needed") as caught:
        load_trunk(trunk, path)
    assert "encoder.q.bn1" in "".join(caught.value.log) and torch.equal(trunk.conv1.weight, before)


def test_another_width_is_refused_naming_both_shapes(tmp_path: Path):
    path = tmp_path / "weights.pth"
    torch.save(donor(), path)
    with pytest.raises(BadInputError) as caught:
        load_trunk(Trunk(7, (16, 32, 64, 128), BLOCKS), path)
    assert "[8, 3, 7, 7] in the file, [16, 3, 7, 7] in the trunk" in "".join(caught.value.log)


def test_just_under_the_share_is_refused(tmp_path: Path):
    state, path = donor(), tmp_path / "weights.pth"
    names = [k for k in state if not k.startswith("fc") and not k.endswith("num_batches_tracked")]
    for name in names[: len(names) // 20 + 1]:
        del state[name]
    torch.save(state, path)
    with pytest.raises(BadInputError, match="95% are needed"):
        load_trunk(fresh(), path)


class Code:
    def __reduce__(self):
        return os.getcwd, ()


def test_a_pickle_with_code_and_a_truncated_file_are_refused(tmp_path: Path):
    path = tmp_path / "weights.pth.tar"
    torch.save({"state_dict": donor(), "recorder": Code()}, path)
    with pytest.raises(RefusedError, match="more than tensors and plain values"):
        load_trunk(fresh(), path)
    torch.save(donor(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInputError, match="not a PyTorch checkpoint"):
        load_trunk(fresh(), path)
    path.write_bytes(b"<html>")
    with pytest.raises(BadInputError, match="not a PyTorch checkpoint"):
        load_trunk(fresh(), path)
