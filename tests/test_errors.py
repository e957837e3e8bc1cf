from __future__ import annotations

import inspect
import os
import pickle
import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer import errors
from logoformer.errors import LogoformerError, MachineError, advising, command, missing_package, one_of, printable

CODES = {
    "UsageError": 2,
    "BadInputError": 3,
    "RefusedError": 4,
    "VerificationError": 5,
    "MachineError": 6,
    "DeviceLostError": 7,
}


def test_every_error_has_its_promised_exit_code_and_there_is_no_other_error():
    found = {
        name: kind.exit_code
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, LogoformerError) and kind is not LogoformerError
    }
    assert found == CODES
    assert errors.EXIT_OK == 0
    assert LogoformerError("x").exit_code == 1


# ---------------------------------------------------------------------------------------------------------- printable
@given(st.text(max_size=200))
def test_what_is_shown_is_printable_and_keeps_what_was_printable(text):
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    assert [ch for ch in text if ch.isprintable()] == [ch for ch in text if ch in shown and ch.isprintable()]
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[2J\x1b[Hok", "\\x1b[2J\\x1b[Hok"),  # clears the screen
        ("a\rb", "a\\rb"),  # overwrites the line
        ("a\nerror: forged", "a\\nerror: forged"),
        ("\u202egnp.exe", "\\u202egnp.exe"),  # turns the reading direction
        ("\u200b", "\\u200b"),  # has no width
        ("\ud800", "\\ud800"),  # half a character: printing it would raise
        ("\x9b31m", "\\x9b31m"),  # the one-byte form of ESC [
        ("\U000e0041", "\\U000e0041"),
        ("Grüße 悲 😀", "Grüße 悲 😀"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(hostile, shown):
    assert printable(hostile) == shown


def test_the_rest_of_a_long_text_is_counted():
    assert printable("x" * 10, limit=10) == "x" * 10
    assert printable("x" * 15, limit=10) == "x" * 10 + "... (5 more characters)"


def test_anything_can_be_shown():
    assert printable(None) == "None"
    assert printable(3.5) == "3.5"


# ------------------------------------------------------------------------------------------------------------ command
@given(st.lists(st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=20), min_size=1))
def test_a_command_can_be_pasted_into_a_shell(words):
    assert shlex.split(command(*words)) == words


def test_a_command_of_hostile_words_stays_on_one_line():
    line = command("logoformer", "verify", "a\nrm -rf ~; $(x) `y` 'z")
    assert line.isprintable()
    assert shlex.split(line)[2:] == ["a\\nrm -rf ~; $(x) `y` 'z"]


def test_a_file_name_of_other_bytes_can_be_pasted_into_a_shell():
    name = b"o/it's a \\bad\xff\xfe1 \xc3\xbc.pth"
    line = command("printf", "%s", os.fsdecode(name))
    assert line == "printf %s $'o/it\\'s a \\\\bad\\xff\\xfe1 \xfc.pth'" and line.isprintable()
    assert subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, check=True, timeout=60).stdout == name


def test_a_command_takes_paths_and_numbers(tmp_path):
    assert command("x", tmp_path / "a b", 3) == f"x '{tmp_path}/a b' 3"


# ------------------------------------------------------------------------------------------------------------- errors
def test_an_error_says_what_why_and_what_next_in_that_order():
    error = MachineError("No GPU.", cause="no driver", next="nvidia-smi", log=["line 1", "line\x1b[0m 2"])
    assert str(error).splitlines() == [
        "No GPU.",
        "Likely cause: no driver",
        "Next: nvidia-smi",
        "  | line 1",
        "  | line\\x1b[0m 2",
    ]


def test_an_error_is_one_line_of_a_log():
    error = MachineError("No\nGPU.", cause="no driver", next="nvidia-smi")
    assert error.line == "No\\nGPU. Likely cause: no driver Next: nvidia-smi"


def test_an_error_with_nothing_but_a_what_is_one_line():
    assert str(MachineError("No GPU.")) == "No GPU."


@given(st.text(), st.text(), st.text(), st.lists(st.text(), max_size=3))
def test_no_field_can_forge_a_line(what, cause, next_, log):
    lines = str(MachineError(what, cause=cause, next=next_, log=log)).split("\n")
    assert len(lines) == 1 + bool(cause) + bool(next_) + len(log)
    assert all(line.isprintable() for line in lines)


def test_the_json_form_has_every_field_unescaped():
    error = MachineError("a\nb", cause="c", next="d", log=("e",))
    assert error.to_json() == {
        "error": "MachineError",
        "what": "a\nb",
        "cause": "c",
        "next": "d",
        "log": ["e"],
        "exit_code": 6,
    }


def test_an_error_survives_the_way_to_another_process():
    error = MachineError("a", cause="b", next="c", log=["d"])
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is MachineError
    assert copy.to_json() == error.to_json()


def test_advice_is_given_where_there_is_none_and_only_there():
    with pytest.raises(MachineError) as caught, advising("make"):
        raise MachineError("a", cause="b")
    assert (caught.value.what, caught.value.cause, caught.value.next) == ("a", "b", "make")
    with pytest.raises(MachineError) as caught, advising("make"), advising("first"):
        raise MachineError("a")
    assert caught.value.next == "first"
    with pytest.raises(KeyError), advising("make"):
        raise KeyError


def test_a_missing_package_names_the_module_and_the_extra():
    error = missing_package("cv2", "camera", "Reading a video")
    assert error.exit_code == 6
    assert error.what == "Reading a video needs the Python package cv2, which is not installed here."
    assert error.next == "pip install 'logoformer[camera]'"


def test_alternatives_are_listed():
    assert one_of(["a", 1]) == "'a', '1'"
    assert one_of([]) == ""
