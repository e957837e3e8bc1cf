"""The run on a real bundle: real graphs, real streaming, torch beside it."""

from __future__ import annotations

import contextlib
import shutil

import numpy as np
import pytest
from logoformer.benchmarks.baselines import contract as p
from logoformer.benchmarks.baselines import programs
from logoformer.benchmarks.baselines.programs import Opening, open_others
from logoformer.benchmarks.bench import BenchConfig, bench
from logoformer.benchmarks.report.terminal import report_text
from logoformer.bundle import Bundle
from logoformer.model.networks.network import to_tensor

SAMPLES = {"iterations": 20, "warmup": 2, "threads": 1, "roofline": False}


def test_fp32_beside_onnxruntime_and_torch(family_bundle):
    report = bench(BenchConfig(family_bundle, others=(p.ORT, p.EAGER), precision="fp32", **SAMPLES))
    assert [row.name for row in report.rows] == [p.CLIP, p.CLIP_AGAIN, p.STREAM, p.STREAM_AGAIN, p.ORT, p.EAGER]
    assert {row.summary.n for row in report.rows} == {20}
    assert report.accuracy[0].agreement == 1
    assert max(report.accuracy[0].clip_share, report.accuracy[0].pair_share) <= 0.001
    assert report.accuracy[0].stream_share <= 0.002
    assert "stream / clip" in report_text(report)


def test_fp16_says_that_torch_runs_otherwise(untrained_bundle):
    report = bench(BenchConfig(untrained_bundle, others=(p.EAGER,), precision="fp16", **SAMPLES))
    assert {row.name: row.precision for row in report.rows}[p.STREAM] == "fp16"
    assert report.row(p.EAGER).precision == "fp32"
    assert any("mixes two causes" in note for note in report.notes)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
def test_torch_compile_answers_as_eager_torch(untrained_bundle, monkeypatch):
    """With torch's real compiler, on a model that it compiles in seconds."""
    import torch

    class Means(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(3, 7)

        def forward(self, clip: torch.Tensor) -> torch.Tensor:  # [1, T, 3, S, S]
            return self.head(torch.relu(clip.mean((1, 3, 4))))

    torch.manual_seed(0)
    model = Means().eval()
    monkeypatch.setattr(programs, "_eager_model", lambda _: model)
    bundle = Bundle(untrained_bundle)
    inputs = p.Inputs.of(bundle)
    with contextlib.ExitStack() as closing:
        found, skipped = open_others((p.COMPILED,), Opening(bundle, "fp32", 1, inputs, closing))
        assert not skipped
        for index in range(2):
            with torch.inference_mode():
                want = torch.softmax(model(to_tensor(inputs.clip(index)[None])), -1)[0].numpy()
            np.testing.assert_allclose(found[0].answer(index).probabilities, want, atol=1e-5)
    assert found[0].name == p.COMPILED and "compiled" in found[0].what
