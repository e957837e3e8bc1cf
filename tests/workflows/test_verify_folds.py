"""The pooled verdict of five bundles: who judges what, what is stored where, and what ends it."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import logoformer
import numpy as np
import onnx
import pytest
from logoformer.bundle import MIXED, Bundle, BundleWriter, replace_manifest, writer
from logoformer.bundle.pooled import POOLED
from logoformer.calibration import gate
from logoformer.clips import DFEW_LABELS
from logoformer.errors import BadInputError, MachineError, RefusedError, UsageError
from logoformer.model.data.datasets import open_clips
from logoformer.model.data.dfew import list_path
from logoformer.model.data.listing import Reading
from logoformer.workflows.held_out import MARKS, clip_marks
from logoformer.workflows.verify import AccuracyReport, judge_on_data, judge_on_folds, record_accuracy
from logoformer.workflows.verify.folds import bundles_by_fold, require_alike
from logoformer.workflows.verify.record import record_together
from PIL import Image

FOLDS = (1, 2, 3, 4, 5)
CLIPS = 70  # 14 of each fold, 2 of each class there: alone they prove nothing
# An untrained network answers nearly all clips alike; what is accepted here is no matter of accuracy.
BUDGET = gate.Budget(0.2, 0.9)


# ----------------------------------------------------------------------------------------------------------------- data
@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DFEW's layout with noise for faces: 70 clips of 8 frames in five folds."""
    root, draw = tmp_path_factory.mktemp("folds") / "dfew", np.random.default_rng(0)
    rows = [(number, number % 7) for number in range(CLIPS)]
    for number, _ in rows:
        folder = root / f"Clip/clip_224x224/{number + 1:05d}"
        folder.mkdir(parents=True)
        for frame in range(8):
            Image.fromarray(draw.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{frame}.png")
    for fold in FOLDS:
        for split in ("train", "test"):
            chosen = [(n, c) for n, c in rows if (n // 7 % 5 == fold - 1) == (split == "test")]
            path = root / list_path(split, fold)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(["video_name,label", *(f"{n + 1},{c + 1}" for n, c in chosen)]) + "\n")
    return root


def reading(data: Path, fold: int) -> dict:
    source = open_clips(data, "train", fold, Reading(64))
    return {"fold": fold, "train_list": source.fingerprint, MARKS: clip_marks(source)}


def told(data: Path, fold: int) -> dict:
    """The provenance of a model that says what it was trained on."""
    return {"checkpoint": {"extra": {"reading": reading(data, fold)}}}


@pytest.fixture(scope="module")
def made(untrained_bundle: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five bundles with answers of their own: an untrained one, with another bias of its classifier each."""
    folder = tmp_path_factory.mktemp("made")
    for fold in FOLDS:
        path = folder / f"f{fold}.bundle"
        shutil.copytree(untrained_bundle, path)
        bundle, graphs = Bundle(path), []
        for entry in bundle.graphs:
            model = onnx.load_from_string(bundle.read_graph(entry))
            model.producer_version = f"fold {fold}"
            fields = {name: getattr(entry, name) for name in ("graph", "precision", "batch", "opset", "macs")}
            tensors = {"inputs": entry.inputs, "outputs": entry.outputs}
            written = BundleWriter(path).add_graph(model.SerializeToString(), **tensors, **fields)
            graphs.append({**written, "macs": dict(entry.macs)})
        BundleWriter(path).commit({**bundle.manifest, "graphs": graphs, "provenance": told(data, fold)})
    return folder


@pytest.fixture
def five(made: Path, tmp_path: Path) -> list[Path]:
    shutil.copytree(made, tmp_path / "made")
    return [tmp_path / f"made/f{fold}.bundle" for fold in FOLDS]


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gate.BUDGETS, "fp16", BUDGET)


# ------------------------------------------------------------------------------------------------------------- verdicts
@pytest.mark.slow
def test_five_bundles_are_judged_as_one_each_on_its_own_clips(data, five, monkeypatch, capsys, fails):
    from logoformer.cli import main as cli

    asked: list[set[str]] = []
    answer = gate.answer

    def noted(evaluators, source, sampling, indices, progress=None):
        asked.append({source.clip_id(i) for i in indices})
        return answer(evaluators, source, sampling, indices, progress)

    monkeypatch.setattr(gate, "answer", noted)
    words = ["verify", *map(str, five[::-1]), "--accuracy", "--data", str(data), "--fold", "all"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "fp16: accept - " in said and "on 70 clips" in said
    tests = [{e.name for e in open_clips(data, "test", fold, Reading(64))._entries} for fold in FOLDS]
    assert asked == tests, "by fold, whatever the order of the words"
    for fold, path in enumerate(five, start=1):
        entry = Bundle(path).precisions["fp16"]
        assert entry["verdict"] == "accept" and "on 70 clips" in entry["reason"]
        assert [item["bundle"] for item in entry[POOLED]] == [
            "." if other == fold else f"../f{other}.bundle" for other in FOLDS
        ]
        assert entry["accuracy"]["source"]["per_class"] == dict.fromkeys(Bundle(path).labels, 10)
        assert "--fold all" in entry["accuracy"]["command"]
        assert not Bundle(path).void and "fp16" in Bundle(path).accepted_on("onnxruntime")
    # One fold's few clips take nothing away from that; they do where nothing stands.
    judge_on_data(five[0], data, fold=1)
    assert not Bundle(five[1]).void and "on 70 clips" in Bundle(five[0]).precisions["fp16"]["accuracy"]["reason"]
    assert Bundle(five[0]).precisions["fp16"]["verdict"] == "accept"
    # Another bundle of the five is exchanged: the verdict is void everywhere, and everybody is told.
    replace_manifest(Bundle(five[2]), {**Bundle(five[2]).manifest, "note": "retrained"})
    for path in five:
        bundle = Bundle(path)
        assert "fp16" not in bundle.accepted and "fp16" not in bundle.accepted_on("onnxruntime")
        assert "f3.bundle, the bundle of fold 3, is not the one that was judged" in bundle.void["fp16"]
        assert all("f3.bundle" in why for why in bundle.void.values())
    with pytest.warns(RuntimeWarning, match="is void: .*f3.bundle") as caught, logoformer.load(five[0]) as runtime:
        assert runtime.precision == "fp32"
    advice = str(caught[0].message).partition("Next: logoformer ")[2].split()
    assert advice == ["verify", *map(str, five), "--accuracy", "--data", "DIR", "--fold", "all"]
    assert cli.main(["inspect", str(five[4])]) == 0 and "is void" in capsys.readouterr().out
    # A bundle that travels alone cannot know.
    alone = Path(shutil.copytree(five[0], five[0].parents[1] / "device/face.bundle"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "fp16" in Bundle(alone).accepted
    # Judged again, all is well; each is told to be judged on its own clips only.
    assert cli.main(words) == 0
    assert not any(Bundle(path).void for path in five)
    fails(2, "verify", five[0], "--accuracy", "--data", data, "--fold", "2", names=("was trained on fold 1",))


def report(verdict: str = "accept", precision: str = "fp16", **row: object) -> AccuracyReport:
    """A report as the gate makes it, with a row of one backend."""
    given = {"verdict": verdict, "reason": f"{verdict}, said the test", **row}
    return AccuracyReport(
        bundle="f1.bundle", evaluator="test", source={"name": "noise", "clips": 70}, command="logoformer verify ...",
        uar=0.5, war=0.5, precisions={precision: given},
        backends=({**given, "precision": precision, "backend": "onnxruntime", "evaluator": "ONNX Runtime"},),
    )  # fmt: skip


@pytest.fixture
def small_five(write_bundle: Callable[..., Bundle], tmp_path: Path) -> dict[int, Bundle]:
    precisions = ("fp32", "fp16", "int8")
    return {n: write_bundle(tmp_path / f"run{n}/face.bundle", f"fold {n}", precisions=precisions) for n in FOLDS}


def again(bundles: dict[int, Bundle]) -> dict[int, Bundle]:
    return {fold: Bundle(bundle.path) for fold, bundle in bundles.items()}


def verdicts(bundles: dict[int, Bundle], precision: str = "int8") -> list[str]:
    return [Bundle(bundle.path).precisions[precision]["verdict"] for bundle in bundles.values()]


@pytest.mark.parametrize("before", ["accept", "refuse: use FP16"])
@pytest.mark.parametrize("killed_at", range(10))
def test_whenever_it_is_interrupted_no_bundle_contradicts_another(small_five, killed_at, before, monkeypatch):
    """Ten indexes are written, two for each bundle; the process ends before one of them."""
    after = "refuse: use FP16" if before == "accept" else "accept"
    record_together(small_five, report(before, "int8"))
    bundles, written = again(small_five), iter(range(10))
    whole = writer._replace_index

    def killed(path, manifest):
        if next(written) == killed_at:
            raise KeyboardInterrupt
        return whole(path, manifest)

    monkeypatch.setattr(writer, "_replace_index", killed)
    with pytest.raises(KeyboardInterrupt):
        record_together(bundles, report(after, "int8"))
    found = verdicts(bundles)
    assert len({verdict for verdict in found if verdict != gate.INSUFFICIENT}) <= 1, found
    rows = [
        row["verdict"] for b in again(bundles).values() for row in b.manifest["verification"]["accuracy"]
        if row["precision"] == "int8"
    ]  # fmt: skip
    assert set(rows) <= {before} or set(rows) <= {after}
    # And where they can see each other, what not all of them hold is void.
    if killed_at:
        assert all("int8" not in bundle.accepted for bundle in again(bundles).values())
    monkeypatch.undo()
    record_together(again(bundles), report(after, "int8"))
    assert verdicts(bundles) == [after] * 5 and not any(b.void for b in again(bundles).values())


def test_a_changed_bundle_or_a_locked_one_stops_all(small_five, monkeypatch):
    replace_manifest(small_five[4], {**small_five[4].manifest, "note": "meanwhile"})
    with pytest.raises(MachineError, match=r"run4/face\.bundle was changed"):
        record_together(small_five, report("refuse: use FP16", "int8"))
    assert verdicts(small_five) == ["accept"] * 5
    with (
        writer.only_writer(small_five[2].path),
        pytest.raises(MachineError, match=r"run2/face\.bundle is being written"),
    ):
        record_together(again(small_five), report("refuse: use FP16", "int8"))
    assert verdicts(small_five) == ["accept"] * 5


def test_a_full_disk_says_that_some_were_changed(small_five, monkeypatch):
    whole, full = writer.write_atomic, small_five[4].path / "manifest.json"

    def write(target, data):
        if target == full:
            raise MachineError(f"{target} could not be written", next="nothing was changed")
        whole(target, data)

    monkeypatch.setattr(writer, "write_atomic", write)
    with pytest.raises(MachineError, match="run4") as failed:
        record_together(small_five, report("refuse: use FP16", "int8"))
    assert "some of the bundles were changed" in failed.value.next
    assert verdicts(small_five) == [gate.INSUFFICIENT] * 3 + ["accept"] * 2


def test_an_index_that_would_not_open_stops_all(small_five):
    nonsense = report(gate.MIXED, "int8", graphs={"clip": "int8"})
    with pytest.raises(RefusedError):
        record_together(small_five, nonsense)
    assert verdicts(small_five) == ["accept"] * 5


def test_a_mixture_is_pooled_too_and_ends_with_it(small_five):
    chosen = {"clip": "fp16", "frame": "int8", "temporal": "fp16"}
    record_together(small_five, report(gate.MIXED, "int8", graphs=chosen))
    assert all(MIXED in b.accepted and "int8" not in b.accepted for b in again(small_five).values())
    replace_manifest(Bundle(small_five[1].path), {**Bundle(small_five[1].path).manifest, "note": "changed"})
    assert not any(MIXED in b.accepted for b in again(small_five).values())
    record_together(again(small_five), report("accept", "int8"))
    assert all("int8" in b.accepted and not b.mixture for b in again(small_five).values())


def test_a_later_verdict_of_one_bundle_ends_the_pooled_one(small_five):
    record_together(small_five, report("accept", "int8"))
    record_accuracy(Bundle(small_five[3].path), report("refuse: use FP16", "int8"))
    bundles = again(small_five)
    assert not any("int8" in bundle.accepted for bundle in bundles.values())
    assert "run3/face.bundle, the bundle of fold 3, no longer holds this verdict" in bundles[1].void["int8"]
    assert "onnxruntime int8" in bundles[1].void and not bundles[3].void
    assert POOLED not in bundles[3].precisions["int8"]


def test_too_few_clips_of_one_fold_take_nothing_away(small_five):
    record_together(small_five, report("accept", "int8"))
    record_accuracy(Bundle(small_five[3].path), report(gate.INSUFFICIENT, "int8"))
    assert all("int8" in b.accepted_on("onnxruntime") and not b.void for b in again(small_five).values())
    # Unless it is void anyway.
    replace_manifest(Bundle(small_five[1].path), {**Bundle(small_five[1].path).manifest, "note": "changed"})
    record_accuracy(Bundle(small_five[3].path), report(gate.INSUFFICIENT, "int8"))
    assert Bundle(small_five[3].path).precisions["int8"]["verdict"] == gate.INSUFFICIENT


def test_too_few_clips_of_all_folds_leave_fp16_as_the_export_judged_it(small_five):
    record_together(small_five, report(gate.INSUFFICIENT, "fp16"))
    for bundle in again(small_five).values():
        entry = bundle.precisions["fp16"]
        assert entry["verdict"] == "accept" and entry["accuracy"]["verdict"] == gate.INSUFFICIENT
        assert POOLED not in entry and not bundle.manifest["verification"]["accuracy"]


def test_each_kind_of_change_is_seen_and_verify_is_none(small_five):
    record_together(small_five, report("accept", "int8"))
    first = Bundle(small_five[1].path)
    replace_manifest(first, {**first.manifest, "verification": {**first.manifest["verification"], "rows": []}})
    assert not any(bundle.void for bundle in again(small_five).values())
    damaged = small_five[2].path / "manifest.json"
    kept = damaged.read_bytes()
    damaged.write_bytes(kept.replace(b"calm", b"cold"))
    assert "is not the one that was judged" in Bundle(small_five[5].path).void["int8"]
    damaged.write_bytes(kept)
    assert not Bundle(small_five[5].path).void
    second = Bundle(small_five[2].path)
    replace_manifest(second, {**second.manifest, "provenance": {"note": "another training"}})
    assert "is not the one that was judged" in Bundle(small_five[5].path).void["int8"]
    damaged.write_bytes(kept)
    small_five[2].path.rename(small_five[2].path.with_name("elsewhere"))
    assert not Bundle(small_five[5].path).void  # nothing can be said of what is not there


def test_a_link_to_a_bundle_finds_the_others(small_five, tmp_path, monkeypatch):
    link = tmp_path / "a/b/c/link.bundle"
    link.parent.mkdir(parents=True)
    link.symlink_to(small_five[5].path, target_is_directory=True)
    record_together({**small_five, 5: Bundle(link)}, report("accept", "int8"))
    assert Bundle(small_five[1].path).precisions["int8"][POOLED][4]["bundle"] == "../../run5/face.bundle"
    replace_manifest(Bundle(small_five[1].path), {**Bundle(small_five[1].path).manifest, "note": "changed"})
    monkeypatch.chdir(tmp_path)
    for path in (link, small_five[5].path, Path("run5/face.bundle")):
        assert "run1/face.bundle" in Bundle(path).void["int8"], path


@pytest.mark.parametrize(
    "change",
    [
        lambda item: item.update(bundle="/etc"),
        lambda item: item.update(bundle="../../../../../../../../../../../../../../../../../x"),
        lambda item: item.update(bundle="inside"),
        lambda item: item.update(bundle="."),
        lambda item: item.update(fold=1),
        lambda item: item.update(fold=0),
        lambda item: item.update(sha256="0"),
        lambda item: item.pop("fold"),
    ],
)
def test_a_garbled_pooled_verdict_is_refused(small_five, change):
    record_together(small_five, report("accept", "int8"))
    bundle = Bundle(small_five[1].path)
    precisions = {name: dict(entry) for name, entry in bundle.precisions.items()}
    folds = [dict(item) for item in precisions["int8"][POOLED]]
    change(folds[1])
    precisions["int8"][POOLED] = folds
    with pytest.raises(RefusedError):
        replace_manifest(bundle, {**bundle.manifest, "precisions": precisions})


# ------------------------------------------------------------------------------------------------------- which is whose
def named(write_bundle, tmp_path: Path, says: Sequence[dict | None]) -> list[Bundle]:
    return [
        write_bundle(tmp_path / f"b{place}", f"salt {place}", **({"provenance": said} if said else {}))
        for place, said in enumerate(says)
    ]


def test_what_a_bundle_says_of_its_fold_counts_before_its_place(data, write_bundle, tmp_path):
    says = [told(data, 3), None, told(data, 1), None, None]
    found = bundles_by_fold(named(write_bundle, tmp_path, says), data)
    assert [found[fold].path.name for fold in FOLDS] == ["b2", "b1", "b0", "b3", "b4"]


@pytest.mark.parametrize(
    ("folds", "said"),
    [
        ([1, 2, 3, 4], "4 are named, none of fold 5"),
        ([1, 2, 3, 4, 4], "none of fold 5"),
        ([1, 2, 3, 4, 5, 5], "6 are named."),
        ([2], "none of fold 1, 3, 4, 5"),
    ],
)
def test_each_fold_needs_one_bundle(data, write_bundle, tmp_path, folds, said):
    with pytest.raises(UsageError, match="--fold all takes 5 bundles") as refused:
        bundles_by_fold(named(write_bundle, tmp_path, [told(data, fold) for fold in folds]), data)
    assert said in str(refused.value) and "b0 fold" in refused.value.cause


def test_wrong_calls_say_what_is_right(data, five, tmp_path, fails):
    words = ("--accuracy", "--data", data, "--fold", "all")
    fails(2, "verify", *five[:4], *words, names=("none of fold 5", "--fold all"))
    fails(2, "verify", *five[:4], five[3], *words, names=("is named twice",))
    fails(2, "verify", *five, "--accuracy", "--data", data, names=("5 bundles are those of all folds", "--fold all"))
    fails(2, "verify", *five, names=("are for the accuracy gate",))
    fails(2, "verify", *five, "--accuracy", "--fold", "all", names=("needs labelled clips",))
    fails(2, "verify", five[0], "--fold", "all", names=("are for the accuracy gate",))
    one_split = tmp_path / "lists"
    one_split.mkdir()
    (one_split / "test.txt").write_text("a 16 0\n")
    fails(2, "verify", *five, "--accuracy", "--data", one_split, "--fold", "all", names=("no folds to pool",))


def test_copies_of_one_bundle_and_other_models_are_no_five_trainings(data, five, fails):
    words = ("--accuracy", "--data", data, "--fold", "all")
    shutil.rmtree(five[1])
    shutil.copytree(five[0], five[1])
    bundle = Bundle(five[1])
    replace_manifest(bundle, {**bundle.manifest, "provenance": told(data, 2)})
    fails(2, "verify", *five, *words, names=("hold the same weights",))
    bundle = Bundle(five[2])
    sampling = {**bundle.manifest["sampling"], "span_s": 9.0}
    replace_manifest(bundle, {**bundle.manifest, "sampling": sampling})
    fails(2, "verify", five[3], five[0], *five[1:3], five[4], *words)
    with pytest.raises(UsageError, match=r"f3\.bundle differs from .*f1\.bundle in 'sampling'"):
        require_alike([Bundle(path) for path in (five[0], *five[2:])])


def test_a_clip_of_two_folds_would_count_twice(data, five, tmp_path):
    other = Path(shutil.copytree(data, tmp_path / "other"))
    lists = [other / list_path("test", fold) for fold in (1, 2)]
    lists[1].write_text(lists[1].read_text() + lists[0].read_text().splitlines()[1] + "\n")
    for fold in FOLDS:  # no training list holds a test clip
        (other / list_path("train", fold)).write_text("video_name,label\n99999,1\n")
    for path in five:
        bundle = Bundle(path)
        replace_manifest(bundle, {**bundle.manifest, "provenance": {}})
    with pytest.raises(BadInputError, match=r"1 clips of .* in the test splits of several folds"):
        judge_on_folds(five, other)


def test_nothing_is_written_when_asked_not_to(data, small_five):
    assert DFEW_LABELS[0] == "happy"  # the data's classes are not those of the small bundles
    with pytest.raises((UsageError, BadInputError)):
        judge_on_folds([bundle.path for bundle in small_five.values()], data, write=False)
    assert verdicts(small_five) == ["accept"] * 5
