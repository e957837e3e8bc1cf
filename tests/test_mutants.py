"""The table of planted faults: it fits the source, and the committed results are of this table and found every one."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from logoformer.bundle.files import parse_json

PROGRAM = Path(__file__).with_name("mutants.py")
spec = importlib.util.spec_from_file_location("mutants", PROGRAM)
mutants = importlib.util.module_from_spec(spec)
sys.modules["mutants"] = mutants  # dataclasses look there
spec.loader.exec_module(mutants)

TABLE = mutants.read_table()


@pytest.mark.parametrize("mutant", TABLE, ids=lambda mutant: mutant.name)
def test_a_fault_fits_the_source(mutant):
    """Who changes the line mends the table, and runs the fault again: `python tests/mutants.py NAME`."""
    planted = mutant.planted((mutants.ROOT / mutant.file).read_text(encoding="utf-8"))
    compile(planted, mutant.file, "exec")
    assert mutant.tests
    for test in mutant.tests:
        if not test.startswith("-"):
            assert (mutants.ROOT / test.partition("::")[0]).is_file(), test


def test_the_committed_results_are_of_this_table_and_every_fault_was_found():
    found = parse_json(mutants.RESULT.read_bytes(), "mutants.json")
    rows = found["mutants"]
    assert [{**row, "tests": tuple(row["tests"])} for row in rows] == [asdict(m) | {"outcome": "killed"} for m in TABLE]
    assert (found["killed"], found["survived"]) == (len(TABLE), 0)
    assert found["command"] and found["machine"]["packages"]["torch"] and found["machine"]["python"]


def test_names_are_unique_and_many():
    names = [mutant.name for mutant in TABLE]
    assert len(set(names)) == len(names) >= 60


@pytest.mark.parametrize("old", ["nothing like it", "a", "b"])
def test_a_text_that_does_not_stand_there_once_is_refused(old):
    mutant = mutants.Mutant("x", "x.py", old, "b", ("tests/x.py",))
    with pytest.raises(ValueError, match=r"x: x\.py holds its text"):
        mutant.planted("a = a + b\n")
