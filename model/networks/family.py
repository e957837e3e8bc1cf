"""A family of networks: how to build one, and how to read its authors' files.

A file of other people's is described by shapes alone first: nothing of it needs to be loaded to tell what it is, to
derive the configuration and to say which tensors are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import BadInputError
from .contract import NetworkConfig
from .network import Network

Shapes = Mapping[str, tuple[int, ...]]  # {name in a file: shape}
Settings = Mapping[str, Any]  # {name: value}, of a file's own `args`, or of the caller's options
FILE, OPTION, ASSUMED = "file", "option", "assumed"  # what says a setting
OPTION_NAMES = {"image_size": "--size", "data_set": "--labels"}  # where they are not the option's own


@dataclass(frozen=True)
class ForeignTensor:
    """One tensor of the authors' files.

    Attributes:
        shape: in their file.
        ours: what it becomes: our tensors of the same numbers, one after the other along its first axis (packed Q, K
            and V are three). Axes of length 1 may be added or left out.
    """

    shape: tuple[int, ...]
    ours: tuple[str, ...]


@dataclass(frozen=True)
class Licences:
    """What is known of the rights to a family's code, weights and data, in words."""

    code: str
    weights: str
    data: str


@dataclass(frozen=True)
class PublishedScore:
    """A row that the authors published; never measured here.

    Attributes:
        data: the data set.
        uar, war: in percent.
        note: how it came about.
    """

    data: str
    uar: float
    war: float
    note: str


@dataclass(frozen=True)
class FamilySetting:
    """A setting of an imported network that somebody has to say, or that has to be assumed.

    Attributes:
        name: for people.
        value: of a configuration.
        options: of the caller that set it; empty where none does.
        argument: of the file's own `args`; '' where files never say it.
        assumed: the value where neither says it.
        checked: what the shapes hold against it, in words; '' where a wrong value goes unnoticed.
    """

    name: str
    value: Callable[[Any], Any]
    options: tuple[str, ...] = ()
    argument: str = ""
    assumed: Any = None
    checked: str = ""

    def origin(self, settings: Settings, options: Settings) -> str:
        """`OPTION`, `FILE` or `ASSUMED`."""
        if any(options.get(option) for option in self.options):
            return OPTION
        return FILE if self.argument and settings.get(self.argument) is not None else ASSUMED


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        name: in `config.json` and on the command line.
        title: for people.
        paper: where it was published.
        network: the class; its state dict has our names.
        recognise: whether a file's names are those of the authors' files, pre-training included.
        config_of: the configuration of such a file: (shapes, the file's own `args`, the caller's options) -> config.
            Options go before `args`; what shapes say is checked against both. Raises BadInputError where something
            does not fit, is of another kind of network, or can only be known from an option.
        foreign: the tensors of the authors' file for a configuration, by their names.
        licences: of code, weights and data.
        settings: of an imported network, beside those that shapes give.
        published: what the authors reported.
        published_config: of the network that they reported it of.
    """

    name: str
    title: str
    paper: str
    network: Callable[[Any], Network]
    recognise: Callable[[Shapes], bool]
    config_of: Callable[[Shapes, Settings, Settings], NetworkConfig]
    foreign: Callable[[Any], Mapping[str, ForeignTensor]]
    licences: Licences
    settings: tuple[FamilySetting, ...]
    published: tuple[PublishedScore, ...] = ()
    published_config: NetworkConfig | None = None

    def published_for(self, config: NetworkConfig) -> tuple[PublishedScore, ...]:
        """What the authors reported of a network of these sizes; nothing where it is another one.

        Classes, the stride of the frames and what training alone knows may differ, as from data set to data set.
        """
        paper = self.published_config
        if paper is None or config.family != paper.family:
            return ()
        free = {"preset", "labels", "sampling", "dropout", "drop_path"}
        sizes, wanted = ({k: v for k, v in asdict(c).items() if k not in free} for c in (config, paper))
        return self.published if sizes == wanted and config.frames == paper.frames else ()

    def to_json(self) -> dict[str, Any]:
        """Name, paper, rights and published scores, for a bundle's index and card."""
        return {
            "name": self.name,
            "title": self.title,
            "paper": self.paper,
            "licences": asdict(self.licences),
            "published": [asdict(score) for score in self.published],
        }

    def build(self, config: NetworkConfig) -> Network:
        """A network with random weights, in training mode."""
        return self.network(config)


def required(settings: Settings, options: Settings, name: str, option: str) -> Any:
    """A setting that neither shapes nor defaults can say.

    Raises:
        BadInputError: it is in neither place.
    """
    found = options.get(name, settings.get(name))
    if found is None:
        raise BadInputError(f"The file does not say its {name}, and shapes cannot tell.", next=f"name it with {option}")
    return found


def assumed_options(listed: Iterable[FamilySetting], settings: Settings, options: Settings) -> list[str]:
    """The options that would say what has to be assumed and what the shapes hold against it."""
    return [OPTION_NAMES.get(s.options[0], f"--{s.options[0]}") for s in _assumed(listed, settings, options)]


def _assumed(listed: Iterable[FamilySetting], settings: Settings, options: Settings) -> list[FamilySetting]:
    return [s for s in listed if s.options and s.checked and s.origin(settings, options) == ASSUMED]


def assumed_words(listed: Iterable[FamilySetting], settings: Settings, options: Settings) -> str:
    """What has to be assumed, with the options that say it otherwise; '' for nothing."""
    lacking = _assumed(listed, settings, options)
    if not lacking:
        return ""
    told = ", ".join(f"{s.name} {s.assumed} ({OPTION_NAMES.get(s.options[0], f'--{s.options[0]}')})" for s in lacking)
    return f"neither the file nor an option says them, so these are assumed as published: {told}"


def refuse_disagreement(shown: str, said: Any, found: Any, cause: str = "") -> None:
    """Refuses a setting that the shapes contradict.

    Raises:
        BadInputError: both are named.
    """
    if said is not None and said != found:
        raise BadInputError(
            f"{shown} is said to be {said!r:.80}; the shapes of the tensors say {found!r:.80}.",
            cause=cause or "options or `args` of another file, or weights that were changed",
        )


def fitting_labels(classes: int, given: Iterable[str] | None, known: Iterable[str], whose: str) -> tuple[str, ...]:
    """The names of a classifier's classes.

    Args:
        classes: of the classifier, by its shape.
        given: by the caller; None takes those that are known.
        known: names, in the order of a data set's lists.
        whose: that data set.

    Raises:
        BadInputError: more or fewer names than classes.
    """
    labels = tuple(given or known)
    if len(labels) == classes:
        return labels
    if given:
        what, cause = f"--labels names {len(labels)}", "a class that is missing or one too many, or another file"
    else:
        what, cause = (
            f"known for {whose!r:.40} are {len(labels)} names",
            "a data set whose order of classes is not known",
        )
    example = ",".join("ABCD"[:classes]) + (",..." if classes > 4 else "")
    raise BadInputError(
        f"The classifier has {classes} classes; {what}.",
        cause=cause,
        next=f"name the {classes} classes in the order of the training lists: --labels {example}",
    )


def said_number(options: Settings, option: str, settings: Settings, argument: str, default: int) -> int:
    """A size that the caller or the file says, from 1; the default where neither does.

    Raises:
        BadInputError: the file says something that is no such number.
    """
    if options.get(option):
        return int(options[option])
    said = settings.get(argument)
    if said is None:
        return default
    if (found := whole(said)) is None:
        raise BadInputError(
            f"{argument} is {said!r:.80}; a whole number from 1 is expected.",
            cause="the file's own arguments were changed, or mean something else by that name",
            next=f"say what it was trained with: {OPTION_NAMES.get(option, f'--{option}')} N",
        )
    return found


def whole(said: Any) -> int | None:
    """A number from 1 that a file says, also as 4.0 or '4'; None for anything else."""
    text = str(int(said)) if type(said) is float and said.is_integer() else str(said)
    good = type(said) is not bool and text.isascii() and text.isdecimal() and len(text) < 20
    return int(text) if good and int(text) >= 1 else None
