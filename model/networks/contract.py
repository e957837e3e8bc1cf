"""The contract of a family: its configuration and its counts. Needs no torch.

A family takes a clip in two steps: each frame for itself becomes rows of numbers (`frame`), and the rows of T frames
become an answer (`temporal`). The sizes of that split are `grid`, `token_window` and `token_dim`: a ring of rows, an
order in which `temporal` reads them, and nothing else is known of a family above `model/` and `export/`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, TypeVar, get_args, get_origin, get_type_hints

from ...clips import DFEW_LABELS, MAX_LABEL, Sampling, can_be_shown
from ...errors import BadInputError, UsageError, one_of

UNCERTAIN = "uncertain"  # as in camera/answers/contract.py, which imports nothing of here
MAX_IMAGE_SIZE = 4096
_Config = TypeVar("_Config", bound="NetworkConfig")


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ABC):
    """What decides a network and what its input means; a family adds its sizes.

    Attributes:
        preset: the name it started from.
        image_size: S, side of the square face crop.
        dropout: on every residual branch, in training.
        labels: C class names; their order is the order of the output.
        sampling: how T frames are picked from a clip.
        mean, std: per RGB channel, for values in 0..1.
    """

    family: ClassVar[str]

    preset: str
    image_size: int
    dropout: float = 0.0
    labels: tuple[str, ...] = DFEW_LABELS
    sampling: Sampling = field(default_factory=Sampling)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if not 1 <= self.image_size <= MAX_IMAGE_SIZE:
            raise UsageError(f"image_size must be from 1 to {MAX_IMAGE_SIZE}; got {self.image_size}.")
        check_labels(self.labels)
        if min(self.std) <= 0:
            raise UsageError(f"std must be positive; got {self.std}.")

    # ------------------------------------------------------------------------------------- frame and temporal
    @property
    @abstractmethod
    def grid(self) -> int:
        """Rows that a frame becomes, as the side of a square map."""

    @property
    @abstractmethod
    def token_window(self) -> tuple[int, int, int]:
        """(frames, rows, columns): the box in whose order `temporal` reads the rows of the map."""

    @property
    @abstractmethod
    def token_dim(self) -> int:
        """Numbers in a row."""

    @property
    @abstractmethod
    def least_tensors(self) -> int:
        """Tensors that its weights have at the very least; guards against absurd depths in a file."""

    @property
    def frames(self) -> int:
        """T, frames of a clip."""
        return self.sampling.frames

    @property
    def tokens_per_frame(self) -> int:
        """Rows of one frame, `grid` squared."""
        return self.grid**2

    @property
    def classes(self) -> int:
        """C."""
        return len(self.labels)

    # --------------------------------------------------------------------------------------------------------- JSON
    def to_json(self) -> dict[str, Any]:
        """Every field, and the family's name."""
        data = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {"family": self.family, **data, "sampling": self.sampling.to_json()}

    @classmethod
    def from_json(cls: type[_Config], data: Mapping[str, Any]) -> _Config:
        """Reads what `to_json` wrote.

        Raises:
            BadInputError: a field is missing, unknown or of the wrong type.
            UsageError: fields that do not fit each other.
        """
        kinds = get_type_hints(cls)
        try:
            known = {key: value for key, value in data.items() if key != "family"}
            names = {item.name for item in fields(cls)}
            if unknown := sorted(known.keys() - names):
                raise ValueError(f"unknown fields {one_of(unknown)}")
            if missing := sorted({item.name for item in fields(NetworkConfig)} - known.keys()):
                raise ValueError(f"{one_of(missing)} missing")  # a default would be a guess about the data
            return cls(**{key: _typed(value, kinds[key]) for key, value in known.items()})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInputError(
                f"The model configuration cannot be read: {error}.",
                cause="a configuration of another program or of another version",
            ) from error


def check_labels(labels: tuple[str, ...]) -> None:
    """Refuses names of classes that cannot be told apart or shown.

    Raises:
        UsageError: fewer than two, one twice, one that cannot be shown, or the word for an answer without a label.
    """
    if len(labels) < 2 or len(set(labels)) != len(labels):
        twice = sorted({label for label in labels if labels.count(label) > 1})
        raise UsageError(
            "The model needs at least two labels, all different.",
            cause=f"{one_of(twice)} twice" if twice else one_of(labels),
            next="name each class once",
        )
    for label in labels:
        if not can_be_shown(label):
            raise UsageError(
                f"The label {label!r} cannot be shown.",
                cause="it is empty, has a control character such as a line break, or is longer than "
                f"{MAX_LABEL} characters",
                next="name it otherwise",
            )
        if label == UNCERTAIN:
            raise UsageError(
                f"No class may be called {label!r}.",
                cause="that is what a camera's answer says where no class is likely enough",
                next="name the class otherwise, such as 'unsure'",
            )


def _typed(value: Any, kind: Any) -> Any:
    """A JSON value as a field's type."""
    if kind is Sampling:
        return Sampling.from_json(value)
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        items = kinds[:1] * len(value) if kinds[-1] is Ellipsis else kinds
        if isinstance(value, str) or len(value) != len(items):
            raise ValueError(f"{value!r:.80} is no list of {len(items)} values")
        return tuple(_typed(item, one) for item, one in zip(value, items, strict=True))
    if kind is bool and not isinstance(value, bool):
        raise ValueError(f"{value!r:.80} is neither true nor false")
    return kind(value)


@dataclass(frozen=True)
class Complexity:
    """Multiply-accumulates of one clip, counted by formula, and sizes.

    Products of attention are included (QK^T and weights V); additions, norms and activations are not. Surveys of this
    field print MACs under the name FLOPs, so these are the figures to set beside theirs.

    Attributes:
        frame_macs: what a stream's frame costs.
        clip_frames_macs: what the frames of a clip cost together.
        temporal_macs: what follows the frames, as the readable model computes it.
        temporal_macs_exported: the same when the last block computes only what is read afterwards, as in the exported
            graphs.
        parameters: learnable numbers.
        tokens: places that attention looks at, without [CLS] and representatives.
        token_channels: d, channels of each.
    """

    frame_macs: int
    clip_frames_macs: int
    temporal_macs: int
    temporal_macs_exported: int
    parameters: int
    tokens: int
    token_channels: int

    @property
    def clip_macs(self) -> int:
        """One clip, as the readable model computes it."""
        return self.clip_frames_macs + self.temporal_macs

    @property
    def clip_macs_exported(self) -> int:
        """One clip, as the exported graph computes it."""
        return self.clip_frames_macs + self.temporal_macs_exported

    @property
    def stream_macs(self) -> int:
        """One streamed answer at hop 1: one frame and the temporal graph."""
        return self.frame_macs + self.temporal_macs_exported

    def to_json(self) -> dict[str, int]:
        return {
            "clip_macs": self.clip_macs,
            "clip_macs_exported": self.clip_macs_exported,
            "frame_macs": self.frame_macs,
            "temporal_macs": self.temporal_macs,
            "temporal_macs_exported": self.temporal_macs_exported,
            "stream_macs": self.stream_macs,
            "parameters": self.parameters,
            "tokens": self.tokens,
            "token_channels": self.token_channels,
        }


def trunk_costs(
    image_size: int, stem_kernel: int, widths: tuple[int, ...], blocks: tuple[int, ...]
) -> tuple[int, int, int]:
    """Counts of a ResNet trunk (`backbone.py`) on one frame.

    Returns:
        (multiply-accumulates, parameters, side of the last map).
    """
    macs = parameters = 0

    def conv(side: int, channels_in: int, channels: int, kernel: int) -> None:
        nonlocal macs, parameters
        weights = channels_in * channels * kernel**2
        macs += side**2 * weights
        parameters += weights + 2 * channels  # and a BatchNorm

    side = (image_size + 1) // 2
    conv(side, 3, widths[0], stem_kernel)
    side, channels = (side + 1) // 2, widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        side = side if stage == 0 else (side + 1) // 2
        for block in range(count):
            conv(side, channels, width, 3)
            conv(side, width, width, 3)
            if channels != width or (block == 0 and stage > 0):
                conv(side, channels, width, 1)
            channels = width
    return macs, parameters, side


def map_side(image_size: int, stages: int) -> int:
    """Side of the map after a trunk's stem and so many stages; each halving rounds up."""
    side = image_size
    for _ in range(1 + stages):  # stem, pool, and each stage but the first
        side = (side + 1) // 2
    return side
