"""`benchmarks/results/families.json` keeps the bars, and the layout it is compared with is the same network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from logoformer.model.networks.configs import PRESETS
from logoformer.model.networks.families import untrained
from logoformer.model.networks.network import to_tensor
from logoformer.studies.plain_layout import PlainMaeDfer

RESULTS = json.loads(
    (Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "families.json").read_text(encoding="utf-8")
)


def test_the_authors_layout_is_the_same_network():
    config = PRESETS["mae-dfer-tiny"]
    model = untrained(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
        clip = torch.randint(0, 256, (1, 8, 64, 64, 3), dtype=torch.uint8)
        torch.testing.assert_close(PlainMaeDfer(model)(clip), model(to_tensor(clip)).softmax(-1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["former-dfer", "mae-dfer"])
def test_parity_and_stream(name: str):
    found = RESULTS[name]
    for precision, allowed in (("fp32", 0.001), ("fp16", 0.05)):
        entry = found["parity"]["precisions"][precision]
        assert entry["verdict"] == "accept"
        assert all(part["share_of_clip_deviation"] <= allowed for part in entry["parity"].values())
    assert found["stream"]["answers"] >= 5 and found["stream"]["share_of_clip_deviation"] <= 0.001


def test_plans():
    former, mae = RESULTS["former-dfer"]["plans"], RESULTS["mae-dfer"]["plans"]
    for plan, kernels, fused in (
        (former["frame fp16"], 31, 1), (former["temporal fp16"], 23, 3),
        (mae["clip fp16"], 335, 47), (mae["temporal fp16"], 335, 47),
    ):  # fmt: skip
        assert plan["kernels"] <= kernels and plan["fused_attentions"] == fused and plan["movement"] == 0
    # why each precision has its form: fewer kernels where attention is fused, less work where it is not
    other = mae["clip fp16, absorbed"]
    assert "not_built" in other or mae["clip fp16"]["kernels"] < other["kernels"]
    assert sum(mae["clip fp32"]["macs_by_precision"].values()) <= 41.5e9


def test_biases_of_other_peoples_checkpoints_cost_few_kernels():
    found = RESULTS["logoformer"]["plans"]
    plain, biased = found["temporal fp16, without biases"], found["temporal fp16, with biases"]
    assert plain["fused_attentions"] == biased["fused_attentions"] == 8 and biased["movement"] == 0
    assert biased["kernels"] - plain["kernels"] <= 8  # one for each attention


def test_cpu_ratios():
    assert RESULTS["former-dfer"]["cpu"]["ratios"]["stream at hop 1"]["value"] <= 0.10
    assert RESULTS["mae-dfer"]["cpu"]["ratios"]["clip"]["value"] <= 0.80


def test_int8_has_a_verdict_with_a_reason():
    for name in ("former-dfer", "mae-dfer"):
        found = RESULTS[name]["int8"]
        assert found["verdict"] and found["reason"] and found["modules_left_in_fp16"]
