"""Every name that an option takes is in its help, and is a name that the library knows."""

from __future__ import annotations

import argparse
import re

import pytest
from logoformer.benchmarks.baselines.contract import OTHERS
from logoformer.benchmarks.report.records import MODES
from logoformer.bundle import GRAPHS, MIXED, PRECISIONS
from logoformer.calibration.quantize import METHODS
from logoformer.camera.answers.lines import SCHEMAS
from logoformer.camera.run import FACES
from logoformer.cli import choices
from logoformer.cli.main import make_parser
from logoformer.clips import COLORS
from logoformer.engine.machine.targets import RTX_SMS, TARGETS
from logoformer.engine.sessions.backends import BACKENDS
from logoformer.engine.stream import WARMUPS
from logoformer.model.data.clips import ORDERS
from logoformer.model.data.dfew import FOLDS
from logoformer.model.data.listing import SHORT
from logoformer.model.networks.configs import PRESETS
from logoformer.model.networks.logoformer.config import ATTENTIONS, LOGOFORMER_PRESETS

# What an option takes, by its spelling, in whichever verb it is; (verb, option) where one verb differs.
LIBRARY = {
    "--preset": PRESETS, "--attention": ATTENTIONS, "--short": SHORT, "--order": ORDERS, "--trunk-color": COLORS,
    "--fold": FOLDS, "--method": METHODS, "--precisions": PRECISIONS, "--target": TARGETS, "--gpus": RTX_SMS,
    "--plan-sm": RTX_SMS, "--sm": RTX_SMS, "--graph": GRAPHS, "--backend": BACKENDS, "--face": FACES,
    "--schema": SCHEMAS, "--warmup": WARMUPS, "--mode": MODES, "--baselines": ("all", "none", *OTHERS),
    "--precision": ("verdict", *PRECISIONS, MIXED), ("build", "--precision"): (*PRECISIONS, MIXED),
    ("inspect", "--precision"): PRECISIONS, ("inspect", "--preset"): LOGOFORMER_PRESETS,
    ("import", "--preset"): LOGOFORMER_PRESETS, ("bench", "--warmup"): None, ("verify", "--fold"): (*FOLDS, "all"),
}  # fmt: skip
# Only the parser knows these.
OWN = {"--compare": ("trtexec",), "shell": choices.SHELLS, "--optimization-level": range(6)}


def library() -> dict:
    """`LIBRARY`, and what needs torch or onnx to be imported."""
    pytest.importorskip("torch", reason="names of recipes need the extra 'train'")
    pytest.importorskip("onnx", reason="batches need the extra 'export'")
    from logoformer.export.batches import BATCHES
    from logoformer.model.networks.families import FAMILIES
    from logoformer.model.synthetic.layout import KINDS
    from logoformer.model.training.recipe import SELECTIONS, recipe_names

    more = {
        "--family": tuple(FAMILIES),
        "--kind": KINDS,
        "--select": SELECTIONS,
        "--recipe": recipe_names(),
        "--speed": recipe_names(),
    }
    return LIBRARY | OWN | more | {"--batches": BATCHES, "--frame-batches": BATCHES}


def arguments() -> list[tuple[str, argparse.Action]]:
    parsers = next(a for a in make_parser()._actions if a.dest == "verb").choices
    return [(verb, action) for verb, parser in parsers.items() for action in parser._actions]


def names_missing(help: str, names: object) -> list[str]:
    return [str(name) for name in names if not re.search(rf"(?<![\w.-]){re.escape(str(name))}(?![\w-]|\.\w)", help)]


def test_every_choice_is_the_librarys_and_in_the_help():
    known, wrong, seen = library(), [], set()
    for verb, action in arguments():
        for spelling in action.option_strings or [action.dest]:
            key = (verb, spelling) if (verb, spelling) in known else spelling
            names = known.get(key)
            seen.add(key)
            if action.choices is not None and names is None:
                wrong.append(f"{verb} {spelling}: its choices are compared with nothing")
            if names is None:
                continue
            if action.choices is not None and set(map(str, action.choices)) != set(map(str, names)):
                wrong.append(f"{verb} {spelling}: other choices than the library's")
            if action.metavar is not None or action.choices is None:  # else argparse lists them
                wrong += [f"{verb} {spelling}: {name} is not in the help" for name in names_missing(action.help, names)]
    assert wrong == []
    assert set(known) <= seen  # an option that is gone leaves its line here


def test_a_name_that_the_help_lacks_is_found():
    assert names_missing("base (default), wide or tiny", LOGOFORMER_PRESETS) == []
    assert names_missing("base (default) or tiny", LOGOFORMER_PRESETS) == ["wide"]
    assert names_missing("onnxruntime-cuda, tensorrt_rtx", ("onnxruntime", "tensorrt")) == ["onnxruntime", "tensorrt"]


def test_defaults_are_choices():
    for verb, action in arguments():
        if action.choices is not None and isinstance(action.default, str):
            assert action.default in action.choices, (verb, action.dest)
