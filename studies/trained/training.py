"""A short training of `base` on synthetic faces, for two CPU cores.

From random weights and labels alone `base` would take hours. What is drawn is known better than by its label: the trunk
first learns the muscle movements that single frames show, then the blocks learn expressions from its frozen maps.
Random weights are a poor judge of INT8, and this network is a fair one: it answers well over chance, and its margins
are a trained network's. An interrupted training goes on where it was; a finished one is not done again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...bundle.files import atomic_path
from ...model.synthetic.expressions import MOVEMENTS
from ...model.synthetic.recordings import FPS, SyntheticClips, span_actions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...model.data.clips import Progress
    from ...model.networks.network import Network

Indices = npt.NDArray[np.int64]
Examples = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # what goes in, what is wanted
SEED = 0
PEOPLE = range(6_000_000, 6_000_300)  # in no data set, and in none of the studies' held-out clips
SAVE_EVERY = 25  # steps


@dataclass(frozen=True)
class Stage:
    """One of the two stages.

    Attributes:
        examples: frames, or clips, that are drawn.
        batch: of them in a step.
        steps: of AdamW, one cycle of the learning rate over all of them.
        learning_rate: at its highest.
    """

    examples: int
    batch: int
    steps: int
    learning_rate: float


FRAMES = Stage(3200, 32, 360, 1e-3)
CLIPS = Stage(560, 16, 80, 5e-4)


def train_base(folder: Path, progress: Progress) -> Path:
    """Trains what the folder lacks.

    Args:
        folder: of what is half done and, in the end, of the checkpoint.
        progress: called with (stage, done, total).

    Returns:
        The checkpoint; its configuration file says how it was trained and how long that took.
    """
    import torch

    from ...model.checkpoint import save_checkpoint
    from ...model.networks.configs import preset
    from ...model.networks.families import build_network

    checkpoint = folder / "checkpoint"
    if checkpoint.exists():
        return checkpoint
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    model = build_network(preset("base"))
    took = {"frames": train_trunk(model, folder, progress), "clips": train_blocks(model, folder, progress)}
    save_checkpoint(checkpoint, model, {"short_training": {**took, "seed": SEED}})
    return checkpoint


def train_trunk(model: Network, folder: Path, progress: Progress) -> dict[str, Any]:
    """Regresses muscle movements from single frames; the trunk keeps what it learned."""
    import torch
    from torch import nn

    trunk, side = model.get_submodule("trunk"), model.config.image_size
    trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learning = nn.ModuleDict({"trunk": trunk, "head": nn.Linear(512, len(MOVEMENTS))})

    def loss_of(picked: Indices, data: Examples) -> Tensor:
        pixels = torch.from_numpy(data[0][picked]).permute(0, 3, 1, 2).float() / 255.0
        pixels[: len(pixels) // 2] = pixels[: len(pixels) // 2].flip(3)  # what is drawn moves alike on both sides
        with torch.autocast("cpu", torch.bfloat16):
            pooled = trunk(pixels.contiguous(memory_format=torch.channels_last)).mean((2, 3))
        found: Tensor = (learning["head"](pooled.float()) - torch.from_numpy(data[1][picked])).square().mean()
        return found

    return run_stage("frames", FRAMES, learning, lambda: draw_frames(side, progress), loss_of, folder, progress)


def draw_frames(side: int, progress: Progress) -> Examples:
    """Single frames uint8 `[N, S, S, 3]` and their movements float32 `[N, M]`, two of each clip."""
    source, random = SyntheticClips(SEED, PEOPLE, 7, side), np.random.default_rng(SEED)
    frames, movements = [], []
    for done, index in enumerate(random.permutation(len(source))[: FRAMES.examples // 2]):
        progress("draw frames", done, FRAMES.examples // 2)
        recording = source.recording(int(index))
        at = np.sort(random.integers(0, recording.count, 2))
        tau = (2 * at + 1 - recording.count) / (2.0 * FPS)
        frames.append(recording.frames(at, side))
        movements.append(span_actions(recording.spans, recording.motion, at, tau))
    return np.concatenate(frames), np.concatenate(movements).astype(np.float32)


def train_blocks(model: Network, folder: Path, progress: Progress) -> dict[str, Any]:
    """Trains everything behind the trunk on the maps that it gives; the trunk stays as it is."""
    import torch

    trunk = model.get_submodule("trunk")
    behind = torch.nn.ModuleDict({name: part for name, part in model.named_children() if name != "trunk"})
    for name in ("pos_spatial", "pos_temporal", "cls"):
        behind.register_parameter(name, model.get_parameter(name))

    def loss_of(picked: Indices, data: Examples) -> Tensor:
        maps = torch.from_numpy(data[0][picked]).float()  # [B, T, C, h, w]
        trunk.eval()
        with torch.autocast("cpu", torch.bfloat16):
            rows = model.get_submodule("project")(maps.flatten(0, 1)).flatten(2).transpose(1, 2)  # [B*T, h*w, d]
            logits = model.head(model.encode(rows.unflatten(0, maps.shape[:2])))
        return torch.nn.functional.cross_entropy(logits.float(), torch.from_numpy(data[1][picked]))

    return run_stage("clips", CLIPS, behind, lambda: trunk_maps(model, progress), loss_of, folder, progress)


def trunk_maps(model: Network, progress: Progress) -> Examples:
    """The trunk's maps of some clips, float16 `[N, T, C, h, w]`, and their labels."""
    import torch

    from ...calibration.choose import turns
    from ...clips import random_indices
    from ...model.networks.network import to_tensor

    c = model.config
    source, random = SyntheticClips(SEED, PEOPLE, 7, c.image_size), np.random.default_rng(SEED)
    labels = [source.label(index) for index in range(len(source))]
    picked = turns(labels, CLIPS.examples, SEED)
    trunk, maps = model.get_submodule("trunk").eval(), []
    for done, index in enumerate(picked):
        progress("maps of the trunk", done, len(picked))
        clip = to_tensor(source.frames(index, random_indices(source.count(index), c.sampling, random))[None])[0]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            maps.append(trunk((clip - model.mean) / model.std).half().numpy())
    return np.stack(maps), np.array([labels[index] for index in picked], np.int64)


def run_stage(
    name: str,
    stage: Stage,
    learning: nn.Module,
    examples: Callable[[], Examples],
    loss_of: Callable[[Indices, Examples], Tensor],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Takes the steps of a stage that are left, and says how long all of them took.

    Args:
        name: of its files in the folder.
        stage: how.
        learning: every parameter that is trained, with its buffers.
        examples: draws what it learns from, once; kept in the folder.
        loss_of: the loss of some examples.
        folder: for the examples and the state.
        progress: called with (stage, done, total).
    """
    import torch

    began, cpu = time.perf_counter(), time.process_time()
    folder.mkdir(parents=True, exist_ok=True)
    kept, saved = folder / f"{name}.npz", folder / f"{name}.state.pt"
    if not kept.exists():
        found = examples()
        with atomic_path(kept) as part, part.open("wb") as file:
            np.savez(file, *found)
    with np.load(kept) as file:
        data = (file["arr_0"], file["arr_1"])
    optimizer = torch.optim.AdamW(learning.parameters(), lr=stage.learning_rate, weight_decay=0.05)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, stage.learning_rate, total_steps=stage.steps, pct_start=0.2)
    parts: dict[str, Any] = {"learning": learning, "optimizer": optimizer, "cycle": cycle}
    state: dict[str, Any] = {"losses": [], "duration_s": 0.0, "cpu_s": 0.0}
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        for key, part in parts.items():
            part.load_state_dict(state[key])
    random = np.random.default_rng(SEED)
    order = np.concatenate(
        [random.permutation(len(data[0])) for _ in range(stage.steps * stage.batch // len(data[0]) + 1)]
    )
    learning.train()
    for step in range(len(state["losses"]), stage.steps):
        loss = loss_of(order[step * stage.batch : (step + 1) * stage.batch], data)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learning.parameters(), 1.0)
        optimizer.step()
        cycle.step()
        state["losses"].append(float(loss.detach()))
        progress(f"{name}: loss {np.mean(state['losses'][-10:]):.3f}", step, stage.steps)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == stage.steps:
            now = {"duration_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
            whole = {key: state[key] + value for key, value in now.items()}
            with atomic_path(saved) as part_path:
                torch.save(
                    {k: p.state_dict() for k, p in parts.items()} | {"losses": state["losses"]} | whole, part_path
                )
    state = torch.load(saved, weights_only=True)
    tenth = max(1, stage.steps // 10)
    return {
        **asdict(stage),
        "final_loss": float(np.mean(state["losses"][-tenth:])),
        "duration_s": state["duration_s"],
        "cpu_s": state["cpu_s"],
    }
