"""The page shows the committed figures, and the drawn camera keeps its pace."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from logoformer.studies.results import read_results
from logoformer.studies.watching import PAGE, RESULTS, PacedVideo, cpu_seconds, machine_busy_seconds, tables
from PIL import Image

ROOT = Path(__file__).parents[2]


def test_the_page_is_printed_from_the_committed_figures():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    found = read_results(ROOT / RESULTS)
    for name, table in tables(found).items():
        assert text.split(f"<!-- {name}:begin -->\n")[1].split(f"<!-- {name}:end -->")[0] == table
    assert {"command", "machine", "watch", "stages"} <= set(found)
    assert "gpu" not in str(found["watch"]).lower()


def test_the_camera_hands_out_every_frame_once_at_its_pace_and_begins_again(tmp_path):
    for index in range(5):
        Image.fromarray(np.full((6, 8, 3), 10 * index, np.uint8)).save(tmp_path / f"{index}.png")
    camera, clock = PacedVideo(tmp_path, 200.0), []
    levels = []
    for arrived in camera.read():
        levels.append(int(arrived.rgb()[0, 0, 0]))
        clock.append(arrived.size)
        if len(levels) == 12:
            camera.abort()
    camera.close()
    assert levels == [0, 10, 20, 30, 40] * 2 + [0, 10]
    assert set(clock) == {(8, 6)}


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc/stat on this system")
def test_cpu_time_only_rises_and_the_machine_was_busy_at_least_as_long():
    busy, own = [machine_busy_seconds()], [cpu_seconds()]
    while own[-1] - own[0] < 0.2:
        own.append(cpu_seconds())
    busy.append(machine_busy_seconds())
    assert all(after >= before for before, after in pairwise(own))
    assert busy[1] - busy[0] >= 0.1
