"""The mixed verdict: INT8 that an outlier ruins in `temporal`, and everything that follows the verdict."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from logoformer import load
from logoformer.bundle import MIXED, Bundle, replace_manifest
from logoformer.bundle.verdicts import without_verdicts
from logoformer.calibration import gate
from logoformer.cli import main as cli
from logoformer.engine.builder.bundle import build_bundle
from logoformer.engine.golden import answers_of_pair, distance, golden_answers
from logoformer.engine.sessions.backends import choose_precisions, cpu_backends
from logoformer.engine.verify import verify
from logoformer.errors import RefusedError, UsageError
from logoformer.model.networks.configs import PRESETS
from logoformer.model.synthetic.recordings import SyntheticClips
from logoformer.studies.int8 import make_bundle, plant_outlier, quantize_on_faces
from logoformer.workflows.init import initialise
from logoformer.workflows.verify import AccuracyReport, judge_accuracy, record_accuracy

CHOSEN = {"clip": "fp16", "frame": "int8", "temporal": "fp16"}
# An untrained network answers 70 clips alike within its noise; what is planted costs it nearly all of them.
BUDGET = gate.Budget(0.5, 0.9)


def judged(bundle: Bundle, clips: int = 70) -> AccuracyReport:
    source = SyntheticClips(0, range(3_000_000, 3_000_100), 7, bundle.image_size)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(gate.BUDGETS, "fp16", BUDGET)
        patch.setitem(gate.BUDGETS, "int8", BUDGET)
        return judge_accuracy(bundle, source, range(clips), named="synthetic", reproduce="a command")


@pytest.fixture(scope="module")
def ruined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One channel of the norm before one FFN of `temporal`, times 200: max calibration rounds the others away."""
    path = tmp_path_factory.mktemp("mixed") / "tiny.bundle"
    return make_bundle(plant_outlier(initialise(PRESETS["tiny"]), 0), path, clips=64, equalise=False).path


@pytest.fixture(scope="module")
def report(ruined: Path) -> AccuracyReport:
    return judged(Bundle(ruined))


@pytest.fixture
def mixed(ruined: Path, report: AccuracyReport, tmp_path: Path) -> Bundle:
    """The bundle with the verdict written into it."""
    return record_accuracy(Bundle(shutil.copytree(ruined, tmp_path / "tiny.bundle")), report)


def test_the_gate_chooses_per_graph_and_says_what_it_judged(report: AccuracyReport):
    row = report.precisions["int8"]
    assert row["verdict"] == gate.MIXED and row["graphs"] == CHOSEN, row["reason"]
    assert row["reason"].startswith("frame alone in INT8: ") and "All of INT8: refuse: use FP16" in row["reason"]
    assert row["agreement"] >= 0.9 and row["rms_share"] < 0.3, "the figures are those of the pair that runs"
    assert report.precisions["fp16"]["verdict"] == "accept" and "graphs" not in report.precisions["fp16"]


def test_each_backend_is_judged_by_its_own_answers(report: AccuracyReport, mixed: Bundle):
    judged = {(row["backend"], row["precision"]): row for row in report.backends}
    assert set(judged) == {(backend, name) for backend in cpu_backends() for name in ("fp16", "int8", MIXED)}
    for backend in cpu_backends():
        whole, pair = judged[backend, "int8"], judged[backend, MIXED]
        assert whole["verdict"].startswith("refuse") and pair["verdict"] == "accept", pair["reason"]
        assert pair["graphs"] == CHOSEN and pair["evaluator"].startswith(backend)
        assert 0 < pair["rms_share"] < 0.3 < whole["rms_share"]
        assert pair["rms_share"] != report.precisions["int8"]["rms_share"], "its own answers, not the reference's"
        assert set(mixed.accepted_on(backend)) == {"fp32", "fp16", MIXED}
    noted = mixed.manifest["verification"]["accuracy"]
    assert [row["reason"] for row in noted] == [row["reason"] for row in report.backends]
    assert all(row["source"]["clips"] == 70 and row["command"] == "a command" for row in noted)


def test_what_is_judged_is_what_runs(mixed: Bundle):
    golden = mixed.golden()
    with load(mixed, precision=MIXED) as engine:
        assert engine.precision == MIXED and engine.frame_batches == (1,)
        _, answers = golden_answers(engine, golden)
    with load(mixed, precision="int8") as int8, load(mixed, precision="fp16") as fp16:
        wanted = answers_of_pair(int8.session("frame"), fp16.session("temporal"), mixed.stream, golden)
        (_, ruined), (_, whole) = golden_answers(int8, golden), golden_answers(fp16, golden)
    np.testing.assert_array_equal(answers, wanted)
    shares = [distance(other, golden.probabilities)[0] for other in (whole, answers, ruined)]
    print(f"largest difference: fp16 {shares[0]:.3f}, mixed {shares[1]:.3f}, int8 {shares[2]:.3f}")
    assert shares[0] < 0.05 and 3 * shares[1] < shares[2] > 1


def test_load_follows(mixed: Bundle):
    assert mixed.mixture == CHOSEN and set(mixed.runnable) == {"fp32", "fp16", "int8", MIXED}
    assert [mixed.graph(graph, MIXED).precision for graph in CHOSEN] == ["fp16", "int8", "fp16"]
    assert set(mixed.accepted) == {"fp32", "fp16", MIXED}, "INT8 as a whole is not accepted"
    assert choose_precisions(mixed, "verdict", "onnxruntime")[0] == "fp32"  # where FP16 and INT8 are no faster
    other = {name: {**entry, "verdict": "refuse"} for name, entry in mixed.precisions.items() if name != "int8"}
    manifest = without_verdicts(mixed.manifest, "fp32", "fp16")
    alone = replace_manifest(mixed, {**manifest, "precisions": {**mixed.precisions, **other}})
    with load(alone.path) as engine:
        assert engine.precision == MIXED
        assert engine.stream(color="rgb").push(np.zeros((64, 64, 3), np.uint8), 0.0) is None


@pytest.mark.parametrize(("verdict", "runs"), [("verified", True), ("failed", False)])
def test_verify_looks_at_the_mixture_and_a_failure_ends_it(mixed: Bundle, verdict: str, runs: bool):
    rows = verify(mixed.path).rows
    assert [row.what for row in rows if row.precision == MIXED] == ["clip", "frame + temporal"] * len(cpu_backends())
    assert next(row for row in rows if (row.what, row.precision) == ("clip", MIXED)).verdict.startswith("agrees")
    after = Bundle(mixed.path)
    noted = dict(after.manifest["verification"])
    noted["rows"] = [{**row, "verdict": verdict} for row in noted["rows"] if row["precision"] == MIXED]
    after = replace_manifest(after, {**after.manifest, "verification": noted})
    assert (MIXED in after.accepted) is runs and "fp16" in after.accepted
    # New INT8 graphs have no verdict yet, and no rows.
    if runs:
        again = quantize_on_faces(after, clips=64)
        assert not again.mixture and again.precisions["int8"]["verdict"] == "insufficient clips"
        assert not again.manifest["verification"]["rows"]


def test_a_later_verdict_replaces_it(mixed: Bundle, report: AccuracyReport):
    refused = {key: value for key, value in report.precisions["int8"].items() if key != "graphs"}
    rows = {**report.precisions, "int8": {**refused, "verdict": "refuse: use FP16"}}
    after = record_accuracy(mixed, replace(report, precisions=rows))
    assert not after.mixture and MIXED not in after.runnable
    with pytest.raises(UsageError, match="no precision 'mixed'"):
        load(after.path, precision=MIXED)


def test_few_clips_are_no_ground_for_it(ruined: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "can_prove", lambda clips, drop: False)
        row = judged(Bundle(ruined)).precisions["int8"]
    assert row["verdict"] == "insufficient clips" and "graphs" not in row


def test_inspect_and_build_take_the_graphs_of_the_mixture(mixed: Bundle, tmp_path: Path, rtx: object, capsys):
    assert cli.main(["inspect", str(mixed.path)]) == 0
    assert "clip in fp16, frame in int8, temporal in fp16" in capsys.readouterr().out
    built = build_bundle(mixed.path, precisions=[MIXED], engines_dir=tmp_path / "engines")
    assert sorted((engine.graph, engine.precision) for engine in built.engines) == sorted(CHOSEN.items())


@pytest.mark.parametrize(
    "change",
    [
        lambda int8: int8["graphs"].update(temporal="int8"),  # that is INT8 as a whole
        lambda int8: int8["graphs"].update(frame="fp16"),  # and that FP16
        lambda int8: int8["graphs"].update(temporal="fp32"),
        lambda int8: int8["graphs"].update(clip="int8"),
        lambda int8: int8["graphs"].update(frame="int4"),
        lambda int8: int8["graphs"].update(ring="int8"),
        lambda int8: int8["graphs"].pop("clip"),
        lambda int8: int8.update(graphs=["frame"]),
        lambda int8: int8.update(verdict="accept"),
        lambda int8: int8.pop("graphs"),
    ],
)
def test_nonsense_is_refused(write_bundle: Callable[..., Bundle], tmp_path: Path, change):
    int8 = {"verdict": gate.MIXED, "reason": "said so", "graphs": dict(CHOSEN)}
    entry = {"verdict": "accept", "reason": "said so"}
    bundle = write_bundle(tmp_path / "a.bundle", "one", precisions=("fp32", "fp16", "int8"))
    good = {**bundle.manifest, "precisions": {"fp32": entry, "fp16": entry, "int8": int8}}
    assert replace_manifest(bundle, good).mixture == CHOSEN
    change(int8)
    with pytest.raises(RefusedError):
        replace_manifest(Bundle(bundle.path), {**good, "precisions": {**good["precisions"], "int8": int8}})


def test_a_graph_that_is_not_there_is_refused(write_bundle: Callable[..., Bundle], tmp_path: Path):
    int8 = {"verdict": gate.MIXED, "reason": "said so", "graphs": dict(CHOSEN)}
    entry = {"verdict": "accept", "reason": "said so"}
    bundle = write_bundle(tmp_path / "a.bundle", "one", precisions=("fp32", "fp16", "int8"))
    fewer = [g for g in bundle.manifest["graphs"] if (g["graph"], g["precision"]) != ("frame", "int8")]
    with pytest.raises(RefusedError):
        replace_manifest(
            bundle, {**bundle.manifest, "graphs": fewer, "precisions": {"fp32": entry, "fp16": entry, "int8": int8}}
        )
