"""Conversion to FP16.

Precision is a property of the ONNX file: the builder gets no precision flag. ModelOpt's AutoCast places the casts; what
stays FP32 is our range scan's decision (`ranges.py`), and inputs and outputs stay as they are.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ..errors import missing_package
from .ranges import Protected
from .trace import quiet, strip


def to_fp16(
    model: onnx.ModelProto, feed: Mapping[str, npt.NDArray[Any]], protected: Sequence[Protected]
) -> onnx.ModelProto:
    """Converts a graph to FP16 with FP32 inputs and outputs.

    Args:
        model: FP32.
        feed: one real input, for AutoCast's own run (its random data cannot fill a uint8 input).
        protected: nodes that stay FP32.

    Returns:
        A new model; the nodes keep their names.

    Raises:
        MachineError: ModelOpt is not installed.
    """
    with quiet(), tempfile.TemporaryDirectory() as folder:
        try:
            from modelopt.onnx.autocast import convert_to_mixed_precision
        except ImportError as error:
            raise missing_package("modelopt", "export", "Exporting FP16") from error
        source, real = Path(folder) / "fp32.onnx", Path(folder) / "real.npz"
        onnx.save(model, source)
        np.savez(real, **feed)  # type: ignore[arg-type]  # the stubs take any name for `allow_pickle`
        # Gather does no arithmetic: left alone, the cast comes after it and touches T frames, not the whole ring.
        kept = [f"{re.escape(item.node)}$" for item in protected] + ["Gather$"]
        converted: onnx.ModelProto = convert_to_mixed_precision(
            str(source),
            low_precision_type="fp16",
            nodes_to_exclude=kept,
            keep_io_types=True,
            calibration_data=str(real),
            data_max=float("inf"),  # our scan decides, on many clips instead of one
            providers=["cpu"],
        )
    return strip(converted)
