"""Every command of ours that an error advises is one that our own parser takes."""

from __future__ import annotations

import argparse
import ast
import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import logoformer
from logoformer.cli import choices
from logoformer.cli.main import make_parser

ROOT = Path(logoformer.__file__).parent
OUTSIDE = ("tests", "build", "demo", "dist", "docs", "examples", ".venv")
# What may be in the place of a value that the code computes.
VALUES = ("X", "1", "doctor", *choices.PRESETS[:1], *choices.TARGETS[:1], *choices.GRAPHS[:1], *choices.PRECISIONS[:1])


def words_of(call: ast.Call) -> list[str | None]:
    """The words of `command(...)`; None for a value that only the running program knows."""
    words: list[str | None] = []
    for word in call.args:
        if isinstance(word, ast.Constant):
            words.append(str(word.value))
        elif not isinstance(word, ast.Starred):  # what is starred is left out: options that are not always there
            words.append(None)
    return words


def advised() -> Iterator[tuple[str, tuple[str | None, ...]]]:
    """(file:line, words) of each advised command."""
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT)
        if place.parts[0] in OUTSIDE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{place}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "command":
                words = words_of(node)
                if len(words) > 1 and words[0] == "logoformer":
                    yield where, tuple(words[1:])
            elif isinstance(node, ast.keyword) and node.arg == "next":
                texts = [node.value] if isinstance(node.value, ast.Constant) else []
                for text in texts:
                    first, *rest = str(text.value).split(" ", 1)
                    if first == "logoformer" and rest and "," not in rest[0] and " lists " not in rest[0]:
                        yield where, tuple(shlex.split(rest[0]))


FOUND = list(advised())
PARSER = make_parser()
# Of pip, venv, nvidia-smi, v4l2-ctl, Ray and ONNX Runtime's tools.
FOREIGN = {
    "--input_name",
    "--input_shape",
    "--upgrade",
    "--force-reinstall",
    "--system-site-packages",
    "--id",
    "--list-devices",
    "--head",
    "--address",
}


def options_named() -> Iterator[tuple[str, str]]:
    """(file:line, option) in the texts of all advice."""
    for path in sorted(ROOT.rglob("*.py")):
        place = path.relative_to(ROOT)
        if place.parts[0] in OUTSIDE:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "next":
                for part in ast.walk(node.value):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        for option in re.findall(r"(?<![\w-])--[a-z][a-z_-]+", part.value):
                            yield f"{place}:{part.lineno}", option


def test_every_option_that_advice_names_exists():
    verbs = next(action for action in PARSER._actions if isinstance(action, argparse._SubParsersAction)).choices
    known = {option for verb in verbs.values() for option in verb._option_string_actions} | FOREIGN
    named = list(options_named())
    assert len(named) > 20
    assert [(where, option) for where, option in named if option not in known] == []


def parses(words: tuple[str | None, ...]) -> bool:
    unknown = words.count(None)
    for values in itertools.product(VALUES, repeat=unknown):
        given = iter(values)
        filled = [next(given) if word is None else word for word in words]
        try:
            PARSER.parse_args(filled)
        except SystemExit as end:
            if end.code == 0:  # --help
                return True
            continue
        return True
    return False


def test_there_is_advice():
    assert len(FOUND) > 40 and len({words[0] for _, words in FOUND}) > 8


def test_our_parser_takes_every_advised_command(capsys):
    wrong = [f"{where}: {' '.join(word or '...' for word in words)}" for where, words in FOUND if not parses(words)]
    assert wrong == [], capsys.readouterr().err[-2000:]


def test_a_wrong_one_is_noticed(capsys):
    assert not parses(("export", None, "--no-such-option"))
    assert not parses((None, None, None))
