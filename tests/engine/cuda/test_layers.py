"""The two CUDA layers against the real packages, as far as a machine without a card has them."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from doubles.listed import read_list
from doubles.machine import FACES, machine
from logoformer.engine.cuda import bindings as cuda_python
from logoformer.engine.cuda import pycuda as cuda_pycuda
from logoformer.engine.cuda.layer import STICKY, CudaError, explain
from logoformer.engine.cuda.open import open_cuda
from logoformer.errors import DeviceLostError, MachineError, UsageError

APIS = Path(__file__).parents[1] / "apis"
ROOT = Path(__file__).resolve().parents[3]
ENGINE = Path(cuda_python.__file__ or "").parents[1]


# ------------------------------------------------------------------------------------------------ cuda-python, for real
@pytest.fixture(scope="module")
def runtime():
    return pytest.importorskip("cuda.bindings.runtime", reason="needs the extra 'dev': cuda-bindings")


def test_every_name_exists_in_the_installed_cuda_bindings(runtime):
    from cuda.bindings import driver

    for module, owner, least in ((runtime, "rt", 25), (driver, "cu", 5)):
        used = {node.attr for node in ast.walk(_tree(cuda_python)) if _on(node, owner)}
        assert len(used) > least
        assert {name for name in used if not hasattr(module, name)} == set()


def test_the_list_is_that_of_the_installed_cuda_bindings(runtime, monkeypatch):
    """The doubles' list is generated: where the same version is installed, it must come out the same."""
    from importlib.metadata import version

    monkeypatch.syspath_prepend(str(APIS))
    from make_cuda_lists import read_cuda_bindings

    listed = read_list("cuda-bindings")
    if version("cuda-bindings") != listed["version"]:
        pytest.skip(f"the list is of cuda-bindings {listed['version']}")
    assert read_cuda_bindings() == listed


def test_the_texts_of_sticky_errors_are_cudas_own(runtime):
    """pycuda's exceptions carry the text only, so the text decides."""
    for name, text in STICKY.items():
        error = getattr(runtime.cudaError_t, name)
        assert runtime.cudaGetErrorString(error)[1].decode() == text
        assert CudaError("call", f"call failed: {text}").sticky and CudaError("call", f"{name} ({text})").sticky
    for name in ("cudaErrorMemoryAllocation", "cudaErrorInvalidValue", "cudaErrorNotReady"):
        text = runtime.cudaGetErrorString(getattr(runtime.cudaError_t, name))[1].decode()
        assert not CudaError("call", f"{name} ({text})").sticky
    assert CudaError("call", "cuMemAlloc failed: out of memory").no_memory


def test_without_a_driver_the_real_package_says_so(runtime):
    """In a process of its own: no double, no card."""
    if Path("/dev/nvidia0").exists() or Path("/dev/nvhost-gpu").exists():
        pytest.skip("this machine has a card")
    script = """
        from logoformer.engine.cuda.open import open_cuda
        from logoformer.errors import MachineError
        try:
            open_cuda("cuda-python")
        except MachineError as error:
            print(error)
    """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    ).stdout
    assert "finds no card 0" in said and "Next: nvidia-smi" in said


def mypy(folder: Path, source: str | None = None) -> subprocess.CompletedProcess[str]:
    """Checks `engine/cuda/bindings.py`, or a changed copy of it, with the real package's names followed."""
    config = (ROOT / "pyproject.toml").read_text().replace('"cuda.*", ', "").replace("[tool.mypy]", "[tool.mypy]", 1)
    (folder / "pyproject.toml").write_text(config)
    package = folder / "types" / "logoformer"
    layers = package / "engine" / "cuda"
    if not package.exists():
        layers.mkdir(parents=True)
        for path in (package, package / "engine", layers):
            (path / "__init__.py").touch()
        for name in ("errors.py", "engine/cuda/layer.py", "engine/cuda/queue.py", "engine/cuda/bindings.py"):
            (package / name).write_text((ROOT / name).read_text())
    if source is not None:
        (layers / "bindings.py").write_text(source)
    environment = {**os.environ, "MYPYPATH": f"{folder / 'types'}{os.pathsep}{folder / 'stubs'}"}
    words = [sys.executable, "-m", "mypy", "--config-file", str(folder / "pyproject.toml"), "--cache-dir", str(folder)]
    words += ["-m", "logoformer.engine.cuda.bindings", "-m", "logoformer.engine.cuda.layer"]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_cuda_python_type_checks_against_the_real_package(runtime, tmp_path, monkeypatch):
    """Not skipped: followed into stubs made from the installed package. A wrong name, count or enum is an error."""
    pytest.importorskip("mypy", reason="needs the extra 'dev': mypy")
    monkeypatch.syspath_prepend(str(APIS))
    from make_stubs import write_stubs

    write_stubs(tmp_path / "stubs")
    good = mypy(tmp_path)
    assert good.returncode == 0, good.stdout
    source = (ROOT / "engine" / "cuda" / "bindings.py").read_text()
    for right, wrong, said in (
        ("rt.cudaMemsetAsync(", "rt.cudaMemSetAsync(", "cudaMemSetAsync"),
        ("rt.cudaFree(pointer)", "rt.cudaFree(pointer, 0)", "Too many arguments"),
        ("rt.cudaStreamNonBlocking", "rt.cudaStreamNonblocking", "cudaStreamNonblocking"),
        ("cudaStreamCaptureModeThreadLocal", "cudaStreamCaptureModeThread", "cudaStreamCaptureModeThread"),
        ("rt.cudaMemcpyKind.cudaMemcpyDefault", "rt.cudaMemcpyKind.cudaMemcpyDefaults", "cudaMemcpyDefaults"),
        ("cu.cuDeviceGet(self.device)", "cu.cuDeviceGet()", "Too few arguments"),
    ):
        assert right in source
        bad = mypy(tmp_path, source.replace(right, wrong))
        assert bad.returncode == 1 and said in bad.stdout, (wrong, bad.stdout)


# -------------------------------------------------------------------------------------------------- pycuda, by its list
DRIVER = ("drv", "self._drv")
# What the layer calls an object of each class.
OBJECTS = {
    "card": "Device",
    "self._context": "Context",
    "memory": "DeviceAllocation",
    "self._memory.pop(pointer)": "DeviceAllocation",
    "allocation": "PagelockedHostAllocation",
    "block.handle": "PagelockedHostAllocation",
    "stream": "Stream",
    "self._streams[stream]": "Stream",
    "self._events[event]": "Event",
}


def pycuda_names(source: str) -> dict[str, set[str]]:
    """Names by the class that they are asked of; '' for the module `pycuda.driver`."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            if owner in DRIVER:
                found.setdefault("", set()).add(node.attr)
            elif owner in OBJECTS:
                found.setdefault(OBJECTS[owner], set()).add(node.attr)
            elif owner.startswith(tuple(f"{name}." for name in DRIVER)) or owner == "attribute":
                name = "device_attribute" if owner == "attribute" else owner.rpartition(".")[2]
                found.setdefault(name, set()).add(node.attr)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._call":
            found.setdefault("", set()).add(ast.literal_eval(node.args[0]))
    return found


def unknown(names: dict[str, set[str]]) -> set[str]:
    listed = read_list("pycuda")
    module = {*listed["functions"], *listed["classes"], *listed["errors"]}
    known = {"": module, **{name: set(members) for name, members in listed["classes"].items()}}
    return {f"{owner}.{name}" for owner, found in names.items() for name in found - known.get(owner, set())}


def test_every_pycuda_name_stands_in_its_source_distribution():
    source = Path(cuda_pycuda.__file__).read_text()
    names = pycuda_names(source)
    assert {"Device", "Context", "DeviceAllocation", "PagelockedHostAllocation", "Stream", "Event"} <= set(names)
    assert {"init", "mem_alloc", "pagelocked_empty", "memcpy_htod_async", "Error"} <= names[""]
    assert unknown(names) == set()


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('self._call("mem_alloc"', 'self._call("mem_malloc"'),
        ("drv.init()", "drv.initialise()"),
        ("card.retain_primary_context()", "card.retain_context()"),
        ("host_alloc_flags.DEVICEMAP", "host_alloc_flags.MAPPED"),
        (".wait_for_event,", ".wait_event,"),
        ("attribute.INTEGRATED", "attribute.IS_INTEGRATED"),
    ],
)
def test_a_name_that_pycuda_lacks_is_found(right, wrong):
    source = Path(cuda_pycuda.__file__).read_text()
    assert right in source and len(unknown(pycuda_names(source.replace(right, wrong)))) == 1


def test_pycuda_never_makes_a_context_of_its_own():
    words = set(re.findall(r"\w+", ast.unparse(_tree(cuda_pycuda)).split('"""', 2)[2]))
    assert not words & {"autoinit", "make_context", "autoprimaryctx", "attach"}
    text = Path(cuda_pycuda.__file__).read_text()
    assert "import pycuda.autoinit" not in text


def test_the_package_uses_no_other_way_to_cuda():
    found = set()
    for path in ENGINE.rglob("*.py"):
        imports = {name for node in ast.walk(ast.parse(path.read_text())) for name in _imported(node)}
        if any(name.startswith(("cuda.", "pycuda", "cupy")) for name in imports):
            found.add(path)
    assert found == {ENGINE / "cuda" / name for name in ("bindings.py", "pycuda.py")}


# ------------------------------------------------------------------------------------------------------------- choosing
@pytest.mark.parametrize("layer", FACES)
def test_auto_takes_the_layer_that_is_installed(layer):
    with machine("10.3", layer, sm="sm87", integrated=True):
        opened = open_cuda()
        assert opened.name.startswith(layer) and opened.has_graphs == (layer == "cuda-python")
        assert (opened.compute_capability, opened.integrated, opened.device) == ("sm87", True, 0)
        other = next(name for name in FACES if name != layer)
        with pytest.raises(MachineError, match="not installed") as caught:
            open_cuda(other)
        assert "pip install 'logoformer[" in caught.value.next


@pytest.mark.parametrize("layer", FACES)
def test_a_card_that_is_not_there(layer):
    with machine("10.3", layer, count=2):
        assert open_cuda(layer, 1).device == 1
        with pytest.raises(MachineError, match="finds no card 2: there are 2"):
            open_cuda(layer, 2)
    with machine("10.3", layer, count=0):
        with pytest.raises(MachineError, match="finds no card 0") as caught:
            open_cuda()  # 'auto' names what the installed layer says, not what the other one lacks
        assert caught.value.next == "nvidia-smi"


def test_wrong_arguments():
    with pytest.raises(UsageError, match="'numba'"):
        open_cuda("numba")
    with pytest.raises(UsageError, match="counted from 0"):
        open_cuda("auto", -1)


def test_faults_are_explained():
    with machine("10.3", "cuda-python"):
        opened = open_cuda()
        short = explain(CudaError("cudaMalloc", "cudaErrorMemoryAllocation (out of memory)"), opened, "opening x", 12)
        assert "12 bytes were asked for" in str(short) and not opened.lost
        other = explain(CudaError("cudaFree", "cudaErrorInvalidValue (invalid argument)"), opened, "closing x")
        assert isinstance(other, MachineError) and "logoformer doctor" in other.next and not opened.lost
        gone = explain(CudaError("cudaFree", "cudaErrorIllegalAddress (...)"), opened, "running x")
        assert isinstance(gone, DeviceLostError) and opened.lost.startswith("cudaFree")
        first = opened.lost
        explain(CudaError("cudaMalloc", "cudaErrorAssert (...)"), opened, "running y")
        assert opened.lost == first  # what came first is the cause


def _tree(module: object) -> ast.Module:
    return ast.parse(Path(str(module.__file__)).read_text())


def _on(node: ast.AST, owner: str) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == owner


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [f"{node.module}."]
    return []
