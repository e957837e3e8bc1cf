"""A published file's way to a bundle: import, export, verify; origin and rights stay with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from foreign_files import saved
from logoformer.bundle import Bundle
from logoformer.cli import main as cli
from logoformer.model.networks.configs import PRESETS
from logoformer.model.networks.families import untrained
from logoformer.model.networks.network import to_tensor
from published import mae_file, theirs

torch = pytest.importorskip("torch")


def run(*words: object) -> int:
    return cli.main([str(word) for word in words])


@pytest.mark.slow
def test_from_the_file_to_verified_answers(tmp_path: Path):
    config = PRESETS["mae-dfer-tiny"]
    (tmp_path / "checkpoint-best.pth").write_bytes(saved(mae_file(theirs(config))))
    assert run("import", tmp_path / "checkpoint-best.pth", "--heads", 4, "-o", tmp_path / "mae", "-q") == 0
    assert run("export", tmp_path / "mae", "-o", tmp_path / "mae.bundle", "--clips", 16, "-q") == 0
    assert run("verify", tmp_path / "mae.bundle", "-q") == 0
    bundle = Bundle(tmp_path / "mae.bundle")
    golden = bundle.golden()
    with torch.no_grad():
        wanted = torch.softmax(untrained(config)(to_tensor(golden.clips.copy())), -1).numpy()
    assert np.abs(golden.probabilities - wanted).max() < 1e-6  # the same network, past both ways of naming it
    extra = bundle.manifest["provenance"]["checkpoint"]["extra"]
    assert extra["imported"]["file"] == "checkpoint-best.pth"
    card = (tmp_path / "mae.bundle" / "CARD.md").read_text()
    for words in ("by others: MAE-DFER", "MIT", "no licence", "academic, non-commercial"):
        assert words in card, words
    assert "63.41" not in card  # of the published size, which this small network is not
