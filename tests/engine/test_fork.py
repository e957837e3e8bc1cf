"""A runtime and processes made from its process, by fork, spawn and forkserver, at each moment of its life."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import logoformer
import pytest
from logoformer.errors import UsageError

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "tests" / "data" / "bundle-v0.1"

# A child that uses what its parent opened, and then answers with a runtime of its own.
SCRIPT = """
import multiprocessing, sys
import logoformer

bundle, method, moment = sys.argv[1:]

def use(runtime, worker, stream, clip):
    said = []
    if runtime is None:
        return said
    for name, call in {
        "clip": lambda: runtime(clip, color="rgb"),
        "stream": lambda: runtime.stream(color="rgb"),
        "waiting": lambda: worker.waiting,
        "submit": lambda: worker.submit(stream, clip[0], 99.0).result(5),
    }.items():
        if name in ("waiting", "submit") and worker is None:
            continue
        try:
            call()
            said.append(f"{name}: answered")
        except logoformer.errors.UsageError as error:
            said.append(f"{name}: {'forked' if 'forked' in str(error) else error}")
    if worker is not None:
        worker.close()
    runtime.close()
    return said

def child(bundle, runtime, worker, stream, clip):
    print(*use(runtime, worker, stream, clip), sep="\\n")
    with logoformer.load(bundle, precision="fp32", threads=2) as own:
        print("own:", own(clip, color="rgb").label)
    sys.stdout.flush()

if __name__ == "__main__":
    clip = logoformer.Bundle(bundle).golden().clips[0]
    runtime = worker = stream = None
    if moment != "before":
        runtime = logoformer.load(bundle, precision="fp32", threads=2)
    if moment == "answered":
        runtime(clip, color="rgb")
    if moment == "worker":
        worker = runtime.worker()
        stream = worker.stream(hop=1, color="rgb", warmup="repeat")
        worker.submit(stream, clip[0], 0.0).result()
    given = (bundle, runtime, worker, stream, clip) if method == "fork" else (bundle, None, None, None, clip)
    process = multiprocessing.get_context(method).Process(target=child, args=given)
    process.start()
    process.join(60)
    if process.is_alive():
        process.kill()
        sys.exit("the child hangs")
    if moment in ("loaded", "answered"):
        print("parent:", runtime(clip, color="rgb").label)
    if moment == "worker":
        print("parent:", worker.submit(stream, clip[1], 1.0).result().label)
        worker.close()
    sys.exit(process.exitcode)
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before", "loaded", "answered", "worker"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_ends_and_answers_with_a_runtime_of_its_own(method, moment, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [sys.executable, str(tmp_path / "script.py"), str(BUNDLE), method, moment]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    refused = [line for line in lines if line.endswith("forked")]
    if method == "fork" and moment != "before":
        calls = ["clip", "stream", *(["waiting", "submit"] if moment == "worker" else [])]
        assert refused == [f"{call}: forked" for call in calls]
    assert not any("answered" in line for line in lines)
    assert sum(line.startswith("own: ") for line in lines) == 1
    assert sum(line.startswith("parent: ") for line in lines) == (moment != "before")


def test_a_runtime_is_not_pickled_and_says_what_to_do():
    with (
        logoformer.load(BUNDLE, precision="fp32") as runtime,
        pytest.raises(UsageError, match="cannot be sent") as caught,
    ):
        pickle.dumps(runtime)
    assert "logoformer.load" in caught.value.next
