"""The page shows the committed figures of labelling an archive, and they are within what was promised."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomllib
from logoformer.studies.results import read_results
from logoformer.studies.serving import venvs
from logoformer.studies.serving.labelling import COMMAND, PAGE, RESULTS, labelling_table

ROOT = Path(__file__).parents[2]


def test_the_page_is_printed_from_the_committed_figures():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    shown = text.split("<!-- labelling:begin -->\n")[1].split("<!-- labelling:end -->")[0]
    found = read_results(ROOT / RESULTS)
    assert shown == (labelling_table(found)["labelling"] if found else "Not measured yet on an idle machine.\n")


def test_ray_and_the_plain_loop_cost_what_was_promised():
    """Measured by `python -m logoformer.studies.serving.labelling` and committed; no time is taken here."""
    found = read_results(ROOT / RESULTS)
    if not found:
        pytest.skip(f"no run on an idle machine is committed yet: {COMMAND}")
    assert found["preset"] == "base" and found["clips"] >= 300 and found["actors"] == 2 and found["same_bytes"]
    assert found["machine"]["usable_cpus"] == 2 and found["command"] == COMMAND
    assert found["ray_to_plain"] <= 1.5 and found["plain_to_evaluate_speed"] >= 0.9
    assert all(run["init_s"] > 0 and run["start_s"] > 0 for run in found["runs"])


def test_the_table_tells_what_it_took_to_start_apart():
    run = {"plain_s": 100.0, "ray_s": 125.0, "evaluate_s": 80.0, "init_s": 6.25, "start_s": 2.0}
    found = {
        "runs": [run], "clips": 400, "preset": "base", "backend": "onnxruntime 1 CPU", "ray": "2.60.0", "actors": 2,
        "ray_to_plain": 1.25, "whole_to_plain": 1.33, "command": COMMAND,
        "machine": {"cpu": "it", "usable_cpus": 2, "load_1min": 0.1},
    }  # fmt: skip
    text = labelling_table(found)["labelling"]
    assert "| round 1 | 5.00 | 4.00 | 3.20 | 6.2 s | 2.0 s |" in text and COMMAND in text
    assert "1.25 times the time of the plain loop, 1.33 times with what it took to start" in text


def test_the_tests_ray_is_the_one_that_the_extra_installs():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert extras["ray"] == [venvs.RAY]
    assert not any("ray" in need for need in extras["dev"])  # a gigabyte


def test_a_venv_is_made_anew_when_its_packages_change(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(venvs.venv, "create", lambda folder, **_: (made.append(folder), folder.mkdir()))
    done = venvs.subprocess.CompletedProcess([], 0, "", "")
    monkeypatch.setattr(venvs.subprocess, "run", lambda *_, **__: done)
    for groups in ([("a==1",)], [("a==1",)], [("a==2",)]):
        assert venvs.install_packages(tmp_path / "one", groups) == tmp_path / "one" / "bin" / "python"
    assert len(made) == 2
