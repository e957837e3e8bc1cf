"""Waiting frames: order, bounds, fairness, and what a dropped frame had to say."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interrupting import interrupted, within
from logoformer.camera.answers.contract import FaceCrop, FaceFrame
from logoformer.camera.pipeline.inboxes import FILE_DEPTH, Inboxes

PIXELS = np.zeros((2, 2, 3), np.uint8)


def frame(index: int, faces: tuple[int, ...] = (), resets: tuple[int, ...] = (), gone: tuple[int, ...] = ()):
    crops = tuple(FaceCrop(face, (0, 0, 2, 2), 1.0, PIXELS, face in resets) for face in faces)
    return FaceFrame(PIXELS, "rgb", float(index), index, 0, float(index), float(index), crops, gone)


def test_a_live_camera_keeps_the_newest_and_counts_the_others():
    inboxes = Inboxes([True], 3)
    for index in range(10):
        assert inboxes.put(0, frame(index))
    assert [inboxes.take(0)[0].index for _ in range(3)] == [7, 8, 9]
    assert inboxes.dropped(0) == 7
    assert inboxes.take(0) == {}


def test_a_smaller_depth_drops_the_oldest_at_once():
    inboxes = Inboxes([True, False], 4)
    for index in range(4):
        inboxes.put(0, frame(index))
        inboxes.put(1, frame(index))
    inboxes.set_depth(1)
    assert (inboxes.waiting(0), inboxes.dropped(0), inboxes.waiting(1), inboxes.dropped(1)) == (1, 3, 4, 0)
    assert inboxes.take(0)[0].index == 3


def test_the_reader_of_a_file_waits_and_nothing_is_dropped():
    inboxes, taken = Inboxes([False], 1), []
    thread = threading.Thread(target=lambda: [inboxes.put(0, frame(index)) for index in range(50)])
    thread.start()
    while len(taken) < 50:
        assert inboxes.waiting(0) <= FILE_DEPTH
        taken += inboxes.take(5).values()
    thread.join()
    assert [one.index for one in taken] == list(range(50))
    assert inboxes.dropped(0) == 0


def test_a_round_takes_one_frame_of_each_camera():
    inboxes = Inboxes([True, True, True], 8)
    for index in range(6):
        inboxes.put(0, frame(index))
    inboxes.put(2, frame(0))
    assert {number: seen.index for number, seen in inboxes.take(0).items()} == {0: 0, 2: 0}
    assert {number: seen.index for number, seen in inboxes.take(0).items()} == {0: 1}


def test_who_waits_is_let_go_by_the_end_and_by_close():
    for ending in ("end", "close"):
        inboxes = Inboxes([False], 1)
        woken: list[dict] = []
        thread = threading.Thread(target=lambda inboxes=inboxes, woken=woken: woken.append(inboxes.take(60)))
        thread.start()
        inboxes.end(0) if ending == "end" else inboxes.close()
        thread.join(30)
        assert woken == [{}]
    assert not inboxes.put(0, frame(0))


def test_a_camera_is_finished_when_its_last_frame_was_taken():
    inboxes = Inboxes([False], 1)
    inboxes.put(0, frame(0))
    inboxes.end(0)
    assert not inboxes.finished(0)
    inboxes.take(0)
    assert inboxes.finished(0)


# What a frame says of a face: it is here, here after a mix-up, or gone for ever.
@st.composite
def stories(draw):
    alive, told, next_id = set(), [], 0
    for _ in range(draw(st.integers(1, 25))):
        gone = draw(st.sets(st.sampled_from(sorted(alive)))) if alive else set()
        alive -= gone
        for _ in range(draw(st.integers(0, 2))):
            alive.add(next_id)
            next_id += 1
        shown = draw(st.sets(st.sampled_from(sorted(alive)))) if alive else set()
        resets = draw(st.sets(st.sampled_from(sorted(shown)))) if shown else set()
        told.append((tuple(sorted(shown)), tuple(sorted(resets)), tuple(sorted(gone))))
    return told, draw(st.lists(st.booleans(), min_size=len(told), max_size=len(told)))


@given(stories())
def test_no_reset_and_no_farewell_is_lost_with_a_dropped_frame(story):
    told, take_after = story
    inboxes, owed, gone, got_gone = Inboxes([True], 1), set(), set(), set()
    for index, ((shown, resets, left), take) in enumerate(zip(told, take_after, strict=True)):
        inboxes.put(0, frame(index, shown, resets, left))
        owed = (owed | set(resets)) - set(left)
        gone |= set(left)
        if take:
            seen = inboxes.take(0)[0]
            got_gone |= set(seen.gone)
            assert got_gone == gone
            assert {face.id for face in seen.faces if face.reset} == owed & set(shown)
            owed -= set(shown)


def test_no_frame_is_put_into_a_closed_inbox():
    inboxes = Inboxes([False], 1)
    for index in range(FILE_DEPTH):
        inboxes.put(0, frame(index))
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(inboxes.put(0, frame(99))))
    thread.start()
    inboxes.close()
    thread.join(30)
    assert answers == [False]


@pytest.mark.parametrize("depth", [1, 5])
def test_dropped_and_taken_are_all_that_was_put(depth):
    inboxes, taken = Inboxes([True], depth), 0
    for index in range(40):
        inboxes.put(0, frame(index))
        if index % 3 == 0:
            taken += len(inboxes.take(0))
    assert taken + inboxes.dropped(0) + inboxes.waiting(0) == 40


def test_an_interrupt_of_who_takes_lets_the_cameras_go_on():
    """The thread that takes is the main one, where Ctrl-C and SIGTERM raise."""
    inboxes, index = Inboxes([True], 3), 0

    def put() -> None:
        nonlocal index
        index += 1
        assert inboxes.put(0, frame(index))

    for moment in interrupted(lambda: (inboxes.take(0.001), inboxes.set_depth(2), inboxes.finished(0))):
        assert within(put), f"the camera's thread hangs after an interrupt at moment {moment}"
