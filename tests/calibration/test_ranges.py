"""The method of each part: chosen by the answers, never worse on the clips that it was chosen on."""

from __future__ import annotations

import numpy as np
import pytest
from logoformer.calibration.collect import observe
from logoformer.calibration.placement import sites
from logoformer.calibration.quantize import QuantizeConfig
from logoformer.calibration.ranges import PARTS, TRIED, choose_ranges, part_of_site
from logoformer.export.reference import Reference


def test_every_tensor_takes_the_method_of_its_part(models, golden_clips, observed):
    fp32 = models["clip", "fp32"]
    ranges, methods = choose_ranges(fp32, Reference(fp32).side_by_side, observed, QuantizeConfig(), golden_clips[:4])
    assert (
        set(methods) == set(PARTS) and set(methods.values()) <= set(TRIED) and ranges.keys() == observed.largest.keys()
    )
    by_method = {method: observed.ranges(method) for method in TRIED}
    for site in sites(fp32):
        for name in site.tensors:
            assert ranges[name] == by_method[methods[part_of_site(site)]][name]


def test_clipping_is_chosen_where_one_value_spoils_the_steps_and_only_there(models, golden_clips):
    """A histogram with one value a hundred times as large: only ranges that clip keep the answers."""
    fp32 = models["clip", "fp32"]
    seen = observe(fp32, golden_clips[:4])
    spoilt = {name for site in sites(fp32) if part_of_site(site) == "trunk" for name in site.tensors}
    histograms = {**seen.histograms}
    for name in spoilt:
        squeezed = np.zeros_like(histograms[name])
        np.add.at(squeezed, np.arange(len(squeezed)) // 8, histograms[name])
        squeezed[-1] = 1
        histograms[name] = squeezed
    largest = {name: top * (8 if name in spoilt else 1) for name, top in seen.largest.items()}
    wild = type(seen)(largest, histograms)
    run = Reference(fp32).side_by_side
    _, methods = choose_ranges(fp32, run, wild, QuantizeConfig(), golden_clips[:4])
    assert methods["trunk"] != "max"
    _, untouched = choose_ranges(fp32, run, seen, QuantizeConfig(), golden_clips[:4])
    assert untouched["rest"] == methods["rest"] or methods["rest"] in TRIED


@pytest.mark.parametrize("exclude", [(), ("trunk.layer1",)])
def test_the_choice_is_no_worse_than_the_largest_values(models, golden_clips, observed, exclude):
    from logoformer.calibration.compensate import rounded_activations

    fp32 = models["clip", "fp32"]
    config = QuantizeConfig(exclude=exclude)
    clips = golden_clips[:4]
    ranges, _ = choose_ranges(fp32, Reference(fp32).side_by_side, observed, config, clips)
    chosen = {site.node: site for site in sites(fp32, exclude=exclude)}
    last = fp32.graph.node[-1].name

    def logits(found) -> np.ndarray:
        kept = []

        def before(name, runs):
            if name == last:
                kept.extend(inputs[0].numpy().copy() for inputs in runs)
            if found is None or name not in chosen:
                return runs
            return [rounded_activations(chosen[name], inputs, found) for inputs in runs]

        Reference(fp32).side_by_side([{"clip": clip[None]} for clip in clips], before)
        values = np.concatenate(kept)
        return values - values.mean(1, keepdims=True)

    exact = logits(None)
    own, plain = (np.square(logits(one) - exact).mean() for one in (ranges, observed.largest))
    assert 0 < own <= plain * (1 + 1e-6)
