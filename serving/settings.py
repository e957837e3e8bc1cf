"""What a model repository says of its bundle, to its models and to clients.

It is one parameter of `config.pbtxt`, as JSON, so that Triton's own requests hand it to everybody.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..bundle.files import parse_json
from ..bundle.sealed import reading_fields
from ..engine.runtime import Runtime, check_threads, load
from ..engine.stream import WARMUPS
from ..errors import MachineError, RefusedError, UsageError, one_of, seconds_above_zero, whole_number

PARAMETER = "logoformer"  # its name in config.pbtxt
BUNDLE = "face.bundle"  # the copy beside model.py


@dataclass(frozen=True)
class TritonConfig:
    """How a bundle is served.

    Attributes:
        hop: kept frames from one answer of a stream to the next.
        warmup: 'wait' or 'repeat', see `Runtime.stream`.
        instances: of each model, on each GPU that a GPU backend finds.
        idle_s: a sequence without a frame for so long is forgotten.
        name: the models are called `NAME-stream` and `NAME-clip`; '' calls them `stream` and `clip`.
        backend, precision, threads: of `logoformer.load`.
    """

    hop: int = 4
    warmup: str = "wait"
    instances: int = 1
    idle_s: float = 10.0
    name: str = ""
    backend: str = "auto"
    precision: str = "verdict"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("hop", "instances"):
            whole_number(getattr(self, name), name)
        check_threads(self.threads)
        if self.warmup not in WARMUPS:
            raise UsageError(f"Unknown warmup {self.warmup!r}.", next=f"choose from {one_of(WARMUPS)}")
        if not 0.1 <= seconds_above_zero(self.idle_s, "idle_s") <= 86400:
            raise UsageError(f"A sequence cannot be idle for {self.idle_s} s; 0.1 to 86400 s can be asked for.")
        if self.name and not (self.name.isascii() and self.name.replace("_", "").replace("-", "").isalnum()):
            raise UsageError(
                f"{self.name!r} is no name of a model.", next="use letters, digits, '-' and '_', as in --name shop"
            )

    def model_name(self, kind: str) -> str:
        """Name of the model 'stream' or 'clip'."""
        return f"{self.name}-{kind}" if self.name else kind


@dataclass(frozen=True)
class Served:
    """What clients and the models' processes need to know.

    Attributes:
        labels: C class names, in the order of the probabilities.
        size: S, side of a frame as the network reads it.
        frames: T, frames of a clip.
        slots: kept frames that a stream can look back on.
        faces: sequences that one instance can hold.
        max_gap_s: a longer pause of a stream empties it.
        golden: the golden answers, G lists of C probabilities.
        digest: of the bundle.
        config: how it is served.
    """

    labels: tuple[str, ...]
    size: int
    frames: int
    slots: int
    faces: int
    max_gap_s: float
    golden: tuple[tuple[float, ...], ...]
    digest: str
    config: TritonConfig

    @classmethod
    def of(cls, bundle: Bundle, config: TritonConfig) -> Served:
        """What a bundle and a configuration give."""
        return cls(
            labels=bundle.labels,
            size=bundle.image_size,
            frames=bundle.frames,
            slots=bundle.stream.slots,
            faces=bundle.stream.faces,
            max_gap_s=bundle.sampling.span_s / 2,
            golden=tuple(tuple(map(float, row)) for row in bundle.golden().probabilities),
            digest=str(bundle.manifest["digest"]),
            config=config,
        )

    def to_text(self) -> str:
        """One line of JSON, in ASCII."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_text(cls, text: str, shown: str) -> Served:
        """Reads what `to_text` wrote.

        Raises:
            RefusedError: something else.
        """
        with reading_fields(shown):
            data = parse_json(text.encode(), shown)
            return cls(
                labels=tuple(map(str, data["labels"])),
                golden=tuple(tuple(map(float, row)) for row in data["golden"]),
                config=TritonConfig(**data["config"]),
                digest=str(data["digest"]),
                max_gap_s=float(data["max_gap_s"]),
                **{name: int(data[name]) for name in ("size", "frames", "slots", "faces")},
            )


def open_served(args: dict[str, str]) -> tuple[Served, Runtime]:
    """Opens the bundle of a model, inside the model's process.

    Args:
        args: what Triton gives to `initialize`.

    Raises:
        RefusedError: the copy of the bundle is not what its index promises, or not the one that was written here.
        MachineError: this numpy and this Triton do not fit each other.
        LogoformerError: as `logoformer.load`.
    """
    require_whole_arrays()
    model_config: dict[str, Any] = json.loads(args["model_config"])
    shown = f"config.pbtxt of {model_config['name']}"
    served = Served.from_text(model_config["parameters"][PARAMETER]["string_value"], shown)
    path = Path(args["model_repository"]) / args["model_version"] / BUNDLE
    bundle = Bundle(path)
    if bundle.manifest["digest"] != served.digest:
        raise RefusedError(
            f"{path} is not the bundle that {shown} was written for.",
            cause="a bundle that was copied into a model repository by hand",
            next="logoformer triton BUNDLE -o MODELS",
        )
    config = served.config
    device = int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else 0
    runtime = load(bundle, backend=config.backend, precision=config.precision, threads=config.threads, device=device)
    return served, runtime


def require_whole_arrays() -> None:
    """Refuses a Python backend that garbles this numpy's arrays.

    With numpy 2, a server before Triton 24.11 gives every request as zeros to the model and the model's answers as
    nothing to the client, without an error: triton-inference-server/python_backend#384.

    Raises:
        MachineError: an array does not come back as it went in.
    """
    import triton_python_backend_utils as pb

    sent = np.arange(12, dtype=np.uint8).reshape(3, 4)
    back = pb.Tensor.from_dlpack("sent", pb.Tensor("sent", sent).to_dlpack()).as_numpy()
    if not np.array_equal(sent, back):
        raise MachineError(
            f"This Triton's Python backend garbles the arrays of numpy {np.__version__}.",
            cause="a Triton before 24.11 with numpy 2",
            next="pip install 'numpy<2', for the Python of the server",
        )
