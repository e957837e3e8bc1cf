"""A runtime whose bundle is replaced, moved or deleted, or whose process changes its folder, while it serves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.bundle.descriptors import HeldFolder
from logoformer.bundle.files import read_regular

OLD = Path(__file__).parents[1] / "data" / "bundle-v0.1"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, named by a relative path."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    shutil.copytree(OLD, "face.bundle")
    return Path("face.bundle")


def replace(bundle: Path, other: Path) -> None:
    shutil.rmtree(bundle)
    shutil.copytree(other, bundle)


def change_folder(bundle: Path, other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (other.parent / "elsewhere").mkdir()
    monkeypatch.chdir(other.parent / "elsewhere")


CHANGES: dict[str, Callable[[Path, Path, pytest.MonkeyPatch], object]] = {
    "deleted": lambda bundle, other, patch: shutil.rmtree(bundle),
    "moved": lambda bundle, other, patch: bundle.rename("moved.bundle"),
    "replaced": lambda bundle, other, patch: replace(bundle, other),
    "emptied": lambda bundle, other, patch: [path.write_bytes(b"") for path in bundle.rglob("*.json")],
    "another folder": change_folder,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("threaded", [False, True], ids=["runtime", "worker"])
def test_what_was_loaded_goes_on_answering(bundle, change, threaded, small, monkeypatch):
    golden = Bundle(bundle).golden()
    clip, wanted = golden.clips[0], golden.probabilities[0]
    with logoformer.load(bundle, precision="fp32") as runtime:
        CHANGES[change](bundle, small, monkeypatch)  # before any session was opened
        if threaded:
            with runtime.worker() as worker:  # opens its sessions on its own thread
                answer = worker.submit_clip(clip, color="rgb").result()
                with worker.stream(hop=1, color="rgb", warmup="repeat") as stream:
                    assert worker.submit(stream, clip[0], 0.0).result() is not None
        else:
            answer = runtime(clip, color="rgb")
            with runtime.stream(hop=1, color="rgb", warmup="repeat") as stream:
                assert stream.push(clip[0], 0.0) is not None
    assert np.abs(answer.probabilities - wanted).max() <= 1e-5


def test_a_file_that_is_changed_in_place_is_still_refused(bundle):
    """The content that was promised is what runs: a descriptor is no reason to trust bytes."""
    with logoformer.load(bundle, precision="fp32") as runtime:
        for graph in bundle.glob("graphs/clip.*"):
            graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
        with pytest.raises(logoformer.errors.RefusedError, match="not the file that the index names"):
            runtime(runtime.bundle.golden().clips[0], color="rgb")


def test_descriptors_are_closed_with_the_folder(tmp_path):
    (tmp_path / "a").write_bytes(b"one")
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    folder = HeldFolder(tmp_path)
    folder.hold("a")
    folder.hold("a")
    folder.hold("missing")
    (tmp_path / "a").unlink()
    assert [read_regular(folder, "a", 10) for _ in range(2)] == [b"one", b"one"]
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before + 1
    del folder
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before
