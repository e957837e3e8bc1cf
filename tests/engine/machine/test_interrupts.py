"""Signals that are held back, and handled at a place that takes what their handlers raise."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from logoformer.engine.machine.interrupts import holding_interrupts


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Python's own handler for Ctrl-C, and none for SIGTERM."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_it_comes_when_it_is_asked_for() -> None:
    with holding_interrupts() as handle:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            handle()
        handle()  # once
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_it_comes_at_the_end_at_the_latest_and_in_place_of_an_error() -> None:
    def stopped() -> None:
        with holding_interrupts():
            signal.raise_signal(signal.SIGINT)
            raise ValueError("the build was stopped")

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_that_raises_nothing_is_called_and_the_block_goes_on() -> None:
    seen: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    with holding_interrupts() as handle:
        signal.raise_signal(signal.SIGTERM)
        assert seen == []
        handle()
        assert seen == [signal.SIGTERM]
    assert seen == [signal.SIGTERM]


def test_what_is_not_pythons_handler_and_another_thread_are_left_alone() -> None:
    with holding_interrupts():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    def in_a_thread() -> object:
        with holding_interrupts() as handle:
            handle()
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(in_a_thread).result() is signal.default_int_handler
