"""What a file's own arguments and the caller's labels may say, and what is said when they do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest
from logoformer.camera.answers import contract as answers
from logoformer.errors import BadInputError, UsageError
from logoformer.model.importing.recognise import family_config
from logoformer.model.networks.configs import PRESETS, preset
from logoformer.model.networks.contract import UNCERTAIN, NetworkConfig, check_labels
from logoformer.model.networks.families import FAMILIES
from published import SMALL_MAE


def shapes_of(name: str, classes: int) -> dict[str, tuple[int, ...]]:
    config = PRESETS[name]
    shapes = {key: tensor.shape for key, tensor in FAMILIES[config.family].foreign(config).items()}
    head = ("fc.weight", "fc.bias") if config.family == "former-dfer" else ("head.weight", "head.bias")
    return {key: (classes, *shape[1:]) if key in head else shape for key, shape in shapes.items()}


def config(name: str, classes: int, args: Mapping[str, object] = SMALL_MAE, **options: object) -> NetworkConfig:
    """The configuration of a file with so many classes; Former-DFER's files have no arguments."""
    tensors = {key: SimpleNamespace(shape=shape) for key, shape in shapes_of(name, classes).items()}
    if name == "former-dfer":
        return family_config(FAMILIES[name], tensors, {}, options, "x.pth")
    said = {**args, "nb_classes": classes}
    return family_config(FAMILIES["mae-dfer"], tensors, said, {"heads": 4, **options}, "x.pth")


SMALL = ["former-dfer", "mae-dfer-tiny"]


@pytest.mark.parametrize("name", SMALL)
def test_a_classifier_of_other_classes_is_mended_with_labels(name):
    with pytest.raises(BadInputError, match=r"classifier has 5 classes; known for 'DFEW' are 7 names") as caught:
        config(name, 5)
    assert "data set" in caught.value.cause and "--labels A,B,C,D,..." in caught.value.next
    assert config(name, 5, labels=("a", "b", "c", "d", "e")).labels == ("a", "b", "c", "d", "e")
    assert config(name, 7).classes == 7


@pytest.mark.parametrize("name", SMALL)
def test_too_many_or_too_few_labels_are_the_callers(name):
    with pytest.raises(BadInputError, match=r"classifier has 3 classes; --labels names 2\.") as caught:
        config(name, 3, labels=("a", "b"))
    assert "order of the training lists: --labels A,B,C" in caught.value.next
    assert "--region" not in caught.value.next and "--heads" not in caught.value.next


@pytest.mark.parametrize("name", SMALL)
def test_a_label_that_stands_twice_is_named_and_no_size_is_blamed(name):
    with pytest.raises(UsageError, match="all different") as caught:
        config(name, 3, labels=("a", "b", "a"))
    assert caught.value.cause == "'a' twice"
    assert caught.value.next == "name each class once"


@pytest.mark.parametrize(
    ("argument", "option"),
    [("sampling_rate", "--stride N"), ("num_frames", "--frames N"), ("input_size", "--size N")],
)
@pytest.mark.parametrize("said", [0, -4, 4.5, True, "many", "", "4.5", [4], float("inf")])
def test_an_argument_that_is_no_whole_number_is_neither_cut_nor_replaced(argument, option, said):
    with pytest.raises(BadInputError, match=f"{argument} is .*whole number from 1") as caught:
        config("mae-dfer-tiny", 7, {**SMALL_MAE, argument: said})
    assert option in caught.value.next and "--heads" not in caught.value.next


@pytest.mark.parametrize("said", [[2.9, 2, 4], [2, 0, 4], [True, 2, 4], ["a", "b", "c"]])
def test_a_region_is_not_cut_either(said):
    with pytest.raises(BadInputError, match=r"lg_region_size is .*whole numbers from 1") as caught:
        config("mae-dfer-tiny", 7, {**SMALL_MAE, "lg_region_size": said})
    assert "--region T,H,W" in caught.value.next


def test_an_option_goes_before_what_the_file_says_wrongly_and_other_ways_to_write_a_number_are_read():
    assert config("mae-dfer-tiny", 7, {**SMALL_MAE, "sampling_rate": 0}, stride=2).sampling.stride == 2
    args = {**SMALL_MAE, "sampling_rate": 3.0, "num_frames": "8"}
    assert config("mae-dfer-tiny", 7, args).sampling.stride == 3
    assert config("mae-dfer-tiny", 7, {**SMALL_MAE, "sampling_rate": None}).sampling.stride == 4


def test_the_word_for_an_answer_without_a_label_is_no_class():
    assert UNCERTAIN == answers.UNCERTAIN
    with pytest.raises(UsageError, match="uncertain") as caught:
        replace(preset("tiny"), labels=("happy", UNCERTAIN))
    assert "name the class otherwise" in caught.value.next
    check_labels(("happy", "unsure"))
