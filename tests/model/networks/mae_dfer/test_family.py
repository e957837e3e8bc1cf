"""Files of MAE-DFER by their names and shapes: what is taken from `args`, what is refused and why."""

from __future__ import annotations

import pytest
from logoformer.clips import Sampling
from logoformer.errors import BadInputError
from logoformer.model.networks.configs import PRESETS
from logoformer.model.networks.families import FAMILIES

FAMILY = FAMILIES["mae-dfer"]
PUBLISHED = PRESETS["mae-dfer"]
ARGS = {
    "model": "vit_base_dim512_no_depth_patch16_160", "depth": 16, "nb_classes": 7, "input_size": 160, "num_frames": 16,
    "tubelet_size": 2, "lg_region_size": (2, 5, 10), "lg_classify_token_type": "region", "data_set": "DFEW",
    "sampling_rate": 4,
}  # fmt: skip


@pytest.fixture
def shapes() -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in FAMILY.foreign(PUBLISHED).items()}


def test_the_published_configuration_follows_from_args_and_shapes(shapes):
    assert FAMILY.recognise(shapes) and not FAMILIES["former-dfer"].recognise(shapes)
    assert FAMILY.config_of(shapes, ARGS, {}) == PUBLISHED


def test_without_args_the_region_must_be_named_and_the_rest_is_as_published(shapes):
    with pytest.raises(BadInputError) as caught:
        FAMILY.config_of(shapes, {}, {})
    assert "--region" in caught.value.next
    assert FAMILY.config_of(shapes, {}, {"region": (2, 5, 10)}) == PUBLISHED


def test_data_sets_decide_labels_and_stride(shapes):
    ferv = FAMILY.config_of(shapes, {**ARGS, "data_set": "FERV39k", "sampling_rate": 1}, {})
    assert ferv.labels == PUBLISHED.labels and ferv.sampling == Sampling.strided(16, 1)
    for name in ("head.weight", "head.bias"):
        shapes[name] = (11, *shapes[name][1:])
    mafw = FAMILY.config_of(shapes, {**ARGS, "data_set": "MAFW", "nb_classes": 11}, {})
    assert mafw.labels[0] == "anger" and mafw.labels[-1] == "disappointment"
    with pytest.raises(BadInputError, match="11 classes"):
        FAMILY.config_of(shapes, {**ARGS, "nb_classes": 11}, {})


def test_the_head_reads_what_the_file_says(shapes):
    assert FAMILY.config_of(shapes, {**ARGS, "lg_classify_token_type": "org"}, {}).read == "local"


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        ({"depth": 12}, {}, ("depth", "12", "16")),
        ({"nb_classes": 6}, {}, ("nb_classes", "6", "7")),
        ({"lg_region_size": (2, 2, 10)}, {}, ("number of regions", "20", "8")),
        ({"num_frames": 8}, {}, ("number of regions",)),
        ({"lg_first_attn_type": "cross"}, {}, ("another one", "lg_first_attn_type")),
        ({"lg_no_second": True}, {}, ("another one", "lg_no_second")),
        ({"attn_type": "joint"}, {}, ("another one", "attn_type")),
        ({"lg_region_size": 5}, {}, ("three sizes",)),
    ],
)
def test_settings_that_the_shapes_contradict_or_of_other_networks_are_refused(shapes, args, options, words):
    with pytest.raises(BadInputError) as caught:
        FAMILY.config_of(shapes, {**ARGS, **args}, options)
    assert all(word in str(caught.value) for word in words)


def test_pre_training_files_are_named_as_such():
    shapes = {
        "encoder.blocks.0.first_attn.q.weight": (512, 512),
        "decoder.head.weight": (1536, 384),
        "mask_token": (1,),
    }
    assert FAMILY.recognise(shapes)
    with pytest.raises(BadInputError, match="pre-training"):
        FAMILY.config_of(shapes, {}, {})


@pytest.mark.parametrize("change", ["blocks.0.first_attn_norm1.weight", "pos_embed", "norm.weight", "blocks.0.gamma_1"])
def test_tensors_of_other_networks_are_refused(shapes, change: str):
    with pytest.raises(BadInputError, match="another one"):
        FAMILY.config_of({**shapes, change: (512,)}, ARGS, {})


def test_a_width_that_no_entry_has_needs_its_heads_named(shapes):
    narrow = {name: tuple(256 if n == 512 else n for n in shape) for name, shape in shapes.items()}
    with pytest.raises(BadInputError) as caught:
        FAMILY.config_of(narrow, ARGS, {})
    assert "--heads" in caught.value.next
    assert FAMILY.config_of(narrow, ARGS, {"heads": 4}).heads == 4
