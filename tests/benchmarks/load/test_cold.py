"""Cold start: phases told apart, new processes really started, a failing one named."""

from __future__ import annotations

import pytest
from logoformer.benchmarks.load.cold import cold_starts, phases
from logoformer.errors import MachineError


def test_phases_are_the_steps_between_the_marks():
    ms = 1_000_000
    marks = {"entered": 130 * ms, "imported": 180 * ms, "loaded": 480 * ms, "first": 510 * ms, "warm_ms": 4.5}
    assert phases(100 * ms, marks) == {
        "process_ms": 30.0,
        "import_ms": 50.0,
        "load_ms": 300.0,
        "first_ms": 30.0,
        "warm_ms": 4.5,
        "total_ms": 410.0,
    }


def test_new_processes_open_the_bundle_and_answer(toy):
    seen = []
    found = cold_starts(toy.path, "onnxruntime", "fp32", 1, starts=2, progress=lambda *call: seen.append(call))
    for values in (found.process_ms, found.import_ms, found.load_ms, found.first_ms, found.warm_ms):
        assert len(values) == 2
        assert min(values) > 0
    for i, total in enumerate(found.total_ms):
        parts = (found.process_ms, found.import_ms, found.load_ms, found.first_ms)
        assert total == pytest.approx(sum(part[i] for part in parts))
    assert seen == [("cold start", 1, 2), ("cold start", 2, 2)]


def test_a_process_that_fails_is_named_with_its_last_words(tmp_path):
    with pytest.raises(MachineError, match="ended with 1") as raised:
        cold_starts(tmp_path / "nothing", "onnxruntime", "fp32", 1, starts=1)
    assert any("no bundle" in line for line in raised.value.log)
