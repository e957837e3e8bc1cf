"""`verify` says what this machine showed, and no more."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from logoformer.bundle import Bundle, BundleWriter, Golden, replace_manifest
from logoformer.engine import golden as answering
from logoformer.engine import verify as module
from logoformer.engine.builder.bundle import _select, build_bundle
from logoformer.engine.builder.compile import BuildOptions
from logoformer.engine.describe import describe, describe_text
from logoformer.engine.sessions.backends import choose_precisions, cpu_backends
from logoformer.engine.trust.index import NOT_RUN, STALE, EngineEntry, read_engine, read_index, verdict_of
from logoformer.engine.verify import verify
from logoformer.errors import MachineError, RefusedError, VerificationError


@pytest.fixture
def bundle(untrained_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_bundle, tmp_path / "copy.bundle"))


def test_fp32_is_verified_and_fp16_is_left_to_its_judge(family_bundle: Path, tmp_path: Path):
    bundle = Path(shutil.copytree(family_bundle, tmp_path / "copy.bundle"))
    report = verify(bundle)
    report.require()
    verdicts = {(row.what, row.precision): row.verdict for row in report.rows}
    assert verdicts["clip", "fp32"] == verdicts["frame + temporal", "fp32"] == "verified"
    assert verdicts["clip", "fp16"].startswith("agrees, not judged")
    noted = Bundle(bundle).manifest["verification"]
    assert noted["rows"] == [{**vars(row), "machine": noted["machine"]} for row in report.rows]
    assert "Python" in noted["machine"] and {row.backend for row in report.rows} == set(cpu_backends())


def test_without_write_the_bundle_stays(bundle: Path):
    before = (bundle / "manifest.json").read_bytes()
    verify(bundle, write=False)
    assert (bundle / "manifest.json").read_bytes() == before


def test_a_read_only_bundle_is_verified_all_the_same(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    def read_only(*_: object) -> None:
        raise MachineError("manifest.json could not be written: Read-only file system.")

    monkeypatch.setattr(module, "replace_manifest", read_only)
    report = verify(bundle)
    report.require()
    assert "Read-only" in report.unrecorded and any(row.verdict == "verified" for row in report.rows)


def test_a_precision_that_failed_here_is_not_chosen(bundle: Path):
    opened = Bundle(bundle)
    rows = [{"precision": "fp32", "verdict": "failed"}, {"precision": "fp16", "verdict": "verified"}]
    noted = replace_manifest(opened, {**opened.manifest, "verification": {"machine": "m", "rows": rows}})
    assert noted.accepted == ("fp16",) and choose_precisions(noted, "verdict", "onnxruntime")[0] == "fp16"


def test_engines_of_another_export_are_stale(bundle: Path, tmp_path: Path):
    entry = EngineEntry(
        graph="clip", precision="fp16", batch=1, target="rtx", file="rtx/clip.fp16.b1.00000000.engine", sha256="0" * 64,
        size=1, graph_sha256="0" * 64, tensorrt_version="1", compute_capabilities=("sm86",), platform="linux", flags={},
    )  # fmt: skip
    graphs = Bundle(bundle).graphs
    assert verdict_of(entry, graphs) == STALE
    assert verdict_of(replace(entry, graph_sha256=graphs[0].sha256), graphs) == NOT_RUN


@pytest.mark.parametrize("verb", ["verify", "inspect", "selftest", "run"])
def test_a_mistyped_engines_folder_is_told_on_the_cpu_too(verb: str, bundle: Path, tmp_path: Path, fails):
    (tmp_path / "text").write_text("none")
    more = [tmp_path] if verb == "run" else []
    for name in ("text", "nothing"):
        fails(2, verb, bundle, *more, "--engines-dir", tmp_path / name, names=(tmp_path / name, "no folder"))


def test_a_linked_engines_folder_is_refused(bundle: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (bundle / "engines").symlink_to(tmp_path / "elsewhere")
    for verb in (verify, describe, build_bundle):
        with pytest.raises(RefusedError, match="symbolic link"):
            verb(bundle)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_refused_precision_is_built_only_when_named(bundle: Path):
    opened = Bundle(bundle)
    precisions = {**opened.precisions, "fp16": {**opened.precisions["fp16"], "verdict": "refuse: use fp32"}}
    changed = replace_manifest(opened, {**opened.manifest, "precisions": precisions})
    assert {entry.precision for entry in _select(changed, (), ())} == {"fp32"}
    assert {entry.precision for entry in _select(changed, ("fp16",), ())} == {"fp16"}


def test_wrong_answers_fail(bundle: Path):
    opened = Bundle(bundle)
    golden = opened.golden()
    writer = BundleWriter(bundle)
    wrong = Golden(golden.clips, np.roll(golden.probabilities, 1, axis=0))
    writer.commit({**opened.manifest, "golden": writer.add_golden(wrong, "planted")})
    report = verify(bundle)
    with pytest.raises(VerificationError) as caught:
        report.require()
    assert "frame + temporal fp32" in str(caught.value) and caught.value.exit_code == 5


def test_a_runtime_with_a_wrong_kernel_fails(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(frame, temporal, spec, golden):
        return golden.probabilities * 0 + 1 / 7

    monkeypatch.setattr(answering, "answers_of_pair", broken)
    rows = {(row.what, row.precision): row.verdict for row in verify(bundle, write=False).rows}
    assert rows["frame + temporal", "fp32"] == "failed" and rows["clip", "fp32"] == "verified"


@pytest.mark.slow
def test_build_files_real_engines_and_concludes_nothing(bundle: Path):
    report = build_bundle(bundle, graphs=["frame", "temporal"], plan_sm="sm86")
    assert {(e.graph, e.precision) for e in report.engines} == {
        (graph, precision) for graph in ("frame", "temporal") for precision in ("fp32", "fp16")
    }
    for entry in report.engines:
        assert len(read_engine(report.folder, entry)) == entry.size > 10_000
        assert entry.verdict == NOT_RUN and entry.plan["sm86"]["kernels"] > 5
        assert entry.flags["strongly_typed"] and not entry.flags["tf32"] and entry.flags["max_aux_streams"] == 0
        expected = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")
        if entry.precision == "fp32" and entry.graph == "temporal":
            expected = expected[1:]  # TensorRT-RTX 1.7.1 has no FP32 matrix product for Turing
            assert "FP32" in report.left_out[entry.file]["sm75"]
        assert entry.compute_capabilities == expected
    assert sorted(e.file for e in read_index(report.folder)) == sorted(e.file for e in report.engines)

    rows = [row for row in verify(bundle).rows if row.what.endswith(".engine")]
    assert len(rows) == 4 and all(row.verdict == NOT_RUN and row.share is None for row in rows)
    text = describe_text(describe(bundle))
    assert "built, not run" in text and "fused attentions" in text

    again = build_bundle(bundle, BuildOptions(compute_capabilities=("sm86",)), graphs=["frame"], precisions=["fp16"])
    assert len(read_index(report.folder)) == 5 and again.engines[0].compute_capabilities == ("sm86",)
    per_sm = build_bundle(
        bundle, BuildOptions(compute_capabilities=("sm86", "sm89")), graphs=["frame"], precisions=["fp16"], per_sm=True
    )
    assert [entry.compute_capabilities for entry in per_sm.engines] == [("sm86",), ("sm89",)]

    victim = report.folder / report.engines[0].file
    victim.write_bytes(victim.read_bytes()[:-1] + b"\0")
    with pytest.raises(RefusedError):
        verify(bundle)
