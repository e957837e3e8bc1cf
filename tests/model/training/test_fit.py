"""The loop: two processes as one, a kill as if it had not been, and what each option of a recipe does."""

from __future__ import annotations

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from logoformer.errors import BadInputError, UsageError
from logoformer.model.checkpoint import load_checkpoint
from logoformer.model.data.augment import draw_augmentations
from logoformer.model.data.clips import at_random, random_pick
from logoformer.model.networks.logoformer.model import LogoFormer
from logoformer.model.networks.network import to_tensor
from logoformer.model.training import fit as fitting
from logoformer.model.training.distributed import World
from logoformer.model.training.fit import Fit, load_state, state_path
from logoformer.model.training.recipe import TrainConfig
from logoformer.model.training.train import Start, train

SAM = {"steps": 20, "batch": 8, "optimizer": "sgd", "learning_rate": 0.05, "sam_rho": 0.05, "clip_norm": 0.0, "seed": 4}
ALONE = World(0, 1, torch.device("cpu"))


def weights(folder) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder)[0].state_dict()


def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """The largest difference of learnable weights."""
    names = [n for n in a if "running" not in n and "tracked" not in n]
    return max(float((a[name] - b[name]).abs().max()) for name in names)


def learned(before: LogoFormer, after: dict[str, torch.Tensor]) -> float:
    return apart(before.state_dict(), after)


# ------------------------------------------------------------------------------------------------------- two processes
@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "bound"),
    [({}, 1e-5), ({"freeze_bn": True, "sam_sync": True}, 1e-6), ({"sam_adaptive": True, "compact": 0.3}, 1e-5)],
    ids=["m-SAM", "frozen BatchNorm, one climb for all", "adaptive, compact loss"],
)
def test_two_processes_equal_one_that_accumulates_the_same_shards(tmp_path, start_training, more, bound):
    recipe = {**SAM, **more}
    two = start_training(tmp_path / "two", recipe, processes=2, clips=13)
    one = start_training(tmp_path / "one", {**recipe, "accumulate": 2}, clips=13)
    assert [two.wait(240), one.wait(240)] == [0, 0]
    a, b = weights(tmp_path / "two"), weights(tmp_path / "one")
    torch.manual_seed(4)
    start = LogoFormer(load_checkpoint(tmp_path / "one")[0].config)
    assert learned(start, b) > 0.01  # it went somewhere
    assert apart(a, b) <= bound
    results = [json.loads((tmp_path / f"{name}.result.json").read_text()) for name in ("two", "one")]
    assert results[0]["processes"] == 2
    # 13 clips on two processes: none padded, none counted twice
    assert results[0]["metrics"]["clips"] == 13


def test_metrics_of_two_processes_are_those_of_one_on_an_odd_number_of_clips(tmp_path, start_training):
    recipe = {"steps": 6, "batch": 8, "seed": 1, "freeze_bn": True, "optimizer": "sgd", "learning_rate": 0.01}
    two = start_training(tmp_path / "two", recipe, processes=2, clips=7)
    one = start_training(tmp_path / "one", {**recipe, "accumulate": 2}, clips=7)
    assert [two.wait(240), one.wait(240)] == [0, 0]
    results = [json.loads((tmp_path / f"{name}.result.json").read_text())["metrics"] for name in ("two", "one")]
    assert results[0] == results[1] and results[0]["clips"] == 7


def test_synchronised_sam_with_frozen_batchnorm_is_plain_sam(small, tmp_path):
    def run(name, **more):
        config = TrainConfig(**{**SAM, "freeze_bn": True, **more})
        train(config, replace(small.SMALL, dropout=0.0), small.TwoColors(), small.TwoColors(), tmp_path / name)
        return weights(tmp_path / name)

    plain = run("plain")
    assert apart(run("synchronised", accumulate=4, sam_sync=True), plain) <= 1e-6
    assert apart(run("m-SAM", accumulate=4), plain) > 1e-5  # what the naive comparison would have taken for a fault


def test_the_second_pass_leaves_running_statistics_alone(small, tmp_path):
    def run(rho):
        torch.manual_seed(0)
        model = LogoFormer(replace(small.SMALL, dropout=0.0))
        config = TrainConfig(steps=1, batch=8, optimizer="sgd", learning_rate=1e-9, sam_rho=rho, clip_norm=0.0)
        Fit(model, config, small.TwoColors(), ALONE, tmp_path / "x", resume=False).run(None, None)
        return fitting.statistics(model), model.trunk.bn1.num_batches_tracked

    (plain, counted), (sam, counted_sam) = run(0.0), run(0.5)
    assert counted == counted_sam == 1
    assert all(torch.equal(a, b) for a, b in zip(plain, sam, strict=True))


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    assert [part.tolist() for part in World(1, 2, torch.device("cpu")).share(np.arange(8), 2)] == [[4, 5], [6, 7]]
    with pytest.raises(UsageError, match=r"9 clips cannot be split evenly over 2 processes x 2 parts"):
        World(0, 2, torch.device("cpu")).share(np.arange(9), 2)


@pytest.mark.parametrize("kind", ["shift", "crop", "none"])
def test_every_clip_of_a_share_gets_the_look_that_was_drawn_for_it(small, tmp_path, kind):
    """The second of two processes, its share in two parts; the first step is skipped as after a resume."""
    config, source = TrainConfig(steps=4, batch=8, accumulate=2, augment=kind, seed=3), small.TwoColors()
    second = World(1, 2, torch.device("cpu"))
    fit = Fit(LogoFormer(small.SMALL), config, source, second, tmp_path / "x", resume=False)
    fit.losses.append(0.0)
    seen = []
    for _, micro, _ in fit._batches():
        seen += [clips for clips, _ in micro]
        fit.losses.append(0.0)
    expected = []
    for epoch in (0, 1):
        rng = np.random.default_rng([3, epoch])
        groups = at_random(16, 8, rng)
        changes = draw_augmentations(kind, groups, 32, (3, epoch), rng)
        pick = random_pick(small.SMALL.sampling, 3, epoch)
        for group, shown in zip(groups, changes, strict=True):
            read = [one(source, int(i), pick(int(i), 10)) for i, one in zip(group, shown, strict=True)]
            expected += [to_tensor(np.stack(read[4:6])), to_tensor(np.stack(read[6:]))]
    assert len(seen) == 6 and all(torch.equal(a, b) for a, b in zip(seen, expected[2:], strict=True))


# --------------------------------------------------------------------------------------------------------------- kills
@pytest.mark.slow
def test_a_killed_training_resumes_bit_for_bit(small, tmp_path, start_training):
    """Killed with no chance to clean up, in the middle of an epoch; dropout, SAM, averages and selection on."""
    recipe = {
        "steps": 230, "batch": 4, "sam_rho": 0.05, "ema": 0.9, "select": "validation", "validation_share": 0.2,
        "seed": 2,
    }  # fmt: skip
    whole = start_training(tmp_path / "whole", recipe, dropout=0.2)
    assert whole.wait(240) == 0
    killed = start_training(tmp_path / "killed", recipe, dropout=0.2)
    for line in killed.stdout:
        if line.split() == ["train", "151"]:
            killed.send_signal(signal.SIGKILL)
            break
    assert killed.wait(60) == -signal.SIGKILL
    assert state_path(tmp_path / "killed").exists() and not (tmp_path / "killed").exists()
    again = start_training(tmp_path / "killed", recipe, dropout=0.2, resume=True)
    first = again.stdout.readline().split()
    assert again.communicate(timeout=240) and again.returncode == 0
    assert first == ["train", "101"]  # not from the beginning
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert files[0] == files[1]
    assert (tmp_path / "whole.log.jsonl").read_bytes() == (tmp_path / "killed.log.jsonl").read_bytes()
    assert not state_path(tmp_path / "killed").exists()


def test_another_recipe_or_no_state_is_not_resumed(small, tmp_path, monkeypatch):
    with pytest.raises(BadInputError, match="no interrupted training"):
        load_state(tmp_path / "x", {})
    monkeypatch.setattr(fitting, "SAVE_EVERY", 2)

    def stop(stage, done, total):
        if done == 3:
            raise KeyboardInterrupt

    config = TrainConfig(steps=6, batch=4)
    with pytest.raises(KeyboardInterrupt):
        train(config, small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / "x", stop)
    go_on = Start(resume=True)
    with pytest.raises(BadInputError, match="had another recipe"):
        train(replace(config, seed=1), small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / "x", start=go_on)
    with pytest.raises(BadInputError, match="had another data"):
        train(config, small.SMALL, small.TwoColors(12), small.TwoColors(), tmp_path / "x", start=go_on)
    state = load_state(tmp_path / "x", {})
    torch.save({**state, "trunk": {"sha256": "0" * 64, "color": "rgb"}}, state_path(tmp_path / "x"))
    with pytest.raises(BadInputError, match="had another trunk"):  # the checkpoint would say that it began at random
        train(config, small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / "x", start=go_on)
    torch.save(state, state_path(tmp_path / "x"))
    train(config, small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / "x", start=go_on)


# ------------------------------------------------------------------------------------------------------------- options
def test_every_option_trains_a_few_steps(small, tmp_path):
    for number, more in enumerate(
        [
            {"optimizer": "sgd", "schedule": "step", "warmup": 0.0},
            {"precision": "bf16", "sam_rho": 0.05},
            {"precision": "fp16", "sam_rho": 0.05, "accumulate": 2},
            {"balanced": True, "label_smoothing": 0.1, "compact": 0.3},
            {"augment": "crop", "ema": 0.99, "select": "test-fold"},
            {"steps": 0, "epochs": 2, "select": "validation", "freeze_bn": True},
        ]
    ):
        config = TrainConfig(**{"steps": 3, "batch": 4, **more})
        done = train(config, small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / str(number))
        assert np.isfinite(done.final_loss)
        recipe = load_checkpoint(done.checkpoint)[1]["extra"]["recipe"]
        assert TrainConfig(**recipe) == config


def test_the_fields_habit_says_so(small, tmp_path):
    config = TrainConfig(steps=8, batch=4, select="test-fold")
    done = train(config, small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / "x")
    assert "the very clips that are scored" in done.selected
    assert load_checkpoint(done.checkpoint)[1]["extra"]["selected"] == done.selected


def test_selection_keeps_the_best_epoch_and_not_the_last(small, tmp_path, monkeypatch):
    from logoformer.model.training import fit

    scores, seen = iter([0.2, 0.9, 0.4]), []
    whole = fit.evaluate_together

    def scored(model, source, world):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return replace(whole(model, source, world), war=next(scores))

    monkeypatch.setattr(fit, "evaluate_together", scored)
    config = TrainConfig(steps=0, epochs=3, batch=4, select="test-fold")
    done = train(config, small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / "x")
    kept = weights(done.checkpoint)
    assert len(seen) == 3
    assert all(torch.equal(kept[name], seen[1][name]) for name in kept)
    assert not all(torch.equal(kept[name], seen[2][name]) for name in kept)


def test_a_trunk_is_loaded_before_the_first_step(small, tmp_path):
    torch.manual_seed(9)
    donor = LogoFormer(small.SMALL).trunk.state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in donor.items()}}, tmp_path / "trunk.pth.tar")
    config = TrainConfig(steps=1, batch=4, optimizer="sgd", learning_rate=1e-12, weight_decay=0.0)
    start = Start(trunk=tmp_path / "trunk.pth.tar")
    done = train(config, small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / "x", start=start)
    assert done.trunk.matched == done.trunk.wanted
    assert torch.equal(weights(done.checkpoint)["trunk.conv1.weight"], donor["conv1.weight"])
    assert load_checkpoint(done.checkpoint)[1]["extra"]["trunk"]["prefix"] == "module."


def test_the_average_takes_the_statistics_that_all_processes_agreed_on(small, tmp_path):
    class Others(World):
        def mean_(self, tensors):
            for tensor in tensors:
                tensor += 1.0  # what the other process saw

    config = TrainConfig(steps=2, batch=8, ema=0.5, augment="none")
    model = LogoFormer(small.SMALL)
    fit = Fit(model, config, small.TwoColors(), Others(0, 1, torch.device("cpu")), tmp_path / "x", resume=False)
    fit.run(None, None)
    assert fit.scored is not model
    for own, averaged in zip(fitting.statistics(model), fitting.statistics(fit.scored), strict=True):
        assert torch.equal(own, averaged)
