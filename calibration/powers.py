"""Activation scales of the trunk that are powers of two: every backend rounds it alike.

Between two quantizers of the trunk all values are then whole multiples of one small power of two: steps of 7 bits,
times weights of 7 and their scales of 4 (`quantize.weight_scale`), summed up, and a bias of the same kind. Float32
holds such sums whole up to 2^24 of that unit, so they are those of integers, in any order. No layer can promise to stay
below: thousands of inputs could all be at their largest, and a trained `base` comes near. With any other scale
sums differ in the last bit; here and there one moves to the next step, and the layers behind it follow: on a trained
`base` two backends were half as far apart at the tokens as INT8 is from FP32, and are equal now.

It holds where the whole trunk is INT8. Attentions are not sums of integers: what they add, each backend rounds its way.

Resolution is kept where a whole map can be scaled (`equalise.Seam`) until its range fills 127 steps of a power of two.
Maps of one seam have one factor; those that it does not fit get the next larger power, as do pixels: steps of 2 put
every odd one halfway. A trained `tiny` is as far from FP32 as before, untrained ones are a tenth farther.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .amax import LEVELS
from .equalise import Factors, initializers, seams
from .placement import sites
from .quantize import SCALE_FLOOR, QuantizeConfig, Ranges
from .ranges import part_of_site

if TYPE_CHECKING:
    import onnx

# What lies less than half a step above the last one is rounded to it, as anything is rounded: pixels up to 255 have
# steps of 2, not of 4.
_REACH = (LEVELS + 0.5) / LEVELS


def fit_powers(
    model: onnx.ModelProto, moved: Factors, ranges: Ranges, config: QuantizeConfig, *, move: bool = True
) -> tuple[Factors, Ranges]:
    """Scales the trunk's maps, then widens their ranges to 127 steps of a power of two.

    Args:
        model: the FP32 clip graph, its scales moved by `moved`.
        moved: of `equalise.choose_factors`, by seam.
        ranges: of the activations of `model`.
        config: what is quantized.
        move: scale maps; False only widens.

    Returns:
        `moved` with the trunk's maps scaled too, and the ranges of the graph that it makes.
    """
    chosen = sites(model, attention=config.attention, exclude=config.exclude)
    names = {name for site in chosen if part_of_site(site) == "trunk" for name in site.tensors}
    values, nodes = initializers(model), {node.name: node for node in model.graph.node}
    factors, found = dict(moved), dict(ranges)
    for seam in seams(model) if move else ():
        maps = [name for name in seam.tensors if name in names]
        if maps:
            factor = common_factor(np.array([found[name] for name in maps]) / LEVELS)
            channels = len(values[nodes[seam.name].input[1]])
            before = factors.get(seam.name, np.ones(channels, np.float32))
            factors[seam.name] = (before * factor).astype(np.float32)
            found |= {name: found[name] / factor for name in maps}
    return factors, found | {name: LEVELS * power_above(found[name] / LEVELS) for name in names}


def common_factor(scales: npt.NDArray[np.float64]) -> float:
    """What some scales are divided by to lose the least when they become powers of two.

    Those below `SCALE_FLOOR`, of maps that are never seen, have nothing to lose.

    >>> common_factor(np.array([0.75, 0.0]))
    1.5
    """
    scales = scales[scales > SCALE_FLOOR]
    if not len(scales):
        return 1.0
    candidates = scales / np.exp2(np.floor(np.log2(scales)))
    losses = [sum((power_above(scale / factor) * factor / scale) ** 2 for scale in scales) for factor in candidates]
    return float(candidates[int(np.argmin(losses))])


def power_above(scale: float) -> float:
    """The least power of two that reaches as far, and no less than `SCALE_FLOOR`.

    >>> power_above(0.3)
    0.5
    """
    return float(np.exp2(np.ceil(np.log2(max(scale / _REACH, SCALE_FLOOR)) - 1e-9)))
