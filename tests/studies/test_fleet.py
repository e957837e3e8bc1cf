"""Fleets in simulated time: nothing is lost uncounted, and failures cost what they must."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from logoformer.bundle import Bundle
from logoformer.errors import UsageError
from logoformer.studies.serving.fleet import due_answers, simulate
from logoformer.studies.serving.simulated import FleetConfig, Outage

QUIET = FleetConfig(cameras=4, hosts=2, seconds=20.0)


@pytest.fixture
def bundle(untrained_bundle: Path) -> Bundle:
    return Bundle(untrained_bundle)


def whole(run) -> bool:
    return run.frames == run.worked + run.dropped


def test_an_idle_fleet_answers_everything_at_once(bundle):
    run = simulate(bundle, QUIET)
    assert whole(run) and run.dropped == run.reopened == run.lost_requests == 0 and run.hop == 4
    assert run.frames == 4 * 20 * 25 and run.answers_of == due_answers(bundle, QUIET) and run.answers > 4 * 100
    # Alone on its host: a frame, an answer and the network. With a second one in line before it, twice the work.
    assert run.age_p50_ms == pytest.approx(6.6) and 6.6 < run.age_max_ms <= 2 * 6 + 0.6
    assert 0.85 * QUIET.load < run.busy <= QUIET.load  # the first span has no answers


def test_too_much_widens_the_hop_and_then_drops_frames_and_ages_stay_bounded(bundle):
    more = replace(QUIET, frame_ms=10.0, answer_ms=50.0)  # 113 % at the hop that was asked for
    wide = simulate(bundle, more)
    assert more.load > 1 and whole(wide)
    assert wide.hop > 4 and wide.answers < sum(due_answers(bundle, more)) and wide.age_p99_ms < 300
    most = simulate(bundle, replace(QUIET, frame_ms=30.0, answer_ms=150.0))
    assert whole(most) and most.dropped > most.frames / 3 and most.age_p99_ms < 1500


def test_a_short_outage_loses_no_answer_and_a_long_one_those_of_its_time(bundle):
    due = sum(due_answers(bundle, QUIET))
    short = simulate(bundle, replace(QUIET, outages=(Outage(0, 10.0, 10.1),)))
    assert whole(short) and short.reopened == 2 and short.answers >= due - 2
    long = simulate(bundle, replace(QUIET, outages=(Outage(0, 10.0, 14.0),)))
    assert whole(long) and long.dropped > 2 * 3 * 25 * 0.8
    # Two of four cameras without answers for four seconds and until their rings are full again.
    span_s = bundle.sampling.span_s
    missing = due - long.answers
    assert 2 * (4.0 - 1) * 25 / 4 < missing < 2 * (4.0 + span_s + 1) * 25 / 4
    assert long.age_p99_ms < 100


def test_what_a_host_computed_when_it_failed_is_lost_and_sent_again(bundle):
    slow = replace(QUIET, cameras=1, hosts=1, frame_ms=30.0, answer_ms=0.0, outages=(Outage(0, 10.03, 10.05),))
    run = simulate(bundle, slow)
    assert whole(run) and run.lost_requests == 1 and run.reopened == 1


def test_a_fleet_that_does_not_fit_is_refused(bundle):
    with pytest.raises(UsageError, match="places"):
        simulate(bundle, replace(QUIET, cameras=9, hosts=2))
    with pytest.raises(UsageError):
        FleetConfig(0, 1)
    with pytest.raises(UsageError):
        FleetConfig(1, 1, fps=0)
