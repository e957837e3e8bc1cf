"""The ablations: what is left to do, the paired differences, the page, and what the committed figures say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from logoformer.model.synthetic.expressions import ORDER_LABELS
from logoformer.model.synthetic.layout import synth
from logoformer.studies import ablations as experiments
from logoformer.studies.results import show_results

ROOT = Path(__file__).resolve().parents[2]


def committed() -> dict:
    return json.loads((ROOT / experiments.RESULTS).read_text("utf-8"))


def results(**runs: list[float]) -> dict:
    return {"runs": {name: [{"seed": s, "uar": v} for s, v in enumerate(values)] for name, values in runs.items()}}


def test_an_interrupted_run_goes_on_where_it_was():
    done: dict = {}
    experiments.add_run(done, "space", {"seed": 1})
    experiments.add_run(done, "space", {"seed": 0})
    assert [run["seed"] for run in done["runs"]["space"]] == [0, 1]
    todo = experiments.missing_runs(done, ["joint", "space"])
    assert todo == [
        ("joint", 0),
        ("joint", 1),
        ("joint", 2),
        ("space", 2),
    ]


def test_differences_are_paired_by_seed_and_their_interval_is_students():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    ours, theirs = [0.91, 0.95, 0.90, 0.97], [0.90, 0.91, 0.92, 0.90]
    found = experiments.difference(results(a=ours, b=[*theirs, 0.1]), "a", "b", "uar")
    low, high = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found is not None and found.mean == pytest.approx(0.025)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_one_seed_has_no_interval():
    assert experiments.difference(results(a=[0.9], b=[0.8, 0.7]), "a", "b", "uar") is None


def test_every_group_names_variants_that_differ_in_one_thing():
    for names in experiments.GROUPS.values():
        fields = {
            field
            for name in names
            for field in ("attention", "depth", "heads", "compact")
            if getattr(experiments.VARIANTS[name], field) != getattr(experiments.VARIANTS["logo"], field)
        }
        assert len(fields) == 1


def test_the_page_is_what_the_figures_give(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_bytes((ROOT / experiments.PAGE).read_bytes())
    show_results(page, experiments.ablation_tables(committed()))
    assert page.read_bytes() == (ROOT / experiments.PAGE).read_bytes()


def test_compact_loss_brings_clips_of_a_class_together():
    found = experiments.difference(committed(), "logo", "logo, cross-entropy", "spread")
    assert found is not None and len(found.each) >= 3
    assert found.mean < 0 and max(found.each) < 0


def test_logo_is_not_worse_than_space_and_knows_the_order_of_time():
    whole = experiments.difference(committed(), "logo", "space", "uar")
    order = experiments.difference(committed(), "logo", "space", "order_recall")
    assert whole is not None and order is not None and len(order.each) >= 3
    assert whole.mean > 0 and order.low > 0


@pytest.mark.slow
def test_a_variant_trains_and_is_scored(tmp_path: Path):
    faces = synth(tmp_path / "faces", identities=5, side=64).path
    found, picture = experiments.train_variant(experiments.VARIANTS["logo, cross-entropy"], 0, faces, steps=2)
    assert found["clips"] == 14 and len(found["recalls"]) == 7 and found["steps"] == 2
    assert found["order_recall"] == pytest.approx(sum(found["recalls"][c] for c in ORDER_LABELS) / 4)
    assert picture.startswith("<svg") and found["spread"] > 0
