"""Only the verb import reads foreign pickles; every other way into a pickle stays `weights_only`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import logoformer
import pytest

ROOT = Path(logoformer.__file__).parent
OUTSIDE = ("tests", "build", "demo", "dist", "docs", "examples", ".venv")
READER = {"open_foreign", "unpickle", "read_legacy", "read_directory", "ForeignFile"}
USERS = {"workflows/import_.py", "model/importing"}


@cache
def sources() -> list[tuple[str, ast.Module]]:
    """(path, tree) of every module of the package."""
    places = [path.relative_to(ROOT) for path in sorted(ROOT.rglob("*.py"))]
    own = [place for place in places if place.parts[0] not in OUTSIDE]
    return [(place.as_posix(), ast.parse((ROOT / place).read_text(encoding="utf-8"))) for place in own]


def readers(tree: ast.Module) -> set[str]:
    return {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names} & READER


def calls(tree: ast.Module, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            yield node


def test_only_import_uses_the_reader():
    users = {place for place, tree in sources() if readers(tree) and not place.startswith("model/foreign/")}
    assert (
        users
        and {place for place in users if place not in USERS and Path(place).parent.as_posix() not in USERS} == set()
    )


def test_a_user_is_noticed():
    assert readers(ast.parse("from ..model.foreign.reader import open_foreign"))


def test_every_torch_load_takes_weights_only():
    found = [(place, call) for place, tree in sources() for call in calls(tree, "torch.load")]
    assert found
    for place, call in found:
        only = [word.value for word in call.keywords if word.arg == "weights_only"]
        assert len(only) == 1 and isinstance(only[0], ast.Constant) and only[0].value is True, place


PYTHONS_OWN = ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.jit.load", "marshal.loads", "shelve.open")


@pytest.mark.parametrize("call", PYTHONS_OWN)
def test_nothing_is_unpickled_by_python(call):
    assert [place for place, tree in sources() for _ in calls(tree, call)] == []


def test_the_pickle_machine_calls_nothing_that_a_pickle_names():
    """Its modules import no way to run or to find code by name."""
    for place, tree in sources():
        if not place.startswith("model/foreign/"):
            continue
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert names & {"eval", "exec", "compile", "__import__", "globals", "importlib", "pickle", "setattr"} == set()
        gets = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "getattr"]
        assert len(gets) <= 1, place  # a dtype of torch by its name, which READABLE lists


def test_the_policy_says_so():
    assert "logoformer import" in (Path(__file__).parents[3] / "SECURITY.md").read_text(encoding="utf-8")
