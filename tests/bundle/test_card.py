"""The model card, from manifests."""

import json
import re
from pathlib import Path

import pytest
from logoformer.bundle.card import card_text

MANIFEST = json.loads((Path(__file__).parents[1] / "data" / "bundle-v0.1" / "manifest.json").read_text())
HEADINGS = ["Model", "Data", "Scores", "Verdicts", "Licence of the weights", "Intended use"]


def part(text: str, heading: str) -> str:
    return text.split(f"## {heading}\n")[1].split("\n## ")[0]


def test_the_card_of_an_untrained_bundle():
    text = card_text(MANIFEST)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert "random weights" in part(text, "Data") and "8, synthetic faces, seed 0" in part(text, "Data")
    assert part(text, "Scores").strip() == "Not recorded."
    assert "| fp32 | accept | differs from PyTorch by 0.0005%" in part(text, "Verdicts")
    assert "not recorded" in part(text, "Licence of the weights")
    assert "happy, sad, neutral" in text and "8 segments x 1 frames over 2.8 s, face crops of 64 pixels" in text


def test_the_card_of_a_trained_bundle():
    extra = {
        "recipe": {"steps": 800}, "reading": {"data": "faces", "fold": 2, "train_clips": 1120}, "license": "CC BY 4.0",
        "metrics": {"uar": 0.96786, "war": 0.9, "clips": 280},
    }  # fmt: skip
    text = card_text({**MANIFEST, "provenance": {"checkpoint": {"sha256": "ab", "extra": extra}}})
    assert "data set 'faces', fold 2, 1120 clips" in part(text, "Data")
    assert "| 0.968 | 0.900 | 280 |" in part(text, "Scores")
    assert part(text, "Licence of the weights").strip().startswith("CC BY 4.0.")


def test_the_card_of_imported_weights():
    """Origin, rights and published figures, as the import writes them into the checkpoint."""
    extra = {
        "recipe": "import: MAE-DFER, weights of other people",
        "imported": {"title": "MAE-DFER", "paper": "ACM MM 2023", "file": "best.pth", "bytes": 1018888497,
                     "training": {"epoch": "best"},
                     "settings": {"heads": {"value": 8, "from": "option", "checked": ""},
                                  "size": {"value": 160, "from": "assumed", "checked": "the number of regions"}}},
        "licenses": {"code": "MIT", "weights": "no licence is stated", "data": "academic use"},
        "published": [{"data": "DFEW", "uar": 63.41, "war": 74.43, "note": "the epoch was chosen on the test clips"}],
    }  # fmt: skip
    text = card_text({**MANIFEST, "provenance": {"checkpoint": {"sha256": "ab", "extra": extra}}})
    assert "by others: MAE-DFER, ACM MM 2023" in part(text, "Data") and "epoch best" in part(text, "Data")
    believed = next(line for line in text.splitlines() if "Believed at import" in line)
    assert "heads 8 (from an option)" in believed and "160" not in believed
    scores = part(text, "Scores")
    assert scores.strip().startswith("Not recorded.") and "not measured here" in scores
    assert "| DFEW | 63.41 | 74.43 | the epoch was chosen on the test clips |" in scores
    licence = part(text, "Licence of the weights")
    assert all(line in licence for line in ("* code: MIT", "* weights: no licence is stated", "* data: academic use"))
    hostile = {"imported": [], "licenses": {"|": "<b>"}, "published": ["x", {"data": "a|b"}]}
    assert "<b>" not in card_text({**MANIFEST, "provenance": {"checkpoint": {"extra": hostile}}})


@pytest.mark.parametrize("manifest", [{}, {"model": 3, "provenance": [], "labels": (), "precisions": None}])
def test_what_is_missing_is_said(manifest):
    text = card_text(manifest)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS and text.count("ot recorded") >= 5


def test_no_name_breaks_out():
    hostile = "a|b\n## Verdicts\n<script>x</script>[y](http://z)\x1b[31m"
    text = card_text({**MANIFEST, "labels": [hostile], "precisions": {hostile: {"verdict": hostile}}})
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert not re.search(r"(?<!\\)<script", text) and "\x1b" not in text and "](http" not in text.replace("\\](", "")
