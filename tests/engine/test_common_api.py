"""The builder may use only names that every supported TensorRT has.

The lists are the intersection of the Python bindings 10.3.0, 10.7.0, 10.16.1, 11.4.0 and TensorRT-RTX 1.7.1, as far as
this package needs them; names that only RTX has are listed apart and may be used only where RTX is sure.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from logoformer.engine.builder import compile as compile_module

COMMON = {
    "builder": {"create_network", "create_builder_config", "build_serialized_network"},
    "config": {
        "builder_optimization_level",
        "clear_flag",
        "create_timing_cache",
        "get_flag",
        "get_memory_pool_limit",
        "get_timing_cache",
        "hardware_compatibility_level",
        "max_aux_streams",
        "profiling_verbosity",
        "progress_monitor",
        "set_flag",
        "set_memory_pool_limit",
        "set_timing_cache",
    },
    "network": {"num_layers", "get_layer", "num_inputs", "get_input", "num_outputs"},
    "parser": {"parse", "num_errors", "get_error"},
    "layer": {"type", "name", "num_outputs", "get_output", "get_input"},
    "tensor": {"name", "shape", "dtype"},
    "errors[0]": {"desc", "node", "node_name", "node_operator"},
    "module": {
        "Builder",
        "BuilderFlag",
        "HardwareCompatibilityLevel",
        "ILogger",
        "IProgressMonitor",
        "MemoryPoolType",
        "NetworkDefinitionCreationFlag",
        "OnnxParser",
        "ProfilingVerbosity",
        "__version__",
    },
    "BuilderFlag": {"TF32"},
    "HardwareCompatibilityLevel": {"AMPERE_PLUS"},
    "MemoryPoolType": {"WORKSPACE"},
}
RTX_ONLY = {"config": {"num_compute_capabilities", "set_compute_capability"}, "module": {"ComputeCapability"}}
# The X-ray runs on RTX alone, so its counting may reach into a convolution.
XRAY_ONLY = {"module": {"LayerType", "IConvolutionLayer"}, "layer": {"num_groups", "kernel_size_nd", "__class__"}}
CLASSES = {
    "builder": "Builder",
    "config": "IBuilderConfig",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "layer": "ILayer",
    "tensor": "ITensor",
    "errors[0]": "ParserError",
    "BuilderFlag": "BuilderFlag",
    "HardwareCompatibilityLevel": "HardwareCompatibilityLevel",
    "MemoryPoolType": "MemoryPoolType",
}
FOLDER = Path(compile_module.__file__).parents[1]


def used(path: Path) -> dict[str, set[str]]:
    """Attribute names by the object that they are asked of, judged by what the object is called."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value).split(".")[-1].lstrip("_")
            called = node.value.func if isinstance(node.value, ast.Call) else None
            if isinstance(called, ast.Attribute) and called.attr in ("get_output", "get_input"):
                owner = "tensor"
            if owner in COMMON:
                found.setdefault(owner, set()).add(node.attr)
    return found


def test_the_builder_uses_the_common_subset() -> None:
    for name in ("builder/compile.py", "machine/log.py", "machine/tensorrt.py"):
        for owner, names in used(FOLDER / name).items():
            allowed = COMMON[owner] | (RTX_ONLY.get(owner, set()) if name == "builder/compile.py" else set())
            assert names <= allowed, f"{name}: {owner} has no {names - allowed} in every TensorRT"


def test_the_scan_sees_every_name_on_the_lists() -> None:
    """A list with names that nobody uses would hide that the scan looks at the wrong variables."""
    seen: dict[str, set[str]] = {}
    for name in ("builder/compile.py", "machine/log.py", "machine/tensorrt.py", "plan/macs.py"):
        for owner, names in used(FOLDER / name).items():
            seen.setdefault(owner, set()).update(names)
    listed = {o: COMMON[o] | RTX_ONLY.get(o, set()) | XRAY_ONLY.get(o, set()) for o in COMMON}
    assert seen == listed


def test_rtx_only_names_stand_behind_a_question_for_rtx() -> None:
    tree = ast.parse((FOLDER / "builder/compile.py").read_text())
    guarded: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "self.trt.target == 'rtx'" in ast.unparse(node.test):
            guarded |= {item.attr for item in ast.walk(node) if isinstance(item, ast.Attribute)}
    assert RTX_ONLY["config"] <= guarded
    elsewhere = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in RTX_ONLY["config"]]
    assert len(elsewhere) == len(RTX_ONLY["config"])


def test_counting_uses_what_rtx_has() -> None:
    for owner, names in used(FOLDER / "plan/macs.py").items():
        assert names <= COMMON[owner] | XRAY_ONLY.get(owner, set())


@pytest.mark.parametrize("owner", CLASSES)
def test_the_names_exist_in_the_installed_rtx(rtx: Any, owner: str) -> None:
    there = getattr(rtx, CLASSES[owner])
    assert {name for name in COMMON[owner] if not hasattr(there, name)} == set()


def test_removed_names_are_never_spoken_of() -> None:
    """Precision flags, calibrators and per-layer precisions are gone in TensorRT 11: not even behind getattr."""
    gone = {"FP16", "INT8", "BF16", "int8_calibrator", "set_output_type", "dynamic_range", "OBEY_PRECISION_CONSTRAINTS"}
    for path in FOLDER.rglob("*.py"):
        words = {
            node.attr if isinstance(node, ast.Attribute) else node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
        }
        assert not words & gone, path.name
