"""Both published families at full size: parity, streams, counts, kernel plans. `make test-full`."""

from __future__ import annotations

from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.clips import pattern_ages
from logoformer.engine.describe import proofs
from logoformer.engine.golden import centred_logits
from logoformer.engine.verify import verify

pytestmark = [pytest.mark.full, pytest.mark.slow]
CLIPS = 8


@pytest.fixture(scope="module", params=["former-dfer", "mae-dfer"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    from logoformer.export.exporter import ExportConfig
    from logoformer.workflows.export import export_checkpoint
    from logoformer.workflows.init import init_checkpoint

    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = init_checkpoint(request.param, folder / "checkpoint")
    return export_checkpoint(checkpoint, folder / "face.bundle", ExportConfig(faces=1), clips=CLIPS)


def test_parity(bundle: Bundle):
    for precision, allowed in (("fp32", 0.001), ("fp16", 0.05)):
        entry = bundle.precisions[precision]
        assert entry["verdict"] == "accept", entry["reason"]
        for found in entry["parity"].values():
            assert found["finite"] and found["clips"] == CLIPS and found["share_of_clip_deviation"] <= allowed
    assert bundle.precisions["fp16"]["parity"]["clip"]["evaluator"].startswith("rounding reference")


def test_verify(bundle: Bundle):
    report = verify(bundle.path, write=False)
    report.require()
    assert {row.verdict for row in report.rows if row.precision == "fp32"} == {"verified"}


def test_a_stream_answers_as_its_clip(bundle: Bundle):
    sampling = bundle.sampling
    ages = np.rint(pattern_ages(sampling) * sampling.fps).astype(int)
    golden = bundle.golden()
    frames = np.concatenate(list(golden.clips[:5]))  # 80 frames, one second after the other
    deviation = float(np.sqrt(centred_logits(golden.probabilities).var(0).mean()))
    with logoformer.load(bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        with runtime.stream(hop=3, color="rgb") as stream:
            for number, frame in enumerate(frames):
                result = stream.push(frame, number / sampling.fps)
                if result is None:
                    continue
                clip = runtime(frames[number - ages], color="rgb")
                apart = np.abs(centred_logits(result.probabilities[None]) - centred_logits(clip.probabilities[None]))
                assert apart.max() <= 0.001 * deviation
        assert stream.skipped == 0


def test_counts(bundle: Bundle):
    macs = {f"{entry.graph} {entry.precision}": sum(entry.macs.values()) / 1e9 for entry in bundle.graphs}
    counted = bundle.manifest["model"]["complexity"]
    if bundle.manifest["model"]["family"] == "mae-dfer":
        assert counted["parameters"] == 84_878_343 and round(counted["clip_macs"] / 1e9, 2) == 49.65
        assert macs["clip fp32"] <= 41.5 and round(macs["clip fp16"], 2) == 47.04
        assert bundle.precisions["fp32"]["form"]["name"] == "absorbed"
    else:
        assert counted["parameters"] == 18_031_943 and round(counted["clip_macs"] / 1e9, 2) == 8.30
        assert (macs["frame fp32"] + macs["temporal fp32"]) / macs["clip fp32"] < 0.075


def test_kernel_plans(bundle: Bundle, rtx: object):
    found = {name: proof.plan for name, proof in proofs(bundle.path, precisions=["fp16"], sm="sm86").items()}
    mae = bundle.manifest["model"]["family"] == "mae-dfer"
    # (kernels, fused attentions): every attention of the graph
    bars = {"clip": (335, 47), "temporal": (335, 47)} if mae else {"frame": (31, 1), "temporal": (23, 3)}
    for graph, (kernels, fused) in bars.items():
        plan = found[f"{graph} fp16"]
        assert len(plan.kernels) <= kernels and len(plan.with_role("attention")) == fused
        assert not plan.with_role("movement") and not plan.with_role("sync") and not plan.unread


def test_a_bundle_is_opened_from_its_files_alone(bundle: Bundle):
    assert all((Path(bundle.path) / entry.file).stat().st_size == entry.size for entry in bundle.graphs)
