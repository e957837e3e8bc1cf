"""The roofline by hand: floors, what bounds them, what is not known, and the table of devices."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logoformer.benchmarks.report import fields
from logoformer.benchmarks.report.page import html
from logoformer.benchmarks.report.readme import readme_table
from logoformer.benchmarks.report.terminal import report_text
from logoformer.benchmarks.roofline import cpu_probe
from logoformer.benchmarks.roofline.devices import DEVICES, Device, find_devices
from logoformer.benchmarks.roofline.floor import Work, floor, work_of
from logoformer.benchmarks.roofline.graph_costs import Piece
from logoformer.benchmarks.roofline.report import Roofline, roofline, roofline_text, with_measured
from logoformer.bundle import Bundle
from logoformer.cli import main as cli
from logoformer.engine.builder.proof import xray
from logoformer.errors import MachineError, UsageError

BOARD = Device("board", 100.0, {"fp32": 2.0, "fp16": 10.0}, "its data sheet")
PIECES = (
    Piece("conv", "convolution", "fp16", 4 * 10**9, 10**6),
    Piece("norm", "elementwise", "fp32", 0, 5 * 10**7),
    Piece("odd", "matmul", "unclear", 10**6, 10**6),
)
WORK = Work("clip", "fp16", {"fp16": 4 * 10**9, "fp32": 10**9}, 2 * 10**7, 52 * 10**6, PIECES, "by hand")


# --------------------------------------------------------------------------------------------------------------- floors
def test_a_floor_by_hand():
    """2 x 4 G at 10 T/s is 0.8 ms, 2 x 1 G at 2 T/s is 1 ms; 20 MB at 100 GB/s is 0.2 ms."""
    found = floor(WORK, BOARD)
    assert found.compute_ms == pytest.approx(1.8)
    assert found.memory_ms == pytest.approx(0.2)
    assert (found.floor_ms, found.bound, found.reason) == (found.compute_ms, "compute", "")


def test_kernels_alone_by_hand():
    """conv: 0.8 ms of products against 0.01 ms of bytes; norm: 0.5 ms of bytes; odd: 0.01 ms of bytes."""
    found = floor(WORK, BOARD)
    assert found.pieces_ms == pytest.approx(0.8 + 0.5 + 0.01)
    assert [(heavy.name, heavy.bound) for heavy in found.heaviest] == [
        ("conv", "compute"), ("norm", "memory"), ("odd", "memory"),
    ]  # fmt: skip
    assert sum(heavy.share for heavy in found.heaviest) == pytest.approx(1)


def test_memory_bounds_what_moves_much():
    found = floor(replace(WORK, compulsory_bytes=10**9), BOARD)
    assert (found.floor_ms, found.bound) == (pytest.approx(10.0), "memory")


def test_what_is_not_documented_gives_no_floor_and_says_so():
    found = floor(replace(WORK, macs={"int8": 10}), BOARD)
    assert (found.floor_ms, found.pieces_ms, found.bound) == (None, None, "unknown")
    assert found.memory_ms == pytest.approx(0.2)
    assert found.reason == "its int8 peak is not in the table"
    blind = floor(WORK, replace(BOARD, memory_gb_s=None))
    assert blind.floor_ms is None and "bandwidth" in blind.reason


@given(
    macs=st.integers(1, 10**12), size=st.integers(1, 10**12), tops=st.floats(0.1, 1e4), speed=st.floats(1, 1e4)
)  # fmt: skip
def test_more_work_never_takes_less(macs, size, tops, speed):
    device = Device("any", speed, {"fp16": tops})
    one = floor(Work("clip", "fp16", {"fp16": macs}, size, size, (), ""), device)
    more = floor(Work("clip", "fp16", {"fp16": 2 * macs}, size + 1, size, (), ""), device)
    assert one.floor_ms is not None and more.floor_ms is not None
    assert 0 < one.floor_ms <= more.floor_ms
    assert one.floor_ms >= 2 * macs / (tops * 1e12) * 1e3 * (1 - 1e-9)


# -------------------------------------------------------------------------------------------------------------- devices
def test_every_peak_has_its_source_and_a_sane_size():
    for device in DEVICES:
        assert device.source and device.note and not device.measured
        assert device.memory_gb_s is None or 10 < device.memory_gb_s < 10_000
        assert set(device.peak_tops) <= {"fp32", "fp16", "int8"}
        rates = [device.peak_tops[name] for name in ("fp32", "fp16", "int8") if name in device.peak_tops]
        assert rates == sorted(rates), device.name  # fewer bits are never slower
        if {"fp16", "int8"} <= set(device.peak_tops):
            assert device.peak_tops["int8"] / device.peak_tops["fp16"] == pytest.approx(2, rel=0.05)
        words = f"{device.note} {device.source}".casefold()
        assert "dense" in words or "sparsity" in words or "fp16" not in device.peak_tops, device.name
    assert {"Orin Nano", "Orin NX", "AGX Orin", "Thor", "RTX 3090", "RTX 4090", "RTX 5090", "H100"} == {
        key for key in ("Orin Nano", "Orin NX", "AGX Orin", "Thor", "RTX 3090", "RTX 4090", "RTX 5090", "H100")
        if any(key in device.name for device in DEVICES)
    }  # fmt: skip


def test_devices_are_found_by_a_part_of_their_name():
    assert [device.name for device in find_devices("agx orin")] == ["Jetson AGX Orin 64GB (MAXN)"]
    assert find_devices(None) == DEVICES
    with pytest.raises(UsageError, match="'TPU'"):
        find_devices("TPU")


def test_this_cpu_is_measured_and_says_so():
    device = cpu_probe.measure_cpu(1, "Example CPU")
    assert device.measured and "measured here" in device.source and "Example CPU" in device.name
    assert "MatMul" in device.source or "Conv" in device.source
    tried = re.findall(r"(\w+) \S+ (MatMul|Conv) (\d+)", device.note)
    assert {name for name, _, _ in tried} == {"numpy", "onnxruntime", "openvino", "torch"} and len(tried) == 7
    assert 1e3 * device.peak_tops["fp32"] == pytest.approx(max(float(rate) for _, _, rate in tried), abs=0.5)
    assert device.memory_gb_s > 0 and device.peak_tops["fp32"] > 0
    assert set(device.peak_tops) == {"fp32"}  # nothing else was measured


def test_a_probe_that_dies_is_an_error_of_the_machine(monkeypatch):
    monkeypatch.setattr(cpu_probe.sys, "executable", "/nowhere/python")
    with pytest.raises(MachineError, match="probe of this CPU failed"):
        cpu_probe.measure_cpu(1, "x")


# ------------------------------------------------------------------------------------------------------------- a bundle
@pytest.fixture(scope="module")
def tiny(untrained_bundle):
    return Bundle(untrained_bundle)


def test_kernels_of_the_plan_are_the_pieces(tiny):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (the extra 'rtx')")
    entry = tiny.graph("temporal", "fp16")
    work = work_of(tiny, entry)
    plan = xray(tiny.read_graph(entry), "sm86", shown=entry.file)
    assert work.plan == f"{plan.compiler}, sm86"
    assert len(work.pieces) == len(plan.kernels)
    assert work.touched_bytes == plan.bytes
    assert sum(piece.macs for piece in work.pieces) == sum(plan.macs)
    assert work.macs == dict(entry.macs)
    assert any(piece.role == "attention" and piece.macs for piece in work.pieces)


def test_without_the_compiler_nodes_are_the_pieces(tiny, monkeypatch):
    from logoformer.benchmarks.roofline import floor as module

    def missing(*_, **__):
        raise MachineError("TensorRT-RTX is not installed.")

    monkeypatch.setattr(module, "xray", missing)
    work = work_of(tiny, tiny.graph("frame", "fp32"))
    assert work.plan == "ONNX nodes, nothing fused (TensorRT-RTX is not installed.)"
    assert {piece.role for piece in work.pieces} >= {"Conv", "Relu", "Add"}
    assert sum(piece.macs for piece in work.pieces) == sum(work.macs.values())


@pytest.mark.parametrize("graph", ["clip", "frame", "temporal"])
def test_int8_as_quantize_writes_it_is_counted(int8_bundle, graph, monkeypatch):
    from logoformer.benchmarks.roofline import floor as module

    def missing(*_, **__):
        raise MachineError("TensorRT-RTX is not installed.")

    monkeypatch.setattr(module, "xray", missing)
    bundle = Bundle(int8_bundle)
    work, fp32 = (work_of(bundle, bundle.graph(graph, precision)) for precision in ("int8", "fp32"))
    assert work.macs["int8"] > 0.9 * sum(work.macs.values()) and sum(work.macs.values()) == sum(fp32.macs.values())
    assert work.compulsory_bytes < fp32.compulsory_bytes / 2


@pytest.fixture(scope="module")
def found(tiny):
    return roofline(tiny, "fp32", 1)


def test_a_measurement_stands_over_the_floor_of_its_own_machine(found):
    cpu = found.devices[-1].name
    again = with_measured(found, cpu, "fp32", {"clip": 100.0, "stream": 50.0})
    clip, stream = again.measured
    assert clip.ratio == pytest.approx(100 / found.floor_ms(cpu, "fp32", ("clip",)))
    both = found.floor_ms(cpu, "fp32", ("frame",)) + found.floor_ms(cpu, "fp32", ("temporal",))
    assert stream.floor_ms == pytest.approx(both)
    assert with_measured(found, cpu, "fp16", {"clip": 1.0}).measured == ()  # no FP16 peak of this CPU is known
    assert "100.00 ms" in roofline_text(again) and f"{clip.ratio:.2f} x its floor" in roofline_text(again)


def test_a_floor_that_is_beaten_is_a_failed_probe_and_is_printed_nowhere(made, found):
    cpu = found.devices[-1].name
    least = found.floor_ms(cpu, "fp32", ("clip",))
    again = with_measured(found, cpu, "fp32", {"clip": least / 2, "stream": 1e6})
    assert again.measured == () and cpu not in {device.name for device in again.devices}
    assert cpu not in {item.device for item in again.floors} and len(again.floors) < len(found.floors)
    assert again.failed.startswith(f"the peak rates of {cpu} failed: clip ran 2.00 times as fast as they allow")
    assert with_measured(found, cpu, "fp32", {"clip": least}).failed == ""  # exactly at its floor
    assert again.failed in roofline_text(again)
    report = made.report(roofline=again)
    for shown in (report_text(report), readme_table(report), html(report)):
        assert "failed: clip ran 2.00 times" in shown and f"{least:.3f}" not in shown


def test_it_says_that_it_is_computed(found):
    shown = roofline_text(found)
    assert shown.startswith("Roofline: computed from documents, not measured.")
    for device in found.devices:
        assert device.name in shown and device.source in shown
    assert all(math.isfinite(item.floor_ms) for item in found.floors if item.floor_ms is not None)


def test_it_survives_json(found):
    assert fields.read(Roofline, json.loads(json.dumps(asdict(found)))) == found


def test_the_verb_measures_nothing(tiny, capsys, monkeypatch):
    monkeypatch.setattr("logoformer.benchmarks.bench.bench", lambda *_: pytest.fail("something was measured"))
    assert cli.main(["bench", str(tiny.path), "--roofline", "--device", "AGX Orin", "--precision", "fp16"]) == 0
    shown = capsys.readouterr().out
    assert (
        "Jetson AGX Orin 64GB (MAXN)" in shown and "this CPU" not in shown and " fp32 " not in shown.split("Jetson")[0]
    )
    assert cli.main(["bench", str(tiny.path), "--roofline", "--device", "AGX Orin", "--json"]) == 0
    assert fields.read(Roofline, json.loads(capsys.readouterr().out)).devices[0].name.startswith("Jetson AGX Orin")


def test_the_verb_refuses_what_is_not_there(tiny, fails):
    fails(2, "bench", tiny.path, "--roofline", "--device", "abacus", names=("abacus",))
    fails(2, "bench", tiny.path, "--roofline", "--precision", "int4", names=("int4",))


def test_floors_need_neither_torch_nor_onnx(tiny):
    code = """
import sys
for name in ("torch", "onnx", "tensorrt_rtx", "tensorrt_rtx_bindings", "onnxruntime"):
    sys.modules[name] = None
from logoformer.cli.main import main
assert main(["bench", sys.argv[1], "--roofline"]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code, tiny.path], capture_output=True, text=True, check=True)
    assert "ONNX nodes, nothing fused" in done.stdout


def test_a_gpu_is_looked_up_by_the_name_it_gives_itself(made, tiny, found, monkeypatch):
    from logoformer.benchmarks.report.records import Subject
    from logoformer.benchmarks.roofline import report as module

    assert module.in_table("NVIDIA Jetson AGX Orin Developer Kit (integrated)") == "Jetson AGX Orin 64GB (MAXN)"
    assert module.in_table("NVIDIA GeForce RTX 4090 Laptop GPU") is None
    monkeypatch.setattr(module, "roofline", lambda *_, **__: found)
    rows = (made.row("clip"), made.row("stream", hop=1), made.row("stream", hop=4), made.row("onnxruntime"))

    def over(device):
        subject = Subject("b", "tiny", "fp32", "x", device, {})
        return [(m.row, m.device) for m in module.floors(tiny, subject, 1, rows, None).measured]

    assert over("cpu") == [("clip", found.devices[-1].name), ("stream", found.devices[-1].name)]
    assert over("NVIDIA GeForce RTX 4090") == [("clip", "GeForce RTX 4090"), ("stream", "GeForce RTX 4090")]
    assert over("NVIDIA Unknown") == []


def test_the_readme_table_names_what_it_is_computed_from(made):
    assert "`clip` took 10.00 times the roofline's 0.500 ms, which is computed" in readme_table(made.report())
    assert "roofline" not in readme_table(made.report(roofline=None))


def test_a_graph_without_shapes_costs_no_measurement(made, toy):
    """The toy's tensors are not annotated: the report says so, and keeps what was measured."""
    from logoformer.benchmarks.roofline.report import floors

    found = floors(toy, made.report().subject, 1, (made.row("clip"),), None)
    assert found.works == found.floors == found.measured == ()
    assert found.how.startswith("not computed: ") and "static shape" in found.how
    report = made.report(roofline=found)
    assert "roofline not computed" in report_text(report)
    assert "Roofline: floor" not in html(report)
