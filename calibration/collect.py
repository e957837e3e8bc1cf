"""Ranges of activations: the FP32 clip graph run on the chosen clips, tensor by tensor.

Two passes on ONNX Runtime: the largest absolute value of each tensor, then a histogram over 0 ... that value. One clip
is held at a time. The calibrators of ONNX Runtime, which ModelOpt uses too, keep every tensor of every clip until the
end (22 million values a clip for `base`: 11 GB for 128 clips) and have no mean square error; ModelOpt's come with a
placement of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import BadInputError, needing
from .amax import BINS, amax_of
from .equalise import ChannelStatistics, seams
from .placement import sites
from .quantize import QuantizeConfig, Ranges

if TYPE_CHECKING:
    import onnx

    from ..model.data.clips import Progress

Clips = npt.NDArray[np.uint8]  # [N, T, S, S, 3]


@dataclass(frozen=True)
class Observed:
    """What was seen on the clips, from which every method takes its range.

    Attributes:
        largest: largest absolute value, by tensor name.
        histograms: counts of absolute values in `BINS` equal bins of 0 ... largest, by tensor name; empty when only the
            largest were wanted.
    """

    largest: Mapping[str, float]
    histograms: Mapping[str, npt.NDArray[np.int64]]

    def ranges(self, method: str) -> Ranges:
        """Ranges by one of `quantize.RANGE_METHODS`."""
        if method == "max":
            return self.largest
        return {name: amax_of(self.histograms[name], top, method) for name, top in self.largest.items()}


def collect_ranges(
    clip_model: onnx.ModelProto, clips: Clips, config: QuantizeConfig, progress: Progress | None = None
) -> Ranges:
    """Ranges of every activation that the policy may quantize, whatever `config` excludes.

    Args:
        clip_model: the FP32 clip graph.
        clips: uint8 `[N, T, S, S, 3]`, RGB.
        config: names the method.
        progress: called with (stage, done, total).

    Raises:
        BadInputError: a tensor that is not finite.
        MachineError: ONNX Runtime is missing.
    """
    return observe(clip_model, clips, histograms=config.method != "max", progress=progress).ranges(config.method)


def observe(
    clip_model: onnx.ModelProto, clips: Clips, *, histograms: bool = True, progress: Progress | None = None
) -> Observed:
    """Runs the clips; see `collect_ranges`."""
    note = progress or (lambda *_: None)
    tensors = activations(clip_model)
    run = _runner(clip_model, tensors)
    largest = dict.fromkeys(tensors, 0.0)
    counts: dict[str, npt.NDArray[np.int64]] = {}
    total = len(clips) * (2 if histograms else 1)

    def each(done: int) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        for index, clip in enumerate(clips):
            note("calibrate", done + index, total)
            yield from run(clip)

    for name, values in each(0):
        top = float(np.abs(values).max())
        if not np.isfinite(top):
            raise BadInputError(
                f"The activation {name} is not finite on a calibration clip.",
                cause="a checkpoint that diverged, or weights that overflow",
                next="evaluate the checkpoint; train it again if its scores are chance",
            )
        largest[name] = max(largest[name], top)
    if histograms:
        counts = {name: np.zeros(BINS, np.int64) for name in tensors}
        for name, values in each(len(clips)):
            if largest[name]:
                counts[name] += _histogram(values, largest[name])
    note("calibrate", total, total)
    return Observed(largest, counts)


def observe_channels(
    clip_model: onnx.ModelProto, clips: Clips, progress: Progress | None = None
) -> dict[str, ChannelStatistics]:
    """Runs the clips and looks at each channel of the activations whose scales may move.

    Args:
        clip_model: the FP32 clip graph.
        clips: uint8 `[N, T, S, S, 3]`, RGB.
        progress: called with (stage, done, total).

    Returns:
        By tensor name.
    """
    note = progress or (lambda *_: None)
    tensors = tuple(dict.fromkeys(name for seam in seams(clip_model) for name in seam.tensors))
    run = _runner(clip_model, tensors)
    largest: dict[str, npt.NDArray[np.float64]] = {}
    power: dict[str, npt.NDArray[np.float64]] = {}
    for index, clip in enumerate(clips):
        note("look at channels", index, len(clips))
        for name, values in run(clip):
            axis = 1 if values.ndim == 4 else -1  # maps [N, C, h, w], tokens [..., d]
            rows = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
            top = np.abs(rows).max(0).astype(np.float64)
            largest[name] = np.maximum(largest.get(name, 0.0), top)
            power[name] = power.get(name, 0.0) + np.square(rows, dtype=np.float64).mean(0) / len(clips)
    return {name: ChannelStatistics(largest[name], power[name]) for name in tensors}


def activations(clip_model: onnx.ModelProto) -> tuple[str, ...]:
    """Names of the tensors that some placement quantizes, in graph order, each once."""
    return tuple(dict.fromkeys(name for site in sites(clip_model) for name in site.tensors))


def _histogram(values: npt.NDArray[np.float32], top: float) -> npt.NDArray[np.int64]:
    bins = np.abs(values.ravel())
    bins *= BINS / top
    return np.bincount(np.minimum(bins.astype(np.int32), BINS - 1), minlength=BINS)


def _runner(
    model: onnx.ModelProto, tensors: tuple[str, ...]
) -> Callable[[npt.NDArray[np.uint8]], Iterator[tuple[str, npt.NDArray[np.float32]]]]:
    """Exposes the tensors and returns a function that gives their values for one clip."""
    import onnx

    with needing("onnxruntime", "cpu", "Calibrating"):
        import onnxruntime
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    have = {value.name for value in exposed.graph.output}
    exposed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in tensors if name not in have)
    session: Any = onnxruntime.InferenceSession(exposed.SerializeToString(), providers=["CPUExecutionProvider"])
    (fed,) = (value.name for value in model.graph.input)

    def run(clip: npt.NDArray[np.uint8]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        yield from zip(tensors, session.run(list(tensors), {fed: clip[None]}), strict=True)

    return run
