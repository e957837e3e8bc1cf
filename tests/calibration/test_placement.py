"""The placement policy on our own graphs, and on graphs that differ in one thing that it asks for."""

from collections.abc import Mapping

import onnx
import pytest
from logoformer.calibration.placement import MAX_SEQUENCE, check_exclude, group_of, groups, sites
from logoformer.errors import UsageError
from logoformer.export.graphs import build_graph, example_inputs
from logoformer.export.trace import trace
from logoformer.model.networks.configs import PRESETS
from logoformer.model.networks.logoformer.model import LogoFormer

Models = Mapping[tuple[str, str], onnx.ModelProto]


def names(model: onnx.ModelProto, **more) -> set[str]:
    return {site.node for site in sites(model, **more)}


def test_the_groups_of_a_clip_graph(models: Models):
    found = groups(models["clip", "fp32"])
    assert list(found) == [
        "trunk.conv1", "trunk.layer1", "trunk.layer2", "trunk.layer3", "project",
        "block0.local.qkv", "block0.local.bmm", "block0.local.out", "block0.global.qkv", "block0.global.out",
        "block0.ffn", "block1.local.qkv", "block1.local.bmm", "block1.local.out",
    ]  # fmt: skip
    assert found["block0.ffn"] == ("temporal.blocks.0.ffn.fc1/MatMul", "temporal.blocks.0.ffn.fc2/MatMul")
    # The keys of the global attention are 1 + 8 rows: only its queries are worth INT8.
    assert found["block0.global.qkv"] == ("temporal.blocks.0.global_attention.q/MatMul",)
    # The shortcut of a block without a convolution in it, and the two convolutions.
    assert found["trunk.layer1"] == (
        "frame.trunk.layer1.0.conv1/Conv", "frame.trunk.layer1.0.conv2/Conv", "frame.trunk.layer1.0/Add",
    )  # fmt: skip
    nodes = [node for group in found.values() for node in group]
    assert len(nodes) == len(set(nodes))


def test_the_pair_is_placed_as_the_clip_graph_is(models: Models):
    whole = names(models["clip", "fp32"])
    pair = names(models["frame", "fp32"]), names(models["temporal", "fp32"])
    assert pair[0] | pair[1] == whole and not pair[0] & pair[1]


def test_what_decides_and_what_has_few_rows_stays_out(models: Models):
    found = names(models["temporal", "fp32"])
    assert "temporal.head/Gemm" not in found
    last = "temporal.blocks.1."
    for name in ("global_attention.q", "global_attention.out", "ffn.fc1", "ffn.fc2", "global_attention.k"):
        assert f"{last}{name}/MatMul" not in found


def test_a_group_that_is_excluded_is_out_and_nothing_else(models: Models):
    model = models["clip", "fp32"]
    everything = groups(model)
    for group in ("trunk.layer2", "block0.ffn", "block0.local.bmm"):
        assert names(model) - names(model, exclude=(group,)) == set(everything[group])
    assert names(model) - names(model, attention=False) == {
        node for group in everything if group.endswith("bmm") for node in everything[group]
    }


@pytest.mark.parametrize("part", ["qkv", "out"])
def test_an_attention_is_int8_as_a_whole_or_not_at_all(models: Models, part: str):
    left = names(models["temporal", "fp32"], exclude=(f"block0.local.{part}",))
    assert not {node for node in left if node.startswith("temporal.blocks.0.local_attention/")}
    assert {node for node in left if node.startswith("temporal.blocks.1.local_attention/")}


def test_a_shortcut_whose_convolutions_are_out_is_out(models: Models):
    assert not {node for node in names(models["frame", "fp32"], exclude=("trunk.layer1",)) if "layer1" in node}


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["base", "wide"])
def test_full_size_attention(preset: str):
    config = PRESETS[preset]
    model = LogoFormer(config).eval()
    graph = trace(build_graph("temporal", model), example_inputs("temporal", config, 20), "probabilities")
    found = groups(graph)
    assert {f"block{index}.local.bmm" for index in range(4)} <= found.keys()
    assert not [group for group in found if group.endswith("global.bmm")]  # 17 and 9 keys


def test_too_long_a_sequence_or_another_head_size_is_left_in_fp16(models: Models, monkeypatch: pytest.MonkeyPatch):
    assert MAX_SEQUENCE == 512
    monkeypatch.setattr("logoformer.calibration.placement.MAX_SEQUENCE", 15)  # windows have 16 tokens
    assert not [group for group in groups(models["temporal", "fp32"]) if group.endswith("bmm")]
    monkeypatch.setattr("logoformer.calibration.placement.MAX_SEQUENCE", 16)
    assert [group for group in groups(models["temporal", "fp32"]) if group.endswith("bmm")]
    monkeypatch.setattr("logoformer.calibration.placement.HEAD_SIZES", (24, 48))
    assert not [group for group in groups(models["temporal", "fp32"]) if group.endswith("bmm")]


def test_names(models: Models):
    assert group_of("frame.trunk.layer3.0.downsample.0/Conv") == "trunk.layer3"
    assert group_of("temporal.blocks.11.global_attention/MatMul.2") == "block11.global.bmm"
    assert group_of("frame.spatial_blocks.0.attention.k/MatMul") == "frame.block0.attention.qkv"
    assert group_of("frame.spatial_blocks.1.ffn.fc2/MatMul") == "frame.block1.ffn"
    assert group_of("temporal.blocks.15.interaction.out/MatMul") == "block15.interaction.out"
    with pytest.raises(UsageError, match="no known group"):
        group_of("other/MatMul")
    with pytest.raises(UsageError, match=r"no group 'block9\.ffn'") as caught:
        check_exclude(("project", "block9.ffn"), groups(models["clip", "fp32"]))
    assert "'block0.ffn'" in caught.value.next
