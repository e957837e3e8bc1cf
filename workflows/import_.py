"""Import of a checkpoint of other people: read, recognised, checked, written as ours."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundle.files import dump_json, write_atomic
from ..errors import BadInputError, LogoformerError, RefusedError, UsageError, advising, command

if TYPE_CHECKING:
    from ..model.foreign.reader import ForeignFile
    from ..model.importing.mapping import MapSuggestion
    from ..model.importing.origins import SettingOrigin
    from ..model.importing.plan import ImportPlan, Progress
    from ..model.importing.report import ImportReport
    from ..model.importing.states import FoundWeights
    from ..model.networks.family import Family

LOGOFORMER = "logoformer"
PUBLISHED: Mapping[str, Any] = {"region": (2, 5, 10), "heads": 8}  # of MAE-DFER, which no shape shows


@dataclass(frozen=True)
class ImportRequest:
    """What to import, and what only the caller knows.

    Attributes:
        file: the checkpoint.
        out: the folder of ours; None writes nothing.
        family: a family's name; None recognises it.
        weights: keys that lead to the weights, with dots; None takes the usual ones.
        map: a map of names, for LOGO-Former checkpoints of other people's code.
        options: sizes and labels that go before the file's own arguments: heads, region, frames, image_size, stride,
            labels, data_set, preset.
    """

    file: str | os.PathLike[str]
    out: str | os.PathLike[str] | None = None
    family: str | None = None
    weights: str | None = None
    map: str | os.PathLike[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def command(self, *more: object) -> str:
        """The command line that asks for this, with further words."""
        words: list[object] = ["logoformer", "import", self.file]
        for name, value in (("--family", self.family), ("--weights", self.weights), ("--map", self.map)):
            words += [name, value] if value is not None else []
        for name, value in self.options.items():
            option = {"image_size": "--size", "data_set": "--labels"}.get(name, f"--{name}")
            words += [option, ",".join(map(str, value)) if isinstance(value, (list, tuple)) else value]
        return command(*words, *more, "-o", self.out or "checkpoint")

    def suggesting(self) -> str:
        """The command line that suggests a map of the file's names."""
        words = ["--preset", self.options.get("preset", "base"), "--suggest-map", "map.json"]
        return command("logoformer", "import", self.file, *words)

    def recognising(self) -> str:
        """The command line that leaves the family to the file."""
        return replace(self, family=None).command()


def import_checkpoint(
    request: ImportRequest, *, dry_run: bool = False, progress: Progress | None = None
) -> ImportReport:
    """Imports a checkpoint of other people.

    Args:
        request: what to import.
        dry_run: compare and report, and write nothing.
        progress: called with (stage, done, total).

    Returns:
        What was done.

    Raises:
        BadInputError: missing, damaged, of another kind, or it fits in part only.
        RefusedError: no regular file, or one that was made to run code.
        UsageError: options that contradict each other.
    """
    from ..model.checkpoint import check_replaceable, write_checkpoint
    from ..model.foreign.reader import open_foreign
    from ..model.importing.plan import converted
    from ..model.importing.report import ImportReport
    from ..model.importing.settings import training_facts
    from ..model.importing.states import without_wrapper
    from ..model.networks.families import FAMILIES

    if request.out is None and not dry_run:
        raise UsageError("An import needs a folder for the checkpoint.", next=request.command())
    if request.out is not None and not dry_run:
        check_replaceable(request.out)
    try:
        with open_foreign(request.file) as file:
            found = _found(file, request)
            if request.map is None:  # a map names the tensors as the file does
                found = without_wrapper(found, lambda shapes: any(f.recognise(shapes) for f in FAMILIES.values()))
            family, plan, settings = _planned(file, found, request)
            report = ImportReport(
                Path(request.file).name, file.size, file.format, file.names, family, found, plan,
                training_facts(file.content), settings,
            )  # fmt: skip
            if request.out is None or dry_run:
                return report
            folder = write_checkpoint(request.out, plan.config, converted(file, plan, progress), report.provenance())
            return replace(report, checkpoint=folder)
    except LogoformerError as error:
        raise _advised(error, request) from error


def suggest_import_map(request: ImportRequest, out: str | os.PathLike[str]) -> MapSuggestion:
    """Suggests a map of a file's names to those of a LOGO-Former, and writes it.

    Args:
        request: its `options` name the preset.
        out: the map, JSON.

    Raises:
        BadInputError: as `import_checkpoint`.
    """
    from ..model.foreign.reader import open_foreign
    from ..model.importing.mapping import suggest_map
    from ..model.networks.configs import preset
    from ..model.networks.shapes import network_state

    name = str(request.options.get("preset") or "base")
    try:
        with open_foreign(request.file) as file:
            found = _found(file, request)
            suggestion = suggest_map(found.tensors, network_state(preset(name)))
    except LogoformerError as error:
        raise _advised(error, request) from error
    write_atomic(out, dump_json(suggestion.to_json(name)))
    return suggestion


def _found(file: ForeignFile, request: ImportRequest) -> FoundWeights:
    from ..model.importing.states import find_weights

    return find_weights(
        file.content, file.path, request.weights, lambda place: replace(request, weights=place).command()
    )


def _planned(
    file: ForeignFile, found: FoundWeights, request: ImportRequest
) -> tuple[Family, ImportPlan, tuple[SettingOrigin, ...]]:
    from ..model.importing.origins import setting_origins
    from ..model.importing.plan import make_plan, refuse_unreadable
    from ..model.importing.recognise import choose_family, family_config, own_config
    from ..model.importing.settings import file_settings
    from ..model.networks.families import FAMILIES
    from ..model.networks.family import ForeignTensor
    from ..model.networks.shapes import network_state, shapes_only

    refuse_unreadable(found.tensors, file.path)
    if request.map is not None:
        family, (plan, preset) = FAMILIES[LOGOFORMER], _mapped(file, found, request)
        return family, plan, setting_origins(family, plan.config, {"preset": preset}, request.options, file.path)
    own = own_config(file.content, Path(request.file), len(found.tensors))
    if own is not None and request.family in (None, own.family):
        state = network_state(own)
        own_names = {name: ForeignTensor(tuple(value.shape), (name,)) for name, value in state.items()}
        family = FAMILIES[own.family]
        settings = setting_origins(family, own, {}, request.options, file.path, own=True)
        return family, make_plan(found, own, own_names, file.path), settings
    family = choose_family(found.tensors, request.family, file.path, request.suggesting(), request.recognising())
    said = file_settings(file.content)
    config = family_config(family, found.tensors, said, request.options, file.path)
    settings = setting_origins(family, config, said, request.options, file.path)
    with shapes_only():
        wanted = family.foreign(config)
    return family, make_plan(found, config, wanted, file.path), settings


def _mapped(file: ForeignFile, found: FoundWeights, request: ImportRequest) -> tuple[ImportPlan, str | None]:
    """The plan, and the preset that the map names."""
    from ..model.importing.mapping import mapped, read_map, refuse_families
    from ..model.importing.plan import make_plan
    from ..model.networks.configs import preset
    from ..model.networks.mae_dfer.family import DATA_LABELS
    from ..model.networks.shapes import network_state

    if request.family not in (None, LOGOFORMER):
        raise refuse_families(request.family)
    if request.map is None:
        raise UsageError("No map is given.")
    names = read_map(request.map)
    config = preset(str(request.options.get("preset") or names.preset or "base"))
    labels = request.options.get("labels") or DATA_LABELS.get(request.options.get("data_set", ""))
    if labels:
        config = replace(config, labels=tuple(labels))
    with advising(request.suggesting()):
        wanted, kept = mapped(names, found.tensors, network_state(config), file.path)
    return make_plan(replace(found, tensors=kept), config, wanted, file.path), names.preset


def _advised(error: LogoformerError, request: ImportRequest) -> LogoformerError:
    """The error with a next step: the caller's own command with what mends it."""
    from ..model.foreign.paths import resolved_link

    if isinstance(error, RefusedError) and (target := resolved_link(request.file)) is not None:
        error.next = replace(request, file=target).command()
    a_file = error.next.startswith("logoformer import ") and error.next.endswith(" -o checkpoint")  # of a folder
    if a_file and "$'" not in error.next:  # which quotes bytes that are no UTF-8, and shlex cannot read
        error.next = replace(request, file=shlex.split(error.next)[2]).command()
    if fitting := re.fullmatch(r"name it with --preset (\S+)", error.next):
        error.next = replace(request, options={**request.options, "preset": fitting[1]}).command()
    for name, value in PUBLISHED.items():
        if error.next.startswith(f"name it with --{name}"):
            shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
            error.cause = f"neither its arguments nor its shapes say it; the published files have --{name} {shown}"
            error.next = replace(request, options={**request.options, name: value}).command()
    if not error.next and isinstance(error, BadInputError):
        error.next = f"download the file again and compare its size, then: {request.command()}"
    return error
