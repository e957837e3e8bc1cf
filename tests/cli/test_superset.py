"""Every call that version 0.1 took is still taken."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from logoformer.cli.main import make_parser

OLD = json.loads((Path(__file__).parents[1] / "data/cli-v0.1.json").read_text(encoding="ascii"))


def breaks(old: dict, parsers: dict[str, argparse.ArgumentParser]) -> list[str]:
    """What of an older command line is missing or takes other values now."""
    wrong = []
    for verb, arguments in old.items():
        if verb not in parsers:
            wrong.append(verb)
            continue
        actions = parsers[verb]._actions
        for spellings, was in arguments.items():
            for spelling in spellings.split():
                now = next((a for a in actions if spelling in (a.option_strings or [a.dest])), None)
                # Free text of 0.1 may have become a list of choices: the library always refused the others.
                lost = set(was["choices"] or ()) - set(map(str, now.choices or ())) if now and now.choices else set()
                more = (
                    now and not now.option_strings and (was["nargs"], now.nargs) == (None, "+")
                )  # one, and now several
                if now is None or (now.nargs != was["nargs"] and not more) or lost:
                    wrong.append(f"{verb} {spelling}")
    return wrong


def verbs() -> dict[str, argparse.ArgumentParser]:
    return dict(next(a for a in make_parser()._actions if a.dest == "verb").choices)


def test_the_command_line_is_a_superset_of_version_0_1():
    assert breaks(OLD, verbs()) == []


@pytest.mark.parametrize("planted", [{"fly": {}}, {"run": {"--wings": {"nargs": None, "choices": None}}}])
def test_a_planted_loss_is_found(planted: dict):
    assert len(breaks(planted, verbs())) == 1


def test_a_planted_change_of_values_is_found():
    assert breaks({"run": {"--hop": {"nargs": "+", "choices": None}}}, verbs()) == ["run --hop"]
    assert breaks({"run": {"--face": {"nargs": None, "choices": ["whole", "nose"]}}}, verbs()) == ["run --face"]


def test_no_option_became_required():
    """The shortest call of each verb is what it was."""
    required = {
        "init": {"out"}, "import": {"file"}, "synth": {"out"}, "train": {"data"}, "data-check": {"data"},
        "evaluate": {"checkpoint", "data"}, "export": {"checkpoint"}, "run": {"bundle", "source"},
        "watch": {"bundle", "sources"}, "label": {"bundle", "sources", "out"},
        "triton": {"bundle", "out"}, "triton-check": {"url"},
        "bench-compare": {"before", "after"}, "completion": {"shell"}, "trust": set(), "inspect": set(),
        "doctor": set(), "demo": set(), "fieldtest": set(),
    }  # fmt: skip
    for verb, parser in verbs().items():
        found = {action.dest for action in parser._actions if action.required}
        assert found == required.get(verb, {"bundle"}), verb
