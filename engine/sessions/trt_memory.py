"""Choice between copied, mapped and managed memory, tensor by tensor, by measuring.

Where a GPU shares the CPU's memory (a Jetson), page-locked memory that it reads where it is saves a copy, but is slower
to read. Which is faster depends on the board and its power mode, so it is measured there. Managed memory, which both
sides cache, is tried where the host may touch it while the GPU works (cudaDevAttrConcurrentManagedAccess), for it
writes the next picture just then: not on boards that say 0.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from time import perf_counter_ns

from ...errors import MachineError
from .trt_buffers import MANAGED, MAPPED, PINNED, DeviceBuffers, DeviceTensor

_RUNS = 9
_WARM_NS = 500_000_000  # of load before anything is compared: clocks rise


def choose_memory(
    buffers: DeviceBuffers,
    use: Callable[[], None],
    run: Callable[[], None],
    *,
    managed: bool = False,
) -> None:
    """Leaves in the buffers what is faster for each tensor of the host, and frees the rest.

    Args:
        buffers: in use; one tensor at a time is exchanged, as a ring would not fit twice on a small board.
        use: makes the engine work in them as they are now.
        run: one run with all its copies, that is waited for.
        managed: try managed memory too.
    """
    until = perf_counter_ns() + _WARM_NS
    while perf_counter_ns() < until:
        run()
    for name, pinned in [(name, tensor) for name, tensor in buffers.tensors.items() if tensor.kind == PINNED]:
        chosen = pinned
        for kind in (MAPPED, MANAGED)[: 1 + managed]:
            with contextlib.suppress(MachineError):  # no room to try it
                loser = rival = buffers.allocate(pinned.spec, kind)
                try:
                    if _is_faster(buffers, name, rival, chosen, use, run):
                        chosen, loser = rival, chosen
                finally:
                    buffers.tensors[name] = chosen
                    use()
                    buffers.release(loser)


def _is_faster(
    buffers: DeviceBuffers,
    name: str,
    one: DeviceTensor,
    other: DeviceTensor,
    use: Callable[[], None],
    run: Callable[[], None],
) -> bool:
    """By medians of runs in turns."""
    times: tuple[list[int], list[int]] = ([], [])
    for _ in range(_RUNS):
        for tensor, taken in zip((other, one), times, strict=True):
            buffers.tensors[name] = tensor
            use()
            run()  # the addresses are new
            started = perf_counter_ns()
            run()
            taken.append(perf_counter_ns() - started)
    medians = [sorted(taken)[_RUNS // 2] for taken in times]
    return medians[1] < medians[0]
