"""`inspect`: figures of a bundle, proofs by name, printed layouts of tensors."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.cli import main as cli
from logoformer.engine.describe import describe, describe_text, proofs, tensors, tensors_text
from logoformer.errors import UsageError


@pytest.fixture(scope="module")
def text(family_bundle: Path) -> str:
    return tensors_text(family_bundle)


def test_every_tensor_is_listed_with_its_axes_and_bytes(family_bundle, text):
    found = tensors(family_bundle)
    entries = Bundle(family_bundle).graphs
    assert len(found) == sum(len(entry.inputs) + len(entry.outputs) for entry in entries)
    for tensor in found:
        assert tensor["bytes"] == np.zeros(tensor["shape"], tensor["dtype"]).nbytes
        assert len(tensor["axes"].split()) == len(tensor["shape"])
        assert f"{tensor['name']}: {tensor['dtype']} {tensor['shape']}" in text
    for entry in entries:
        assert entry.file in text
    assert len(text.splitlines()) < 60


def test_the_verb(family_bundle, text, capsys):
    assert cli.main(["inspect", str(family_bundle), "--tensors"]) == 0
    assert capsys.readouterr().out == text + "\n"
    assert cli.main(["inspect", str(family_bundle), "--tensors", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == tensors(family_bundle)


def test_the_byte_of_a_pixel(family_bundle, text):
    clip = Bundle(family_bundle).golden().clips[0]
    raw = clip.tobytes()
    formula = re.search(r"byte of \(t, y, x, c\): (.+)", text)[1]
    rng = np.random.default_rng(0)
    for _ in range(200):
        t, y, x, c = (int(rng.integers(0, size)) for size in clip.shape)
        assert raw[eval(formula, {}, {"t": t, "y": y, "x": x, "c": c})] == clip[t, y, x, c]


def places(text: str, face: int, slot: list[int]) -> list[int]:
    """Runs the printed loops."""
    names = ("T0", "Y0", "X0", "dt", "dy", "dx")
    ends = [int(re.search(rf"\b{name} in 0\.\.(\d+)", text)[1]) for name in names]
    t, cell, row = re.search(r"t = (.+?);  cell = (.+?);  order\[place\+\+\] = (.+)", text).groups()
    order = []
    for values in product(*map(range, ends)):
        scope: dict = dict(zip(names, values, strict=True)) | {"face": face, "slot": slot}
        scope["t"] = eval(t, {}, scope)
        scope["cell"] = eval(cell, {}, scope)
        order.append(eval(row, {}, scope))
    return order


def test_a_ring_filled_as_printed_answers_as_the_clip_does(family_bundle, text):
    with logoformer.load(family_bundle, precision="fp32", threads=1) as runtime:
        clip = runtime.bundle.golden().clips[0]
        frame, temporal = runtime.session("frame"), runtime.session("temporal")
        first_row = re.search(r"begin at\n\s+(\(.+?\)\*\d+);", text)[1]
        slots = [3 * t + 1 for t in range(runtime.bundle.frames)]  # anywhere in the last face's part of the ring
        face = runtime.bundle.stream.faces - 1
        for picture, slot in zip(clip, slots, strict=True):
            frame.input("frame")[0] = picture
            frame.run()
            row = eval(first_row, {}, {"face": face, "slot": slot})
            tokens = frame.output("tokens")[0]
            temporal.input("ring")[row : row + len(tokens)] = tokens
        temporal.input("order")[:] = places(text, face, slots)
        temporal.run()
        answer = temporal.output("probabilities")[0].copy()
        np.testing.assert_allclose(answer, runtime(clip, color="rgb").probabilities, atol=1e-5)


def test_deepstreams_axes_are_permuted_as_printed(family_bundle, text):
    clip = Bundle(family_bundle).golden().clips[:1]  # [1, T, S, S, 3]
    perm = [int(axis) for axis in re.search(r"perm=\[([\d, ]+)\]", text)[1].split(",")]
    ncdhw = np.ascontiguousarray(np.moveaxis(clip, 4, 1)).astype(np.float32)
    assert list(ncdhw.shape) == [int(n) for n in re.search(r"network-input-shape=([\d;]+)", text)[1].split(";")]
    np.testing.assert_array_equal(ncdhw.transpose(perm), clip)
    assert "not run here" in text


def test_inspect_needs_no_torch_and_shows_the_bar_figures(untrained_bundle: Path):
    text = describe_text(describe(untrained_bundle))
    for word in ("0.187 M", "0.046 G", "0.043 G", "128 of 64", "stays fp32", "engines     none"):
        assert word in text, word
    assert f"none; next: logoformer build {untrained_bundle}\n" in f"{text}\n"


def test_inspect_names_the_family_and_its_figures(family_bundle: Path):
    told = describe(family_bundle)
    text = describe_text(told)
    model = told["model"]
    assert text.splitlines()[0].startswith(f"{family_bundle}: {told['family']} '{model['preset']}', 7 classes")
    assert f"{model['complexity']['parameters'] / 1e6:.3f} M" in text
    assert ("10.27 G" in text) == (model["family"] == "logoformer")


@pytest.mark.slow
def test_proofs_by_name(untrained_bundle: Path):
    found = proofs(untrained_bundle, graphs=["temporal"], precisions=["fp16"])
    assert list(found) == ["temporal fp16"] and len(found["temporal fp16"].plan.with_role("attention")) == 4
    with pytest.raises(UsageError, match="temporal fp32"):
        proofs(untrained_bundle, graphs=["spatial"])
