"""Training logs: scores of every epoch, event files that TensorBoard reads, one writer alone."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from logoformer.errors import MachineError
from logoformer.model.training import fit as fitting
from logoformer.model.training.log import LogOptions, TrainLog
from logoformer.model.training.metrics import uar_war
from logoformer.model.training.recipe import TrainConfig
from logoformer.model.training.step import Stepper
from logoformer.model.training.train import Start, train


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard would show."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard here")
    events = loader.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_every_epoch_and_every_score_stands_in_the_log(small, tmp_path):
    notes = []
    config = TrainConfig(steps=0, epochs=3, batch=4, select="validation", validation_share=0.25)
    done = train(
        config,
        small.SMALL,
        small.TwoColors(),
        small.TwoColors(12),
        tmp_path / "x",
        logs=LogOptions(note=notes.append),
    )
    found = lines(done.log)
    assert [(e["step"], e["epoch"]) for e in found if "train_uar" in e] == [(3, 0), (6, 1), (9, 2)]
    assert [(e["step"], e["epoch"]) for e in found if "validation_uar" in e] == [(3, 0), (6, 1), (9, 2)]
    assert found[-1] == {"step": 9, "epoch": 2, "test_uar": done.metrics.uar, "test_war": done.metrics.war}
    first = next(e for e in found if "validation_war" in e)
    shown = f"validation UAR {first['validation_uar']:.3f} WAR {first['validation_war']:.3f}"
    assert notes[0].startswith("loss ") and any(shown in note for note in notes) and "test UAR" in notes[-1]


@pytest.mark.parametrize("more", [{}, {"sam_rho": 0.05}, {"sam_rho": 0.05, "sam_sync": True}, {"accumulate": 2}])
def test_an_epochs_answers_are_counted_once_each_at_the_weights_of_their_step(small, tmp_path, monkeypatch, more):
    """Counted again by hand, in a step of its own: the first pass only, with SAM too."""
    counts, step = [], Stepper.step

    def counting(self, micro_batches):
        counts.append(torch.zeros((7, 7), dtype=torch.int64))
        for clips, labels in micro_batches:
            with torch.no_grad():
                for label, answer in zip(labels, self.model(clips).argmax(1), strict=True):
                    counts[-1][label, answer] += 1
        return step(self, micro_batches)

    monkeypatch.setattr(Stepper, "step", counting)
    config = TrainConfig(steps=0, epochs=2, batch=4, freeze_bn=True, optimizer="sgd", learning_rate=0.05, **more)
    done = train(config, small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / "x")
    logs = [(e["train_uar"], e["train_war"]) for e in lines(done.log) if "train_uar" in e]
    epochs = [sum(counts[:4]), sum(counts[4:])]
    assert [int(epoch.sum()) for epoch in epochs] == [16, 16] and not torch.equal(*epochs)
    assert logs == [uar_war(epoch.numpy()) for epoch in epochs]


def test_event_files_hold_the_same_figures_and_go_on_after_a_resume(small, tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "SAVE_EVERY", 5)
    config = TrainConfig(steps=16, batch=4, select="test-fold")
    logs = LogOptions(tensorboard=tmp_path / "events")

    def stop(stage, done, total):
        if done == 13:
            raise KeyboardInterrupt

    words = (config, small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / "x")
    with pytest.raises(KeyboardInterrupt):
        train(*words, stop, logs=logs)
    done = train(*words, start=Start(resume=True), logs=logs)
    shown, logs = scalars(tmp_path / "events"), lines(done.log)
    assert set(shown) == {"loss", "learning_rate", "train_uar", "train_war", "test_uar", "test_war"}
    for tag, points in shown.items():
        expected = [(e["step"], e[tag]) for e in logs if tag in e]
        assert [step for step, _ in points] == [step for step, _ in expected], tag
        assert [value for _, value in points] == pytest.approx([value for _, value in expected], abs=1e-6), tag


def test_only_the_first_process_writes(tmp_path):
    log = TrainLog(tmp_path / "x.log.jsonl", LogOptions(tensorboard=tmp_path / "events"), first=False)
    log.begin(0)
    log.write(1, 0, {"loss": 1.0})
    log.note({"loss": 1.0})
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_a_link_that_takes_the_place_of_the_log_meanwhile_is_not_followed(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "x.log.jsonl").symlink_to(tmp_path / "mine")
    with pytest.raises(MachineError, match="could not be written"):
        TrainLog(tmp_path / "x.log.jsonl", LogOptions(), first=True).begin(0)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_missing_tensorboard_is_said_before_anything_is_read(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    logs, config = LogOptions(tensorboard=tmp_path / "events"), TrainConfig(steps=1, batch=4)
    with pytest.raises(MachineError, match="needs the Python package tensorboard") as caught:
        train(config, small.SMALL, small.TwoColors(), small.TwoColors(), tmp_path / "x", logs=logs)
    assert caught.value.next == "pip install 'logoformer[tensorboard]'"
    assert not (tmp_path / "x").exists()
