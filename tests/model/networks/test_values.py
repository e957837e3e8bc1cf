"""Weights that no network works with are refused by the tensor's name, before anything is computed with them."""

from __future__ import annotations

import pytest
from logoformer.errors import BadInputError
from logoformer.model.networks.values import refuse_alike, refuse_kinds, refuse_scaling, refuse_value

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("a.weight", [[1.0, float("nan")]], "1 of 2 values that are NaN"),
        ("a.bias", [1.0, float("inf"), float("-inf")], "2 of 3 values that are infinite"),
        ("cls", [float("inf"), float("nan")], "2 of 2 values that are not finite (1 of them NaN)"),
        ("a.weight", [[0.0, 0.0]], "zero throughout (2 values)"),
        ("norm.weight", [0.0, 0.0], "zero throughout"),
        ("a.weight", [[1e-13, 0.0]], "vanishes"),
        ("a.weight", [[1.0, 2.0], [1.0, 2.0]], "2 equal rows"),
        ("bn.running_var", [1.0, -0.5], "negative variance, -0.5"),
        ("bn.running_var", [0.0, 0.0], "all zero"),
    ],
)
def test_values_that_are_refused(name, value, word):
    with pytest.raises(BadInputError) as caught:
        refuse_value(name, torch.tensor(value), "a.pt")
    assert word in caught.value.what and repr(name) in caught.value.what and caught.value.cause and caught.value.next


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a.bias", [0.0, 0.0]),
        ("norm.weight", [1.0, 1.0]),
        ("bn.running_mean", [0.0, 0.0]),
        ("bn.running_var", [0.0, 1.0]),
        ("pos_spatial", [[0.0, 0.0], [0.0, 0.0]]),
        ("a.weight", [[1.0, 2.0]]),
        ("a.weight", [[1.0, 1.0], [2.0, 2.0]]),
        ("empty.weight", []),
    ],
)
def test_values_that_networks_have(name, value):
    refuse_value(name, torch.tensor(value), "a.pt")
    refuse_value("bn.num_batches_tracked", torch.tensor(0), "a.pt")


KINDS = {
    "sparse": lambda: torch.eye(2).to_sparse(),
    "quantized (qint8)": lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "a meta tensor": lambda: torch.empty(2, device="meta"),
    "complex64": lambda: torch.ones(2, dtype=torch.complex64),
    "float8_e4m3fn": lambda: torch.ones(2).to(torch.float8_e4m3fn),
    "int8": lambda: torch.ones(2, dtype=torch.int8),
    "bool": lambda: torch.ones(2, dtype=torch.bool),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_are_named(kind):
    with pytest.raises(BadInputError) as caught:
        refuse_kinds({"x.weight": KINDS[kind]()}, "a.pt", {"x.weight": torch.ones(2)})
    assert f"'x.weight' of a.pt is {kind}" in caught.value.what


def test_plain_kinds_pass():
    values = {name: torch.ones(2, dtype=getattr(torch, name)) for name in ("float16", "bfloat16", "float64", "int64")}
    refuse_kinds(values, "a.pt", {"int64": torch.ones(2, dtype=torch.int64), "float16": torch.ones(2)})


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        ((0.5,) * 3, (127.5,) * 3),
        ((float("nan"),) * 3, (1.0,) * 3),
    ],
)
def test_scaling_of_bytes_is_refused_with_the_numbers_to_write(mean, std):
    with pytest.raises(BadInputError) as caught:
        refuse_scaling(mean, std, "a")
    if mean[0] > 1:
        assert "[0.485, 0.456, 0.406]" in caught.value.next and "[0.229, 0.224, 0.225]" in caught.value.next


def test_scalings_of_this_field_pass():
    refuse_scaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "a")
    refuse_scaling((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "a")


class Two(torch.nn.Module):
    """Two layers of pixels, with a constant beside them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.constant = torch.nn.Linear(2, 4)
        self.first = torch.nn.Linear(12, 4)
        self.head = torch.nn.Linear(4, 3)

    def forward(self, clips):
        beside = self.constant(torch.ones(len(clips), 2))  # the same for all clips, as a [CLS] before its first block
        return self.head(torch.tanh(self.first(clips.flatten(1))) + beside)


def test_a_network_that_answers_alike_is_told_where():
    clips = torch.rand(4, 1, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    model = Two()
    refuse_alike(model, clips)
    model.head.weight.data *= 1e-9
    with pytest.raises(BadInputError, match=r"'head\.weight' on"):
        refuse_alike(model, clips)
    model = Two()
    model.first.weight.data *= 1e-9
    with pytest.raises(BadInputError, match=r"alike.*'first\.weight'"):
        refuse_alike(model, clips)
