"""docs/published.md: its commands parse and run, and its rows are consistent. The figures themselves are others'."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from logoformer.cli import main as cli
from logoformer.model.networks.configs import PRESETS
from logoformer.model.synthetic.layout import synth
from logoformer.model.training.recipe import override, recipe

PAGE = (Path(__file__).parents[2] / "docs/published.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines() if line.strip()
]


def row(name: str) -> list[str]:
    """The cells of the first table row of that name, without emphasis."""
    line = next(line for line in PAGE.splitlines() if line.replace("*", "").startswith(f"| {name} |"))
    return [cell.strip(" *") for cell in line.strip("|").split("|")][1:]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses_and_names_a_recipe_and_settings_that_exist(line: str):
    words = shlex.split(line)
    assert words[0] == "logoformer"
    a = cli.make_parser().parse_args(words[1:])
    if a.verb == "train":
        chosen = recipe(a.recipe)
        assert override(chosen.train, a.set).epochs == 100 and (a.preset or chosen.preset) in PRESETS


@pytest.mark.slow
def test_the_commands_run_in_their_order_on_synthetic_sets(tmp_path, monkeypatch, capsys):
    """On `tiny`, one step each, without the trunk that nobody may ship."""
    monkeypatch.chdir(tmp_path)
    synth("DFEW", identities=5, per_identity=7, side=64)
    synth("FERV39k", "ferv39k", identities=5, per_identity=7, side=64)
    short = ["steps=1", "batch=4"]
    for line in COMMANDS:
        words = [word for word in shlex.split(line)[1:] if word not in ("--trunk", "Resnet18_MS1M_pytorch.pth.tar")]
        if words[0] == "train":
            if "--preset" in words:
                words[words.index("--preset") + 1] = "tiny"
            else:
                words += ["--preset", "tiny"]
            if "--set" in words:
                place = words.index("--set") + 1
                words[place:place] = short
            else:
                words += ["--set", *short]
        capsys.readouterr()
        assert cli.main(words) == 0, line
        if words[0] == "evaluate" and "dfew-5" in words:
            assert "clips 35 " in capsys.readouterr().out  # every clip once, over five folds
    assert (tmp_path / "dfew/confusion.svg").exists() and (tmp_path / "ferv-scores/result.json").exists()


def test_the_published_rows_agree_with_themselves_and_with_each_other():
    counts = [int(cell) for cell in row("clips")[:7]]
    cells = [float(cell) for cell in row("LOGO-Former, DFEW, published")]
    recalls = cells[:7]
    pooled = sum(n * r for n, r in zip(counts, recalls, strict=True)) / sum(counts)
    assert f"{sum(recalls) / 7:.2f} {pooled:.2f}" == "{:.2f} {:.2f}".format(*cells[7:])
    assert row("LOGO-Former")[2] == "{:.2f} / {:.2f}".format(*cells[7:])


def test_the_page_says_whose_figures_these_are():
    assert "None is ours" in PAGE.replace("\n", " ").replace("**", "") and "[NF]" not in PAGE and "[?]" not in PAGE
    for name in ("paper-dfew", "paper-ferv39k"):
        train = recipe(name).train
        assert (train.compact, train.sam_rho, train.momentum, train.weight_decay) == (0.3, 0.05, 0.9, 0.0001)
        assert (train.step_share, train.step_factor, train.select) == (0.4, 0.1, "validation")
