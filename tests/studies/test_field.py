"""Kits from cards: what is kept and printed, and what is not. The card is played, and its figures stay in this file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from logoformer.benchmarks import bench as b
from logoformer.benchmarks.baselines import contract, programs
from logoformer.benchmarks.field import run as module
from logoformer.benchmarks.field.kit import DONE, NOT_RUN, KitStep
from logoformer.benchmarks.field.run import fieldtest
from logoformer.benchmarks.report.text_tables import ms
from logoformer.benchmarks.sensors.find import Sensors
from logoformer.engine.machine.environment import Gpu
from logoformer.errors import RefusedError
from logoformer.studies import field

ORIN = Gpu("Orin", "sm87", True, "12.6", 8)
PAGE = "before\n<!-- field:begin -->\nyesterday's\n<!-- field:end -->\nafter\n"


@pytest.fixture(scope="module")
def report(untrained_bundle) -> Any:
    """A benchmark whose runtime says that it is a card's."""
    real = contract.open_ours

    def on_a_card(bundle: Any, precision: str, threads: int, closing: Any, *_: Any, **__: Any) -> Any:
        runtime = real(bundle, precision, threads, closing)
        runtime.backend = "TensorRT 10.3.0 on sm87 by a double"
        return runtime

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(b, "REST_S", 0.0)
        patch.setattr(b, "open_ours", on_a_card)
        patch.setattr(programs, "open_ours", on_a_card)
        config = b.BenchConfig(
            untrained_bundle, iterations=20, warmup=1, threads=1, others=(), roofline=False, precision="fp16"
        )
        return b.bench(config, sensors=Sensors((), {"GPU": "Example board (integrated)"}))


@pytest.fixture
def kit(untrained_bundle, report, tmp_path, monkeypatch) -> Any:
    """`kit(gpu)`: a kit whose closed benchmark is `report` where there is a GPU, and that holds nothing else."""

    def make(gpu: Gpu | None) -> Path:
        def step_of(step: Any, paths: Any, scrub: Any) -> tuple[KitStep, Any]:
            ran = step.name == "bench-closed" and gpu is not None
            fields: dict[str, Any] = {
                "name": step.name, "command": "x", "needs_gpu": step.needs_gpu, "limit_s": step.limit_s,
                "seconds": 1.0, "peak_rss_mib": 1.0, "next": "", "status": DONE if ran else NOT_RUN,
                "exit_code": 0 if ran else 6, "why": "" if ran else "not | here",
                "result": f"{step.name}.json" if ran else "",
            }  # fmt: skip
            return KitStep(**fields), scrub.value(report.to_json()) if ran else None

        monkeypatch.setattr(module, "run_step", step_of)
        monkeypatch.setattr(module, "find_gpu", lambda: gpu)
        monkeypatch.setattr(module, "target_here", lambda: "tensorrt")
        fieldtest(untrained_bundle, tmp_path / "kit.zip")
        return tmp_path / "kit.zip"

    return make


def test_a_kit_of_a_card_is_kept_and_printed(kit, report, tmp_path, monkeypatch, capsys):
    page, folder = tmp_path / "page.md", tmp_path / "results" / "field"
    page.write_text(PAGE)
    monkeypatch.setattr(field, "PAGE", page)
    monkeypatch.setattr(field.field_table, "__defaults__", (folder,))
    monkeypatch.setattr(field.accept_kit, "__defaults__", (folder,))
    path = kit(ORIN)
    assert field.main([str(path), str(path)]) == 0  # the same kit twice is one
    (kept,) = folder.glob("orin-*.json")
    assert str(kept) in capsys.readouterr().out
    assert json.loads(kept.read_bytes())["results"]["bench-closed.json"]["rows"][0]["latency_ms"]
    said = page.read_text()
    assert said.startswith("before\n") and said.endswith("after\n") and "yesterday" not in said
    rows = [line for line in said.splitlines() if line.startswith("| Orin, 8 multiprocessors")]
    assert len(rows) == 1 and len(rows[0].replace("\\|", "").split("|")) == 10
    assert f"| {ms(report.row('stream').summary.at(50.0).value_ms)} (" in rows[0]
    assert "tiny fp16, TensorRT 10.3.0 on sm87 by a double" in rows[0]
    assert "unqualified: " in rows[0] and "bench-cold: not run (not \\| here)" in rows[0]


def test_a_kit_without_a_card_holds_nothing_that_is_missing(kit, tmp_path, capsys):
    with pytest.raises(RefusedError, match="no figure of a GPU"):
        field.accept_kit(kit(None), tmp_path)
    assert field.field_table(tmp_path) == field.NONE
    assert field.main([str(tmp_path / "kit.zip")]) == 4 and "Next: logoformer fieldtest" in capsys.readouterr().err


def test_a_tampered_kit_is_not_kept(kit, tmp_path):
    path = kit(ORIN)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    report = json.loads(members["bench-closed.json"])
    report["rows"][0]["latency_ms"][0][0] /= 2
    members["bench-closed.json"] = json.dumps(report).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(RefusedError):
        field.accept_kit(path, tmp_path / "field")
    assert not (tmp_path / "field").exists()


def test_the_page_says_what_is_kept():
    """docs/first-hour.md is printed from benchmarks/results/field/, never by hand."""
    root = Path(__file__).resolve().parents[2]
    text = (root / "docs/first-hour.md").read_text()
    shown = text.partition("<!-- field:begin -->\n")[2].partition("<!-- field:end -->")[0]
    assert shown == field.field_table(root / "benchmarks/results/field")
