"""Moving scales keeps the function and lets INT8 hold."""

import numpy as np
from logoformer.calibration.collect import collect_ranges
from logoformer.calibration.gate import BUDGETS
from logoformer.calibration.quantize import QuantizeConfig, quantize_graph
from logoformer.calibration.sensitivity import holds
from logoformer.calibration.smooth import OUTLIER, factors, norms, smooth
from logoformer.export.precision import channels

FFN = "temporal.blocks.0.norm_ffn/LayerNormalization"


def of(planted):
    tensors = [norm.outputs[0] for norm, _ in norms(planted.fp32)]
    seen = channels(planted.fp32, [{"clip": clip[None]} for clip in planted.calibration], tensors)
    return factors(planted.fp32, seen), seen


def test_only_norms_that_weights_alone_read_are_treated(planted):
    found = [norm.name for norm, _ in norms(planted.fp32)]
    assert FFN in found and "temporal.blocks.0.norm_local/LayerNormalization" in found
    assert not any("norm_global" in name or "norm_pool" in name or name.startswith("temporal.norm") for name in found)


def test_only_the_norm_with_the_outlier_gets_factors(planted):
    found, seen = of(planted)
    assert set(found) == {FFN}
    assert int(found[FFN].argmax()) == int(seen[FFN].argmax()) and found[FFN].max() > 50
    assert seen[FFN].max() > OUTLIER * np.median(seen[FFN])


def test_the_function_stays_and_int8_holds(planted):
    found, _ = of(planted)
    fp32, fp16 = smooth(planted.fp32, found), smooth(planted.fp16, found)
    assert planted.compared(fp32).max_share < 1e-3 and planted.compared(fp16).max_share < 0.05
    config = QuantizeConfig()
    int8 = quantize_graph(fp32, fp16, collect_ranges(fp32, planted.calibration, config), config)
    assert not holds(planted.compared(planted.quantize()), BUDGETS["int8"])
    assert holds(planted.compared(int8), BUDGETS["int8"])
    types = [{i.name: i.data_type for i in graph.graph.initializer} for graph in (fp16, planted.fp16)]
    assert types[0] == types[1], "each initializer keeps its type"
