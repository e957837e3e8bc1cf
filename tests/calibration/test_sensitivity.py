"""Sensitivity names the planted outlier's group first, and excluding it restores the budget."""

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from logoformer.bundle.onnx_graph import infer_onnx
from logoformer.calibration.gate import BUDGETS
from logoformer.calibration.placement import groups
from logoformer.calibration.sensitivity import RMS_LIMIT, companions, holds, sensitivity, sensitivity_table
from logoformer.errors import VerificationError
from logoformer.workflows.sensitivity import sensitivity_svg

BUDGET = BUDGETS["int8"]


@pytest.fixture(scope="module")
def found(planted):
    by_node = infer_onnx(planted.fp32).macs_by_node
    macs = {name: sum(by_node.get(node, 0) for node in nodes) for name, nodes in groups(planted.fp32).items()}
    return sensitivity(
        lambda excluded: planted.answers(planted.quantize(excluded)),
        planted.truth,
        planted.labels,
        macs,
        sum(by_node.values()),
        BUDGET,
    )


def test_the_outlier_breaks_naive_max_and_its_group_is_named_first(planted, found):
    broken = planted.compared(planted.quantize())
    assert broken.agreement < 0.8 and broken.rms_share > 1.0 and not holds(broken, BUDGET)
    first, second = found.groups[:2]
    assert first.group == "block0.ffn" and first.harm > 10 * second.harm


def test_excluding_it_restores_the_budget_and_nothing_else_is_given_up(planted, found):
    assert found.excluded == ("block0.ffn",)
    assert [step.holds for step in found.steps] == [False, True]
    mended = planted.compared(planted.quantize(found.excluded))
    assert holds(mended, BUDGET) and mended.rms_share <= RMS_LIMIT
    before, after = (step.int8_share for step in found.steps)
    assert before - after == pytest.approx(found.groups[0].share) and after > 0.85


def test_what_is_reported(found):
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["groups"][0]["group"] == "block0.ffn"
    rows = sensitivity_table(found)
    assert rows[1][0] == "block0.ffn" and rows[1][-1] == "yes" and {row[-1] for row in rows[2:]} == {""}
    drawn = ElementTree.fromstring(sensitivity_svg(found))
    texts = [item.text for item in drawn.iter() if item.text and item.tag.endswith("text")]
    assert all(row.group in texts for row in found.groups)


def test_products_of_attention_are_measured_with_their_projections(found):
    rows = {row.group: row for row in found.groups}
    assert rows["block0.local.bmm"].measured_with == ("block0.local.qkv", "block0.local.out")
    assert companions("block0.ffn", rows) == () and rows["block0.local.bmm"].harm < 0.2


def test_an_fp16_that_does_not_hold_is_not_hidden(planted):
    macs = {"a": 1}
    wrong = np.roll(planted.truth, 1, axis=0)
    with pytest.raises(VerificationError, match="every group excluded"):
        sensitivity(lambda _: wrong, planted.truth, planted.labels, macs, 1, BUDGET)
