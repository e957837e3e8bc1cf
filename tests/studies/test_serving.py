"""The page shows the committed figures of serving."""

from __future__ import annotations

from pathlib import Path

from logoformer.studies.results import read_results
from logoformer.studies.serving.__main__ import COMMAND, PAGE, RESULTS, serving_tables

ROOT = Path(__file__).parents[2]


def test_the_page_is_printed_from_the_committed_figures():
    shown = (
        (ROOT / PAGE).read_text(encoding="utf-8").split("<!-- serving:begin -->\n")[1].split("<!-- serving:end -->")[0]
    )
    found = read_results(ROOT / RESULTS)
    assert shown == (serving_tables(found)["serving"] if found else "Not measured yet on an idle machine.\n")


def test_the_tables_hold_every_preset_and_the_command():
    times = {"local_p50_ms": 0.1, "echo_p50_ms": 0.5, "triton_p50_ms": 0.7, "allowed_ms": 0.85}
    one = {"camera": times, "at_once": {**times, "triton_p50_ms": 0.6}}
    several = {"local_hz": 1000.0, "echo_hz": 900.0, "stream_hz": 850.0, "executions_per_request": 0.5}
    found = {"runs": {"tiny": {"one": one, "several": several}}, "machine": {"cpu": "it", "load_1min": 0.1}}
    text = serving_tables({**found, "command": COMMAND})["serving"]
    assert "| `tiny` | every 40 ms | 0.10 ms | 0.70 ms | 0.50 ms | 0.85 ms |" in text
    assert "| `tiny` | one upon the other | 0.10 ms | 0.60 ms | 0.50 ms | 0.85 ms |" in text
    assert COMMAND in text
    assert "| `tiny` | 1000 frames/s | 900 | 850 | 0.50 |" in text
