"""Networks of face detectors: the two in this package, and files that somebody names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

from ...bundle import GraphEntry, TensorSpec
from ...bundle.files import sha256
from ...bundle.onnx_graph import read_interface
from ...engine.sessions.contract import Session
from ...errors import RefusedError, command

if TYPE_CHECKING:
    from importlib.abc import Traversable  # importlib.resources.abc from Python 3.11 on

MAX_BYTES = 256 << 20
MAX_ELEMENTS = 1 << 26  # of one input or output: a picture of 4K, or what a detector says about it
_DAMAGED = "a damaged installation, or an exchanged file"
# Of the files in weights/; NOTICE there says where they come from.
STORED = {
    "blazeface-back-256.onnx": "427cbbe0fc41448d09e1dc9cfabe2423d997cf2faaeab91fadd09a510b63b8e2",
    "blazeface-front-128.onnx": "d388b1cf8a5f6f1af2b3f4c14f6d0f138bab970cd618cccd12dddb7484e82e51",
}


def open_stored(name: str, threads: int | None = 1, folder: Traversable | None = None) -> Session:
    """Open a network of this package.

    Args:
        name: one of `STORED`.
        threads: of ONNX Runtime.
        folder: where the files are; None: in the package, which may be inside a zip file.

    Raises:
        RefusedError: the file is not the one that was packed, or is missing.
        MachineError: ONNX Runtime is not installed.
    """
    place = (folder or resources.files(__package__) / "weights") / name
    again = command("pip", "install", "--force-reinstall", "--no-deps", "logoformer")
    try:
        data = place.read_bytes()
    except OSError as error:
        raise RefusedError(f"{place} cannot be read: {error.strerror}.", cause=_DAMAGED, next=again) from error
    if sha256(data) != STORED[name]:
        raise RefusedError(
            f"{place} is not the face detector that belongs to this program: its SHA-256 differs.",
            cause=_DAMAGED,
            next=again,
        )
    return open_network(data, name, threads)


def open_network(data: bytes, shown: str, threads: int | None = 1) -> Session:
    """Open ONNX bytes in ONNX Runtime, on the CPU.

    Raises:
        RefusedError: malformed bytes, tensors in other files, or inputs and outputs that are not static.
        MachineError: ONNX Runtime is not installed or cannot run this network.
    """
    from ...engine.sessions import ort

    inputs, outputs = read_interface(data, shown)
    if not inputs or not outputs:
        raise RefusedError(f"{shown} takes or gives nothing.", cause="no network, or a damaged file")
    check_static(shown, (*inputs, *outputs))
    entry = GraphEntry(
        graph="detector", precision="fp32", batch=1, file=shown, sha256=sha256(data), size=len(data), opset=0,
        inputs=inputs, outputs=outputs, macs={},
    )  # fmt: skip
    return ort.open_session(data, entry, {"threads": threads})


def check_static(shown: str, specs: Sequence[TensorSpec]) -> None:
    """Refuse tensors whose sizes are open or huge: buffers are allocated once.

    Raises:
        RefusedError: names the tensor, and the tool that closes it.
    """
    for spec in specs:
        if 0 in spec.shape:
            raise RefusedError(
                f"{shown}: the sizes of tensor {spec.name!r} are open.",
                cause="a network for pictures of any size; this program allocates its buffers once",
                next="python -m onnxruntime.tools.make_dynamic_shape_fixed "
                "--input_name NAME --input_shape 1,3,640,640 IN.onnx OUT.onnx",
            )
        if math.prod(spec.shape) > MAX_ELEMENTS:
            raise RefusedError(f"{shown}: the tensor {spec} is too large.", cause="a damaged or hostile file")
