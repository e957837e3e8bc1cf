"""`completion`: scripts that know every verb and option, and complete paths."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from logoformer.cli import main as cli
from logoformer.cli.completion import takes_path


def verbs() -> dict:
    return next(a for a in cli.make_parser()._actions if a.dest == "verb").choices


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str]) -> str:
    pytest.importorskip("shtab", reason="the extra 'completion'")
    assert cli.main(["completion", "bash"]) == 0
    return capsys.readouterr().out


def test_bash_takes_the_script_and_completes(script: str, tmp_path: Path):
    if shutil.which("bash") is None:
        pytest.skip("no bash here")
    (tmp_path / "complete.bash").write_text(script, encoding="utf-8")
    (tmp_path / "face.bundle").mkdir()
    ask = """
    source complete.bash
    complete_words() {
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        _shtab_logoformer logoformer "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}" 2>/dev/null
        echo "${COMPREPLY[@]}"
    }
    complete_words logoformer exp
    complete_words logoformer init --pre
    complete_words logoformer init --preset ti
    complete_words logoformer inspect face
    """
    done = subprocess.run(["bash", "-c", ask], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [line.split() for line in done.stdout.splitlines()] == [["export"], ["--preset"], ["tiny"], ["face.bundle"]]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_every_verb_is_in_the_script(shell: str, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("shtab", reason="the extra 'completion'")
    assert cli.main(["completion", shell, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["shell"] == shell and all(verb in said["script"] for verb in verbs())
    assert cli.main(["completion", shell]) == 0
    assert capsys.readouterr().out == said["script"] + "\n"


def test_what_takes_a_path():
    paths = {
        (verb, action.dest) for verb, parser in verbs().items() for action in parser._actions if takes_path(action)
    }
    assert {
        ("init", "out"), ("train", "data"), ("train", "trunk"), ("train", "qat"), ("export", "checkpoint"),
        ("run", "bundle"), ("run", "source"), ("run", "out"), ("bench", "out"), ("bench", "readme"),
        ("bench-compare", "before"), ("trust", "file"), ("trust", "add_key"), ("trust", "key"),
        ("build", "engines_dir"), ("quantize", "sensitivity"), ("verify", "layers"), ("data-check", "data"),
        ("import", "out"), ("import", "map"), ("fieldtest", "out"), ("fieldtest", "check"), ("bench", "camera"),
    } <= paths  # fmt: skip
    others = {"preset", "hop", "json", "seed", "exclude", "shell", "name", "remove", "verbose", "set", "baselines"}
    assert {dest for _, dest in paths} & others == set()


def test_without_shtab_the_command_to_install_it_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 6
    assert "pip install 'logoformer[completion]'" in capsys.readouterr().err
