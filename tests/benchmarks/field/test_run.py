"""The field test in real processes: to its end, on from where it was killed, past a step that hangs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from logoformer.benchmarks.field import run
from logoformer.benchmarks.field.check import check_kit
from logoformer.benchmarks.field.kit import DONE, FAILED, NOT_RUN, TOO_LONG
from logoformer.benchmarks.field.plan import FieldStep
from logoformer.benchmarks.field.privacy import Scrubber
from logoformer.benchmarks.field.run import run_step
from logoformer.benchmarks.sensors.find import this_machine

NOBODY = Scrubber({}, [])


def started(bundle: Path, out: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "logoformer", "fieldtest", str(bundle), "-o", str(out)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=dict(os.environ))


def of(process: int) -> list[int]:
    """The processes whose parent this is."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(stat.parent.name))
        except (OSError, ValueError, IndexError):
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(this_machine().gpu is not None, reason="this machine has a GPU: its steps would take minutes")
def test_killed_in_the_middle_it_goes_on_and_every_gpu_step_says_why_not(toy, tmp_path):
    out = tmp_path / "kit.zip"
    state = tmp_path / "kit.zip.part" / "state.json"
    first = started(toy.path, out)
    until = time.monotonic() + 120
    while not (state.exists() and len(json.loads(state.read_bytes())["steps"]) >= 2 and of(first.pid)):
        assert first.poll() is None and time.monotonic() < until, first.stdout and first.stdout.read()
        time.sleep(0.02)
    children = of(first.pid)
    first.kill()
    first.communicate()
    while any(Path(f"/proc/{child}").exists() for child in children):  # they end with it
        assert time.monotonic() < until
        time.sleep(0.02)
    assert not out.exists()
    before = {step["name"]: step for step in json.loads(state.read_bytes())["steps"]}
    second = started(toy.path, out)
    said = second.communicate()[0].decode()
    assert second.returncode == 0, said
    checked = check_kit(out)
    after = {step.name: step for step in checked.kit.steps}
    assert all(after[name].seconds == step["seconds"] for name, step in before.items())  # done once
    assert not state.parent.exists()
    for step in after.values():
        assert step.status in (DONE, NOT_RUN, FAILED)
        if step.needs_gpu:
            assert step.status == NOT_RUN and step.exit_code == 6 and step.why
    assert after["doctor"].status == after["verify"].status == after["reference"].status == DONE
    assert said.index("The kit holds, and nothing else:") < said.index("is written, and holds together")
    for name in (str(tmp_path), toy.path.name):
        assert name.encode() not in b"".join(json.dumps(value).encode() for value in checked.results.values())


@pytest.mark.parametrize(
    ("code", "status", "exit_code", "why"),
    [
        ("print('{\"a\": 1}')", DONE, 0, ""),
        ("print('no JSON')", FAILED, 0, "it gave no JSON"),
        ("raise SystemExit(6)", NOT_RUN, 6, "it ended with 6"),
        ("import os; os.kill(os.getpid(), 11)", FAILED, -11, "it ended with -11"),
        ("raise ValueError('of a driver')", FAILED, 1, "ValueError: of a driver"),
        ("import time; time.sleep(60)", TOO_LONG, None, "ended after 3 s"),
        ("import sys; sys.stderr.write('{\"what\": \"No card.\", \"cause\": \"none\", \"next\": \"n\"}'); sys.exit(5)",
         FAILED, 5, "No card. Likely cause: none"),
    ],
)  # fmt: skip
def test_what_becomes_of_a_step(code, status, exit_code, why, tmp_path, monkeypatch):
    (tmp_path / "a_step.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    record, result = run_step(FieldStep("x", "a_step", ("BUNDLE",), 3, False), {"BUNDLE": "b"}, NOBODY)
    assert (
        (record.status, record.exit_code) == (status, exit_code) and bool(record.why) is bool(why) and why in record.why
    )
    assert (result == {"a": 1}) is (status == DONE) and (record.result == "x.json") is (status == DONE)
    assert record.command == "python -m a_step BUNDLE"


def test_a_folder_of_somebody_else_in_the_place_of_the_unfinished_kit_is_not_removed(toy, tmp_path, monkeypatch):
    step = FieldStep("x", "a_step", (), 60, False)
    monkeypatch.setattr(run, "plan", lambda *_: (step,))
    (tmp_path / "a_step.py").write_text("print('{\"a\": 1}')")
    monkeypatch.syspath_prepend(str(tmp_path))
    theirs = tmp_path / "kit.zip.part" / "thesis.tex"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    run.fieldtest(toy.path, tmp_path / "kit.zip")
    assert [path.name for path in theirs.parent.iterdir()] == ["thesis.tex"] and theirs.read_text() == "mine"
    theirs.unlink()
    run.fieldtest(toy.path, tmp_path / "kit.zip")
    assert not theirs.parent.exists()


def test_a_step_is_interrupted_with_its_process(tmp_path, monkeypatch):
    (tmp_path / "a_step.py").write_text("import time; open('pid', 'w').close(); time.sleep(60)")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    others = set(of(os.getpid()))  # of tests before
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_step(FieldStep("x", "a_step", (), 60, False), {}, NOBODY)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # else it ends the process where the step was shorter
        signal.signal(signal.SIGALRM, before)
    assert set(of(os.getpid())) <= others
