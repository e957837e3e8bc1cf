"""A kill or a full disk in the middle of a real export: the old bundle still opens, verifies, and can be replaced.

Every single moment of the writing is tried in `bundle/test_writer.py` on a small bundle; here is the whole way.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from logoformer.bundle import Bundle, BundleWriter
from logoformer.cli import main as cli
from logoformer.export.exporter import ExportConfig
from logoformer.workflows.export import export_checkpoint
from logoformer.workflows.init import init_checkpoint

pytestmark = pytest.mark.slow
FP32 = ExportConfig(precisions=("fp32",))

# Exports over an old bundle. `kill STAGE DONE`: SIGKILL when that is reported. `full BYTES`: no file may grow past it.
SCRIPT = """
import os, resource, signal, sys
from logoformer.cli import main as cli
from logoformer.cli.terminal import Bar

what, stage, number, checkpoint, out = sys.argv[1:]
report = Bar.__call__

def kill(bar, now, done, total):
    if what == "kill" and (now, done) == (stage, int(number)):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "full" and now == stage:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(number), resource.RLIM_INFINITY))
    report(bar, now, done, total)

Bar.__call__ = kill
words = ["export", checkpoint, "-o", out, "--precisions", "fp32", "--clips", "8", "--seed", "3"]
sys.exit(cli.main(words))
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of other weights than those in the bundle."""
    return init_checkpoint("tiny", tmp_path_factory.mktemp("other") / "tiny", seed=7)


@pytest.fixture
def bundle(untrained_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untrained_bundle, tmp_path / "face.bundle"))


@pytest.fixture
def whole(untrained_bundle: Path) -> Callable[[Path], None]:
    """`whole(bundle)`: it is the old one, every file of it can be read, and it verifies."""

    def check(bundle: Path) -> None:
        opened = Bundle(bundle)
        assert opened.manifest == Bundle(untrained_bundle).manifest
        assert all(opened.read_graph(entry) for entry in opened.graphs)
        assert cli.main(["verify", str(bundle), "--no-write"]) == 0

    return check


def export(other: Path, bundle: Path, what: str, stage: str, number: int) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", SCRIPT, what, stage, str(number), str(other), str(bundle)]
    return subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)


def test_a_kill_in_the_middle_of_writing(bundle, other, whole, contents):
    before = contents(bundle)
    done = export(other, bundle, "kill", "write", 2)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = contents(bundle)
    assert {name: left[name] for name in before} == before
    assert len(left) == len(before) + 2  # two new graphs stand there already; no index names them
    whole(bundle)
    # The next export would go ahead: neither the leftovers nor the dead one's lock stop it.
    BundleWriter(bundle).commit(Bundle(bundle).manifest)
    whole(bundle)


def test_a_disk_that_is_full_when_the_graphs_are_written(bundle, other, whole, contents):
    before = contents(bundle)
    done = export(other, bundle, "full", "write", 400_000)
    assert done.returncode == 6, done.stderr
    assert "could not be written: File too large" in done.stderr
    assert str(bundle) in done.stderr
    assert "Next: free space" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(bundle) == before
    whole(bundle)


def test_what_stands_on_the_disk_at_every_step_is_a_whole_bundle(bundle, other, untrained_bundle):
    # A kill leaves the files on disk: looked at whenever the export reports, from the first step to the last.
    old = Bundle(untrained_bundle).manifest["digest"]
    seen: dict[tuple[str, int], bool] = {}

    def look(stage: str, done: int, total: int) -> None:
        opened = Bundle(bundle)
        assert all(opened.read_graph(entry) for entry in opened.graphs)
        assert len(opened.golden().clips) == 8
        seen[stage, done] = opened.manifest["digest"] == old

    export_checkpoint(other, bundle, FP32, clips=8, seed=3, progress=look)
    assert {stage for stage, _ in seen} == {"trace", "parity fp32", "write"}
    assert [step for step, still_old in seen.items() if not still_old] == [("write", 3)]
    assert cli.main(["verify", str(bundle), "--no-write"]) == 0
    assert Bundle(bundle).manifest["provenance"]["checkpoint"]["extra"]["seed"] == 7


def test_an_interrupted_export_leaves_the_old_bundle(bundle, other, whole, contents):
    before = contents(bundle)

    def stop(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("write", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_checkpoint(other, bundle, FP32, clips=8, seed=3, progress=stop)
    left = contents(bundle)
    assert {name: left[name] for name in before} == before
    whole(bundle)
