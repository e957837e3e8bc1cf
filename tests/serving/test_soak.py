"""The long run, in short: two simulated minutes, with the server killed in the second."""

from __future__ import annotations

from pathlib import Path

import pytest
from logoformer.bundle import Bundle
from logoformer.cli.terminal import Bar
from logoformer.studies.results import read_results
from logoformer.studies.serving.soak import (
    PAGE,
    RESULTS,
    SoakConfig,
    memory_growth,
    memory_is_flat,
    restart_growth_mb,
    soak,
    soak_table,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("triton")]
ROOT = Path(__file__).parents[2]


def test_nothing_is_lost_through_a_restart(triton_packages, untrained_bundle, tmp_path):
    config = SoakConfig(minutes=2, fps=5.0, restarts=(1,))
    found = soak(Bundle(untrained_bundle), triton_packages, config, tmp_path, Bar())
    assert found["frames"] == 4 * 600 and found["due"] > 4 * 100
    assert (found["lost"], found["errors"], found["reopened"]) == (0, 0, 4)
    assert found["counted"] and len(found["memory_mb"]) == 2
    assert all(set(sample) == {"server", "model", "client"} for sample in found["memory_mb"])


def test_growth_counts_between_restarts_and_at_the_second_one():
    def story(model: list[float], client: list[float]) -> list[dict[str, float]]:
        return [{"model": one, "client": other} for one, other in zip(model, client, strict=True)]

    level, step = [100.0] * 9, [100.0] * 3 + [130.0] * 6
    assert memory_is_flat(story([100.0] * 3 + [200.0] * 6, step), (3, 6))  # another process, and buffers of the first
    assert restart_growth_mb(story(level, step), (3, 6)) == [30.0, 0.0]
    assert not memory_is_flat(story(level, [100.0] * 3 + [110.0] * 3 + [120.0] * 3), (3, 6))
    leak = [100.0 + 10 * minute for minute in range(9)]
    assert memory_growth(story(leak, level), ())["model"] == 180 / 120 - 1
    assert not memory_is_flat(story(leak, level), ()) and not memory_is_flat(story(level, leak), (5,))


def test_the_page_is_printed_from_the_committed_figures():
    shown = (ROOT / PAGE).read_text(encoding="utf-8").split("<!-- soak:begin -->\n")[1].split("<!-- soak:end -->")[0]
    found = read_results(ROOT / RESULTS)
    assert shown == soak_table(found)["soak"]
    assert found["minutes"] == 30 and found["seconds"] <= 300 and len(found["restarts"]) == 2
    assert found["counted"] and found["lost"] == 0
    assert memory_is_flat(found["memory_mb"], found["restarts"])
