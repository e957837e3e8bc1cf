"""The parts of labelling on Ray that need no Ray: addresses, actors as plain objects, blocks, paths."""

from __future__ import annotations

import contextlib
import json
import os
import sys

import logoformer
import numpy as np
import pytest
from logoformer.errors import BadInputError, MachineError, UsageError, VerificationError
from logoformer.studies.serving.venvs import link_package
from logoformer.workflows.label import LabelConfig, RayConfig, RayLabeller, on_ray
from logoformer.workflows.label.actor import FAILED, LabelActor, describe_runtime, error_from_json
from PIL import Image

WHOLE = LabelConfig(face="whole")
ARGUMENTS = {"backend": "onnxruntime", "precision": "fp32", "threads": 1}


@pytest.mark.parametrize("address", ["videos/", "ray://head:10001", "head", "head:", ":6379", "a b:1", "auto2"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UsageError, match="no address"):
        RayConfig(address)


def test_addresses_and_counts():
    for address in ("", "auto", "head:6379", "10.0.0.1:6379", "[::1]:6379"):
        assert RayConfig(address).address == address
    with pytest.raises(UsageError, match="0 actors"):
        RayConfig(actors=0)


def test_without_ray_the_extra_is_named(untrained_bundle, tmp_path, fails):
    with contextlib.suppress(ImportError):
        import ray  # noqa: F401

        pytest.skip("Ray is installed here")
    (tmp_path / "clip").mkdir()
    words = ("label", untrained_bundle, tmp_path, "-o", tmp_path / "a.jsonl")
    fails(6, *words, "--ray", names=("logoformer[ray]",))
    fails(2, *words, "--ray", tmp_path, names=("--ray HOST:PORT",))
    fails(2, *words, "--actors", "2", names=("--ray",))
    fails(2, *words, "--ray", "--device", "1", names=("--device",))


def test_an_actor_answers_a_block_and_a_failure_is_a_row(untrained_bundle, tmp_path):
    for frame in range(4):
        Image.fromarray(np.full((40, 40, 3), 40 * frame, np.uint8)).save(tmp_path / f"{frame}.png")
    block = {
        "number": np.array([7, 9]), "path": [json.dumps(str(tmp_path)), json.dumps(str(tmp_path / "gone"))],
        "shown": [json.dumps("here"), json.dumps("gone")],
    }  # fmt: skip
    rows = LabelActor(str(untrained_bundle), ARGUMENTS, WHOLE)(block)
    assert rows["number"] == [7, 9] and json.loads(rows["found"][1]) == {"error": "BadInputError: gone does not exist."}
    by = json.loads(rows["by"][0])
    assert by["process"] == os.getpid()
    with logoformer.load(untrained_bundle, **ARGUMENTS) as runtime:
        wanted = dict(zip(runtime.labels, map(float, runtime(tmp_path).probabilities), strict=True))
    assert json.loads(rows["found"][0])["answers"][0]["probabilities"] == wanted
    asked = json.loads(describe_runtime(str(untrained_bundle), ARGUMENTS, WHOLE))
    assert asked["provenance"] == by["provenance"] and asked["provenance"]["precision"] == "fp32"

    rows = LabelActor(str(tmp_path / "gone.bundle"), ARGUMENTS, WHOLE)(block)
    assert rows["number"] == [FAILED]
    error = error_from_json(json.loads(rows["found"][0]))
    assert isinstance(error, BadInputError) and "gone.bundle" in error.what and error.next
    asked = json.loads(describe_runtime(str(tmp_path / "gone.bundle"), ARGUMENTS, WHOLE))
    assert isinstance(error_from_json(asked), BadInputError)
    assert type(error_from_json({**asked, "error": "Unheard"})) is MachineError


def test_an_actor_unlike_the_others_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", type(sys)("ray"))
    monkeypatch.setitem(sys.modules, "ray.data", type(sys)("ray.data"))
    labeller = RayLabeller("face.bundle", {}, WHOLE, RayConfig())
    labeller._head = {"backend": "onnxruntime 1 CPU", "digest": "d"}
    labeller._note({"machine": "a", "process": 1, "ready_s": 12.0, "provenance": labeller._head}, 10.0)
    assert labeller.start_s == 2.0
    other = {"backend": "onnxruntime 2 CPU", "digest": "d"}
    with pytest.raises(VerificationError, match="b with backend: onnxruntime 1 CPU and onnxruntime 2 CPU"):
        labeller._note({"machine": "b", "process": 1, "ready_s": 13.0, "provenance": other}, 10.0)


def test_blocks_are_small_enough_to_lose_and_large_enough_to_send(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", type(sys)("ray"))
    monkeypatch.setitem(sys.modules, "ray.data", type(sys)("ray.data"))

    def blocks(face: str, count: int) -> int:
        labeller = RayLabeller("face.bundle", {}, LabelConfig(face=face), RayConfig())
        labeller._actors = 2
        return labeller._blocks(count)

    assert [blocks("whole", count) for count in (5, 320, 1600, 10**6)] == [5, 32, 100, 4096]
    assert [blocks("detect", count) for count in (5, 320, 10**6)] == [5, 320, 4096]


def test_processes_find_a_package_that_is_not_installed(tmp_path, monkeypatch):
    """As an absolute path: Ray's processes may have another working directory."""
    link = tmp_path / "packages"
    link_package(link)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["packages", *sys.path])
    monkeypatch.setenv("PYTHONPATH", "other")
    assert on_ray.python_path() == {"PYTHONPATH": f"{link}:{tmp_path / 'other'}"}
    monkeypatch.setattr(on_ray.site, "getsitepackages", lambda: [str(link)])  # installed: nothing goes before it
    assert on_ray.python_path() == {"PYTHONPATH": str(tmp_path / "other")}
