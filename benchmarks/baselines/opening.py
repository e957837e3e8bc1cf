"""Open the chosen baselines; those that cannot run here are skipped with a reason."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from ...bundle import Bundle
from ...errors import LogoformerError
from ..load.closed import Progress
from .contract import (
    COMPILED,
    EAGER,
    NAIVE,
    OPENVINO,
    ORT,
    ORT_CUDA,
    OTHERS,
    PER_FRAME,
    POLYGRAPHY,
    Baseline,
    Inputs,
    Skipped,
    open_ours,
)
from .naive import naive_baseline, per_frame_baseline
from .programs import (
    compiled_baseline,
    eager_model,
    openvino_baseline,
    ort_baseline,
    polygraphy_baseline,
    torch_baseline,
    torch_threads,
)

NEED_GPU = (ORT_CUDA, POLYGRAPHY)


def open_others(
    wanted: Sequence[str],
    bundle: Bundle,
    precision: str,
    threads: int,
    inputs: Inputs,
    closing: contextlib.ExitStack,
    progress: Progress | None = None,
    gpu: str | None = None,
) -> tuple[list[Baseline], list[Skipped]]:
    """Opens the baselines that work here.

    Args:
        wanted: some of `OTHERS`.
        bundle: gives the graph and the architecture.
        precision: of the graphs; torch runs in FP32.
        threads: CPU threads of each.
        inputs: what they are fed.
        closing: frees what they hold, and restores torch's number of threads.
        progress: called before each is opened; compiling takes a minute.
        gpu: name of this machine's GPU; None: it has none, and whoever needs one is left out.

    Returns:
        The baselines, and those left out with the reason.

    Raises:
        LogoformerError: the bundle itself is at fault.
    """
    baselines: list[Baseline] = []
    skipped: list[Skipped] = []
    openers = _openers(bundle, precision, threads, inputs, closing, gpu or "")
    chosen = [name for name in OTHERS if name in wanted]
    for done, name in enumerate(chosen):
        if progress is not None:
            progress(f"opening {name}", done, len(chosen))
        if name in NEED_GPU and gpu is None:
            skipped.append(Skipped(name, "there is no NVIDIA GPU on this machine"))
            continue
        try:
            baselines.append(openers[name]())
        except LogoformerError:
            raise  # the bundle itself is at fault
        except Exception as error:  # another program's failure, of any class: it must not end our run
            skipped.append(Skipped(name, _reason(error)))
    return baselines, skipped


def _openers(
    bundle: Bundle, precision: str, threads: int, inputs: Inputs, closing: contextlib.ExitStack, gpu: str
) -> dict[str, Callable[[], Baseline]]:
    models: list[Any] = []  # one for both torch baselines, made when the first of them is opened

    def model() -> Any:
        if not models:
            closing.enter_context(torch_threads(threads))
            models.append(eager_model(bundle))
        return models[0]

    return {
        ORT: lambda: ort_baseline(bundle, precision, threads, inputs),
        EAGER: lambda: torch_baseline(model(), EAGER, inputs),
        COMPILED: lambda: compiled_baseline(model(), inputs),
        OPENVINO: lambda: openvino_baseline(bundle, precision, threads, inputs),
        NAIVE: lambda: naive_baseline(open_ours(bundle, precision, threads, closing), inputs),
        PER_FRAME: lambda: per_frame_baseline(open_ours(bundle, precision, threads, closing), inputs),
        ORT_CUDA: lambda: ort_baseline(bundle, precision, threads, inputs, ORT_CUDA, gpu),
        POLYGRAPHY: lambda: polygraphy_baseline(bundle, precision, inputs, gpu, closing),
    }


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
