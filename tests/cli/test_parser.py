"""Help, and what a wrong call is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from logoformer.cli import main as cli
from logoformer.cli.parser import did_you_mean


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 2
    return err


def test_without_a_verb_the_help_is_printed(capsys: pytest.CaptureFixture[str]):
    assert cli.main([]) == 0
    out, err = capsys.readouterr()
    assert out == cli.make_parser().format_help() and err == ""


@pytest.mark.parametrize("module", ["logoformer", "logoformer.cli"])
def test_python_dash_m(module: str, tmp_path: Path):
    done = subprocess.run([sys.executable, "-m", module], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: logoformer ") and done.stderr == ""
    done = subprocess.run([sys.executable, "-m", module, "exprt"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "'exprt'. Did you mean 'export'?" in done.stderr


def test_help_and_version_end_with_0(capsys: pytest.CaptureFixture[str]):
    for words in (["--help"], ["--version"], ["export", "--help"]):
        assert cli.main(words) == 0
    assert "logoformer 0." in capsys.readouterr().out


def test_the_parser_imports_nothing_of_the_library(tmp_path: Path):
    code = "import sys; from logoformer.cli.main import make_parser; make_parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    own = {name.split(".")[1] for name in done.stdout.split() if name.startswith("logoformer.")}
    assert own == {"cli", "errors"} and "numpy" not in done.stdout.split()


@pytest.mark.parametrize(
    ("words", "wrong", "meant"),
    [
        (["exprt"], "exprt", "export"),
        (["bench-comapre", "a", "b"], "bench-comapre", "bench-compare"),
        (["init", "--prest", "tiny"], "--prest", "--preset"),  # not: -o is missing
        (["export", "c", "--precison=fp16"], "--precison", "--precisions"),
        (["init", "-o", "x", "--preset", "bse"], "bse", "base"),
        (["run", "b", "0", "--face", "centre"], "centre", "center"),
        (["export", "c", "--precisions", "fp32", "fp61"], "fp61", "fp16"),
        (["bench", "b", "--mode", "closed,pced"], "pced", "paced"),
        (["bench", "b", "--peers", "opnvino"], "opnvino", "openvino"),
        (["--versoin"], "--versoin", "--version"),
    ],
)
def test_did_you_mean(words: list[str], wrong: str, meant: str, capsys: pytest.CaptureFixture[str]):
    text = refused(capsys, *words)
    assert f"{wrong!r}. Did you mean {meant!r}?" in text
    verb = f" {words[0]}" if len(words) > 1 and words[0] in ("init", "export", "run", "bench") else ""
    assert text.startswith(f"logoformer{verb}: error: ") and text.endswith(f"\nNext: logoformer{verb} --help\n")


def test_what_resembles_nothing_lists_the_choices(capsys: pytest.CaptureFixture[str]):
    assert "Did you mean" not in refused(capsys, "init", "-o", "x", "--preset", "zzz")
    text = refused(capsys, "init", "-o", "x", "--preset", "\x1b[2J")
    assert "'base', 'wide', 'tiny'" in text and "\x1b" not in text
    assert did_you_mean("--zzzz", ["--preset"]) == ""
    assert "the following arguments are required: -o/--out" in refused(capsys, "init")
    text = refused(capsys, "run", "b", "a.mp4", "more.mp4")
    assert text == "logoformer run: error: unrecognized arguments: more.mp4\nNext: logoformer run --help\n"


def test_a_wrong_call_is_json_when_asked(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["init", "-o", "x", "--preset", "bse", "--json"]) == 2
    out, err = capsys.readouterr()
    said = json.loads(err)
    assert out == "" and said["exit_code"] == 2 and said["error"] == "UsageError" and "'base'" in said["what"]


def test_what_argparse_always_took_is_still_taken():
    parse = cli.make_parser().parse_args
    assert parse(["export", "c", "--prec", "fp16"]).precisions == ["fp16"]  # an abbreviation
    assert parse(["inspect", "--", "--odd-name"]).bundle == "--odd-name"
    assert parse(["run", "b", "--hop=2", "0"]).hop == 2
    assert parse(["train", "--data", "d", "--set", "a=--b c"]).set == ["a=--b c"]
    assert parse(["bench", "b", "--baselines", "torch,openvino"]).baselines == ("torch", "openvino")
    assert parse(["bench", "b", "--peers", "none"]).baselines == ("none",)
