"""Choice between copied, mapped and managed memory, tensor by tensor, by measuring.

Where a GPU shares the CPU's memory (a Jetson), page-locked memory that it reads where it is saves a copy, but is slower
to read. Which is faster depends on the board and its power mode, so it is measured there. Managed memory, which both
sides cache, is tried where the host may touch it while the GPU works (cudaDevAttrConcurrentManagedAccess), for it
writes the next picture just then: not on boards that say 0.

A card with memory of its own reads the host's over the bus. Only a small tensor may gain by that, whose copy costs its
start and not its bytes. Those are measured there too, where a run is so short that microseconds matter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from time import perf_counter_ns

from ...errors import MachineError
from .trt_buffers import MANAGED, MAPPED, PINNED, DeviceBuffers, DeviceTensor

_RUNS = 9
_WARM_NS = 500_000_000  # of load before anything is compared: clocks rise
# On a card with memory of its own. In a longer run nobody sees a gain of microseconds, nor does this measurement. It
# takes 0.1 s a tensor at the most; more runs than above, for there is less to be seen.
SMALL = 4096  # bytes
_SHORT_RUNS = 25
_SHORT_NS = 1_000_000
_SHORT_WARM_NS = 50_000_000  # of load at the most, until a run is that short


def choose_memory(
    buffers: DeviceBuffers,
    use: Callable[[], None],
    run: Callable[[], None],
    *,
    shared: bool,
    managed: bool = False,
) -> None:
    """Leaves in the buffers what is faster for each tensor of the host, and frees the rest.

    Args:
        buffers: in use; one tensor at a time is exchanged, as a ring would not fit twice on a small board.
        use: makes the engine work in them as they are now.
        run: one run with all its copies, that is waited for.
        shared: whether the GPU shares the CPU's memory. If not, only small tensors may change, if runs are short.
        managed: try managed memory too.
    """
    names = [n for n, t in buffers.tensors.items() if t.kind == PINNED and (shared or t.size <= SMALL)]
    if shared:
        _warm_up(run)
    elif not names or not _is_short(run):
        return
    for name in names:
        for kind in (MAPPED, MANAGED)[: 1 + managed]:
            _try(buffers, name, kind, use, run, _RUNS if shared else _SHORT_RUNS)


def _warm_up(run: Callable[[], None]) -> None:
    until = perf_counter_ns() + _WARM_NS
    while perf_counter_ns() < until:
        run()


def _is_short(run: Callable[[], None]) -> bool:
    run()  # kernels are loaded, RTX compiles
    now = perf_counter_ns()
    until = now + _SHORT_WARM_NS
    while now < until:
        run()
        started, now = now, perf_counter_ns()
        if now - started <= _SHORT_NS:
            return True
    return False


def _try(
    buffers: DeviceBuffers, name: str, kind: str, use: Callable[[], None], run: Callable[[], None], runs: int
) -> None:
    """Exchanges a tensor's memory for that of another kind, if that is faster."""
    chosen = buffers.tensors[name]
    with contextlib.suppress(MachineError):  # no room to try it
        loser = rival = buffers.allocate(chosen.spec, kind)
        try:
            if _is_faster(buffers, name, rival, chosen, use, run, runs):
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
    runs: int,
) -> bool:
    """By medians of runs in turns; each comes first every other time, for clocks may still rise."""
    times: tuple[list[int], list[int]] = ([], [])
    for number in range(runs):
        turns = list(zip((other, one), times, strict=True))
        for tensor, taken in turns[:: -1 if number % 2 else 1]:
            buffers.tensors[name] = tensor
            use()
            run()  # the addresses are new
            started = perf_counter_ns()
            run()
            taken.append(perf_counter_ns() - started)
    medians = [sorted(taken)[runs // 2] for taken in times]
    return medians[1] < medians[0]
