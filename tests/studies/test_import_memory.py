"""Memory of an import: the optimizer is never read, and the weights are never in memory together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
from logoformer.bundle.files import parse_json
from logoformer.model.networks.configs import PRESETS
from logoformer.studies.import_memory import PAGE, RESULTS, import_table, measure_import, save_as_published
from logoformer.studies.results import read_results

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A file of 190 MB, 63 MB of them weights: a MAE-DFER of half the width and three quarters of the depth."""
    folder = tmp_path_factory.mktemp("import")
    config = replace(PRESETS["mae-dfer"], embed_dim=256, ffn_dim=1024, depth=12)
    tensors = save_as_published(config, folder / "best.pth")
    found = measure_import("half", folder / "best.pth", folder / "out", tensors, heads=8)
    (folder / "best.pth").unlink()
    return found, config, folder


@pytest.mark.slow
def test_no_more_than_the_weights_are_in_memory(measured):
    found, _, _ = measured
    assert found.file_bytes > 2.9 * found.tensor_bytes > 1.8e8
    late = 90e6  # what PyTorch loads when it is first asked for shapes, whatever the size of the file
    assert found.peak_bytes - found.before_bytes <= late + 0.3 * found.tensor_bytes


@pytest.mark.slow
def test_the_optimizer_is_not_read(measured):
    found, _, _ = measured
    modules = 60e6  # that Python imports meanwhile
    assert found.tensor_bytes <= found.read_bytes <= found.tensor_bytes + modules


@pytest.mark.slow
def test_the_weights_arrive(measured):
    from logoformer.model.checkpoint import load_checkpoint

    _, config, folder = measured
    model, _ = load_checkpoint(folder / "out")
    assert model.config == config


def test_the_table_of_the_page_is_that_of_the_results():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    shown = text.split("<!-- import-memory:begin -->")[1].split("<!-- import-memory:end -->")[0].lstrip("\n")
    assert shown == import_table(read_results(ROOT / RESULTS))
    assert "84.9 M" in shown and "49.65 GMACs" in shown and "18.0 M" in shown and "8.30 GMACs" in shown


def test_the_committed_figures_hold_the_bar():
    rows = parse_json((ROOT / RESULTS).read_bytes(), "import-memory.json")["rows"]
    by_name = {row["preset"]: row for row in rows}
    assert by_name.keys() == {"former-dfer", "mae-dfer"}
    assert by_name["mae-dfer"]["file_bytes"] > 1e9
    for row in rows:
        added = row["peak_bytes"] - row["before_bytes"]
        assert added <= 1.3 * row["tensor_bytes"]
        assert row["added_share_of_tensors"] == pytest.approx(added / row["tensor_bytes"], abs=1e-3)
    json.dumps(rows)
