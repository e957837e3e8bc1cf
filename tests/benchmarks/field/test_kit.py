"""A kit that was changed: by a byte, by a figure, and by somebody who seals it again."""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.benchmarks import bench as b
from logoformer.benchmarks.field import run as module
from logoformer.benchmarks.field.check import check_kit
from logoformer.benchmarks.field.kit import DONE, NOT_RUN, KitStep, kit_files
from logoformer.benchmarks.field.plan import plan
from logoformer.benchmarks.field.run import fieldtest
from logoformer.bundle.files import dump_json, sha256
from logoformer.bundle.sealed import seal
from logoformer.cli import main as cli
from logoformer.errors import BadInputError, RefusedError

Files = dict[str, bytes]


def made_step(report: Any) -> Callable[..., tuple[KitStep, Any]]:
    """In place of a process: the report of the reference, a result of `doctor`, and no GPU."""

    def run(step: Any, paths: Any, scrub: Any) -> tuple[KitStep, Any]:
        results = {"doctor": {"system": "Example Linux"}, "reference": report.to_json()}
        result = results.get(step.name)
        fields: dict[str, Any] = {
            "name": step.name, "command": "x", "needs_gpu": step.needs_gpu, "limit_s": step.limit_s, "seconds": 1.0,
            "peak_rss_mib": 1.0, "next": "", "status": DONE if result else NOT_RUN, "exit_code": 0 if result else 6,
            "why": "" if result else "this machine shows no GPU", "result": f"{step.name}.json" if result else "",
        }  # fmt: skip
        return KitStep(**fields), None if result is None else scrub.value(result)

    return run


@pytest.fixture(scope="module")
def files(toy, tmp_path_factory) -> Files:
    """The members of a sound kit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(b, "REST_S", 0.0)
        report = b.bench(b.BenchConfig(toy.path, iterations=20, warmup=1, threads=1, others=(), roofline=False))
        patch.setattr(module, "run_step", made_step(report))
        path = tmp_path_factory.mktemp("kit") / "kit.zip"
        fieldtest(toy.path, path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def write(tmp_path) -> Callable[[Files], Path]:
    def zipped(members: Files) -> Path:
        with zipfile.ZipFile(tmp_path / "kit.zip", "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return tmp_path / "kit.zip"

    return zipped


def resealed(files: Files, change: Callable[[SimpleNamespace], None]) -> Files:
    """Changes index and results as somebody does who knows the format: hashes and digest fit again."""
    parts = SimpleNamespace(kit=json.loads(files["kit.json"]), results={})
    parts.results = {name: json.loads(data) for name, data in files.items() if name != "kit.json"}
    change(parts)
    members = {name: dump_json(value) for name, value in parts.results.items()}
    parts.kit["files"] = [asdict(one) for one in kit_files(members)]
    return {"kit.json": seal(parts.kit), **members}


def test_a_sound_kit_passes_and_says_why_each_gpu_step_was_not_run(files, write, capsys):
    checked = check_kit(write(files))
    assert set(checked.reports) == {"reference"}
    assert all(step.why for step in checked.kit.steps if step.needs_gpu)
    assert cli.main(["fieldtest", "--check", str(write(files))]) == 0
    said = capsys.readouterr().out
    assert "this machine shows no GPU" in said and "unqualified: " in said and "holds together" in said
    assert cli.main(["fieldtest", "--check", str(write(files)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed"] is True


def test_the_same_content_gives_the_same_bytes(files, write):
    assert check_kit(write(resealed(files, lambda parts: None))).kit == check_kit(write(files)).kit
    assert resealed(files, lambda parts: None) == files


def test_any_changed_byte_is_found(files, write):
    for name, data in files.items():
        for place in (0, len(data) // 2, len(data) - 2):
            changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            with pytest.raises(RefusedError):
                check_kit(write({**files, name: changed}))


@pytest.mark.parametrize("fault", ["missing", "added", "no index", "empty", "no zip"])
def test_other_files_than_the_index_names(files, write, fault, fails):
    members = dict(files)
    if fault in ("missing", "no index"):
        members.pop("doctor.json" if fault == "missing" else "kit.json")
    elif fault == "added":
        members["face.jpg"] = b"somebody"
    path = write({} if fault == "empty" else members)
    if fault == "no zip":
        path.write_bytes(b"PK" + bytes(99))
    fails(4, "fieldtest", "--check", path)


@settings(max_examples=30, deadline=None)
@given(place=st.floats(0, 1), byte=st.integers(1, 255), cut=st.booleans())
def test_no_damage_of_the_zip_itself_is_a_traceback(files, write, place, byte, cut):
    path = write(files)
    data = path.read_bytes()
    at = min(int(place * len(data)), len(data) - 1)
    path.write_bytes(data[:at] if cut else data[:at] + bytes([data[at] ^ byte]) + data[at + 1 :])
    with contextlib.suppress(RefusedError):
        assert set(check_kit(path).results) == {"doctor.json", "reference.json"}  # what a zip does not care about


def test_a_kit_that_is_cut_off_and_what_is_no_kit_are_told_apart(files, write, tmp_path, fails):
    path = write(files)
    data = path.read_bytes()
    for length in (5, len(data) // 2, len(data) - 22):
        path.write_bytes(data[:length])
        assert f"is cut off after {length} bytes" in fails(4, "fieldtest", "--check", path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert "is no field kit: it is a picture (PNG)" in fails(4, "fieldtest", "--check", path)
    path.write_bytes(b"")
    assert "is no field kit: it is empty" in fails(4, "fieldtest", "--check", path)
    path = write({"thesis.tex": b"x"})
    assert "a zip archive without kit.json" in fails(4, "fieldtest", "--check", path)
    (tmp_path / "other.zip.part").mkdir()
    text = fails(4, "fieldtest", "--check", tmp_path / "other.zip.part")
    assert "is a folder" in text and f"-o {tmp_path / 'other.zip'}" in text


def test_a_kit_that_cannot_be_written_is_said_before_anything_runs(toy, tmp_path, monkeypatch, fails):
    monkeypatch.setattr(module, "run_step", lambda *_: pytest.fail("a step ran"))
    (tmp_path / "file").write_bytes(b"")
    fails(6, "fieldtest", toy.path, "-o", tmp_path / "file" / "kit.zip")
    fails(2, "fieldtest", toy.path)
    fails(2, "fieldtest", "-o", tmp_path / "kit.zip")


def test_there_is_no_kit(tmp_path):
    with pytest.raises(BadInputError):
        check_kit(tmp_path / "none.zip")


def _faster(parts: Any) -> None:
    parts.results["reference.json"]["rows"][0]["summary"]["mean_ms"] /= 2


def _fewer_samples(parts: Any) -> None:
    row = parts.results["reference.json"]["rows"][0]
    row["latency_ms"], row["at_s"] = row["latency_ms"][:3], row["at_s"][:3]


def _qualified(parts: Any) -> None:
    parts.results["reference.json"]["qualification"] = {"qualified": True, "reasons": [], "held": ["all"]}


def _on_a_gpu(parts: Any) -> None:
    report = parts.results["reference.json"]
    for item in (report["subject"], *report["rows"]):
        item["device"] = "NVIDIA Example"


def _as_a_gpus_figure(parts: Any) -> None:
    step = next(step for step in parts.kit["steps"] if step["name"] == "bench-closed")
    step.update(status="done", exit_code=0, why="", result="bench-closed.json")
    parts.results["bench-closed.json"] = parts.results["reference.json"]


def _of_another_bundle(parts: Any) -> None:
    parts.results["reference.json"]["subject"]["graphs"]["clip"] = sha256(b"another")


def _of_another_machine(parts: Any) -> None:
    parts.results["reference.json"]["machine"]["cpu"] = "Another CPU"


def _with_a_path(parts: Any) -> None:
    parts.results["doctor.json"]["system"] = "built in /home/ada/build/"


def _with_a_step_left_out(parts: Any) -> None:
    parts.kit["steps"] = parts.kit["steps"][1:]


def _with_a_reason_left_out(parts: Any) -> None:
    parts.kit["steps"][-2]["why"] = ""


def _with_another_field(parts: Any) -> None:
    parts.kit["note"] = "trust me"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_faster, "summary"), (_fewer_samples, "summary"), (_qualified, "qualification"),
        (_on_a_gpu, "measured on NVIDIA Example"), (_as_a_gpus_figure, "the machine has none"),
        (_of_another_bundle, "another bundle"), (_of_another_machine, "another machine"),
        (_with_a_path, "gives away"), (_with_a_step_left_out, "not those of the plan"),
        (_with_a_reason_left_out, "contradict"), (_with_another_field, "garbles a field"),
    ],
)  # fmt: skip
def test_a_change_that_is_sealed_again_is_found(files, write, change, said):
    with pytest.raises(RefusedError) as caught:
        check_kit(write(resealed(files, change)))
    assert said in str(caught.value)


def test_the_limits_add_up_to_less_than_a_quarter_of_an_hour():
    for backend in ("tensorrt", "tensorrt_rtx"):
        assert sum(step.limit_s for step in plan(backend, "fp16", "fp32", 140)) <= 900
