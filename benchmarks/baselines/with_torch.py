"""PyTorch, eager and compiled: the bundle's architecture with random weights, because a bundle holds none for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...bundle import Bundle
from .contract import COMPILED, EAGER, Answer, Baseline, Inputs

COMPILE_TOLERANCE = 1e-3  # between the compiled model's probabilities and the eager one's


def torch_baseline(model: Any, name: str, inputs: Inputs) -> Baseline:
    """A torch module from the same uint8 clip: scaling and layout, forward in inference mode, softmax."""
    import torch

    from ...model.networks.logoformer import to_tensor

    def answer(index: int) -> Answer:
        with torch.inference_mode():
            logits = model(to_tensor(inputs.clip(index)[None]))
            return Answer(torch.softmax(logits, -1)[0].numpy(), {})

    how = "LogoFormer in eval and inference mode" + (", compiled" if name == COMPILED else "")
    what = f"{how}: uint8 clip -> float, /255 -> probabilities; random weights (time does not depend on them)"
    return Baseline(name, what, "fp32", False, answer, f"torch {torch.__version__} CPU")


def eager_model(bundle: Bundle) -> Any:
    """The bundle's architecture with random weights; a bundle holds no torch weights."""
    import torch

    from ...model.networks.config import ModelConfig
    from ...model.networks.logoformer import LogoFormer

    # The index keeps derived figures beside the configuration; they do not build a model.
    config = {name: value for name, value in bundle.manifest["model"].items() if name != "complexity"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LogoFormer(ModelConfig.from_json(config)).eval()


def compiled_baseline(model: Any, inputs: Inputs) -> Baseline:
    """The same model through `torch.compile`, compiled here and compared with the eager one.

    Raises:
        RuntimeError: its answer is not the eager one's.
        Exception: whatever torch raises where its compiler cannot work.
    """
    import torch

    baseline = torch_baseline(torch.compile(model, dynamic=False), COMPILED, inputs)
    want = torch_baseline(model, EAGER, inputs).answer(0).probabilities
    difference = float(np.abs(baseline.answer(0).probabilities - want).max())
    if difference > COMPILE_TOLERANCE:
        raise RuntimeError(f"its probabilities differ by {difference:.2g} from eager torch's")
    return baseline


@contextlib.contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Sets torch's number of threads, and gives the old one back."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
