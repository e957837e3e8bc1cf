"""What the facts of a machine mean: one verdict a part, and the exact command that mends it.

Each rule reads `Facts` and nothing else, so a recorded machine gives the same advice here as there. Sources of the
limits: NVIDIA's support matrices and migration guides for TensorRT 10 and 11, the wheels' own metadata, and the Debian
packages of JetPack 6.2 and 7.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import command
from ..machine.targets import RTX_SMS
from .facts import Facts, Module, version_numbers

OK, FIX, NOTE = "ok", "fix", "--"

TRT_OLDEST, TRT_TESTED, TRT_BEYOND = (10, 3), (11, 4), (12,)
RTX_OLDEST, RTX_BEYOND = (1, 7), (1, 8)  # the API that is used; engines do not move between versions
PYTHON_OLDEST, PYTHON_TESTED = (3, 10), (3, 13)
L4T_OLDEST = (36, 4)  # JetPack 6.1: the first with TensorRT 10
JETPACKS = {
    "35": "5", "36.3": "6.0", "36.4": "6.1 or 6.2", "36.5": "6.2.2", "38.2": "7.0", "38.4": "7.1", "39.2": "7.2",
}  # fmt: skip
# cuInit's answers that have a known way out.
CUDA_ERRORS = {
    34: ("the library that answers is a stub for linking", "unset LD_LIBRARY_PATH"),
    100: ("the driver is there, but no GPU is visible", "unset CUDA_VISIBLE_DEVICES"),
    801: ("this user may not use the GPU", 'sudo usermod -aG video,render "$USER"  # then log in again'),
    803: ("the driver's library and its kernel module are of two versions", "sudo reboot"),
    999: ("the driver is in a bad state", "sudo reboot"),
}


@dataclass(frozen=True)
class Check:
    """One part of a machine.

    Attributes:
        name: such as 'tensorrt'.
        status: `OK`; `FIX`, something is wrong; `NOTE`, it is missing and may well be.
        text: what was found.
        fixes: commands, in order.
    """

    name: str
    status: str
    text: str
    fixes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BackendState:
    """Whether one backend can run a bundle here."""

    name: str
    runs: bool
    text: str


def pip(f: Facts, *words: str) -> str:
    """A pip command for the interpreter that was looked at, or for the environment that is advised instead of it."""
    python = ".venv/bin/python" if check_python(f).fixes else f.interpreter.executable
    return command(python, "-m", "pip", *words)


def _extra(f: Facts, extra: str) -> str:
    return pip(f, "install", f"logoformer[{extra}]")


def _uninstall(f: Facts, names: tuple[str, ...]) -> str:
    return pip(f, "uninstall", "-y", *names)


def _names(module: Module, folder: str = "") -> tuple[str, ...]:
    """Distributions that claim a module, each once, sorted: a folder lists them in no order."""
    return tuple(sorted({d.name for d in module.owners if not folder or d.folder == folder}))


def _of_system(module: Module) -> bool:
    return module.folder.startswith("/usr/lib/python3")


def _whose(f: Facts, module: Module) -> str:
    if _of_system(module):
        return "JetPack's" if f.jetson else "apt's"
    return "a wheel's" if _names(module) else "no package's"


def _version(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


# --------------------------------------------------------------------------------------------------------------- checks
def check_python(f: Facts) -> Check:
    """The interpreter, and whether it sees what JetPack brings."""
    kind = "the system's own"
    if f.interpreter.in_venv:
        kind = "virtual environment, " + ("with" if f.system_packages else "without") + " the system's packages"
    text = f"{f.interpreter.version}, {kind}"
    if f.python[:2] < PYTHON_OLDEST:
        return Check("python", FIX, f"{text}; {_version(PYTHON_OLDEST)} or newer is needed")
    if f.jetson and f.hidden:
        folder = next(iter(f.hidden.values()))
        named = re.search(r"/(python3\.\d+)/", folder)
        other = named is not None and named[1] != f"python{f.python[0]}.{f.python[1]}"
        why = (
            f"it is not the {named[1]} of JetPack's packages"
            if other and named
            else "it does not see JetPack's packages"
        )
        return Check(
            "python", FIX, f"{text}; {why} in {folder}", _venv(f, f"/usr/bin/{named[1] if named else 'python3'}")
        )
    if f.managed and not f.interpreter.in_venv:
        return Check("python", FIX, f"{text}; pip installs nothing into it (PEP 668)", _venv(f, "/usr/bin/python3"))
    if f.python[:2] > PYTHON_TESTED:
        text += f"; newer than what was tested ({_version(PYTHON_TESTED)})"
    return Check("python", OK, text)


def _venv(f: Facts, python: str) -> tuple[str, ...]:
    from ... import __version__

    extras = ["cpu", *(["jetson", _cuda_extra(f)] if f.jetson else [])]
    wheel = f"logoformer-{__version__}-py3-none-any.whl[{','.join(extras)}]"
    return (
        command(python, "-m", "venv", "--system-site-packages", ".venv"),
        command(".venv/bin/python", "-m", "pip", "install", wheel),
    )


def check_jetpack(f: Facts) -> Check | None:
    """The board and its software."""
    if not f.jetson:
        return None
    numbers = version_numbers(f.l4t)
    deb = f.debs.get("nvidia-jetpack", "")
    guess = JETPACKS.get(_version(numbers[:2]), JETPACKS.get(str(numbers[0]), "unknown"))
    jetpack = f"JetPack {deb} " if deb else f"JetPack {guess} by its L4T, package nvidia-jetpack not installed "
    text = f"{f.board or 'a Jetson'}, {jetpack}(L4T {f.l4t or 'unknown'})"
    if f.l4t and numbers < L4T_OLDEST:
        return Check("jetpack", FIX, f"{text}; its TensorRT is too old: flash JetPack 6.2 or newer, or use the CPU")
    if not any(name in f.debs for name in ("tensorrt", "python3-libnvinfer", "libnvinfer10")):
        return Check("jetpack", FIX, f"{text}; TensorRT is not installed", ("sudo apt install nvidia-jetpack",))
    return Check("jetpack", OK, text)


def check_gpu(f: Facts) -> Check:
    """Cards, driver, CUDA."""
    driver = f"driver {f.driver}" if f.driver else "driver of unknown version"
    if f.gpus:
        cards = "; ".join(f"{g.name}, {g.sm}, {g.memory_mib / 1024:.1f} GiB" for g in f.gpus)
        return Check("gpu", OK, f"{cards}; {driver}, CUDA {_version(f.cuda)}")
    if f.cuda_init > 0:
        why, fix = CUDA_ERRORS.get(f.cuda_init, ("CUDA does not start", "nvidia-smi"))
        return Check("gpu", FIX, f"{driver}, but cuInit gives {f.cuda_init}: {why}", (fix,))
    if f.driver or f.smi or f.jetson:
        seen = f"; nvidia-smi lists {'; '.join(f.smi)}" if f.smi else ""
        why = f.cuda_error or "libcuda.so.1 gives no answer"
        return Check("gpu", FIX, f"{driver}{seen}, but CUDA cannot be used: {why}", _driver_library(f))
    return Check("gpu", NOTE, f"no NVIDIA GPU: no driver is loaded ({f.cuda_error or 'CUDA gives no answer'})")


def _driver_library(f: Facts) -> tuple[str, ...]:
    if f.jetson:
        return ("sudo apt install --reinstall nvidia-l4t-cuda && sudo ldconfig",)
    major = f.driver.split(".")[0]
    return (f"sudo apt install libnvidia-compute-{major}  # in a container: docker run --gpus all",) if major else ()


def check_tensorrt(f: Facts) -> Check:
    """TensorRT: which one wins, and whether it is one that was tested."""
    name = "tensorrt"
    module = _first(f, "tensorrt", "tensorrt_bindings")
    if not module.files:
        if name in f.hidden:
            return Check(
                name, FIX, f"JetPack's stands in {f.hidden[name]}, which this Python does not search: see python"
            )
        if f.jetson:
            return Check(name, FIX, "not installed", ("sudo apt install nvidia-jetpack",))
        wanted = (_extra(f, "tensorrt"),) if f.gpus and f.interpreter.architecture == "x86_64" else ()
        return Check(name, NOTE, "not installed", wanted)
    wheels = _names(module, module.folder)
    if not module.works:
        mend = (_uninstall(f, wheels),) if wheels and not _of_system(module) else ()
        again = "sudo apt install --reinstall python3-libnvinfer" if f.jetson or _of_system(module) else _extra(f, name)
        return Check(name, FIX, f"{module.folder} holds one that does not import: {module.error}", (*mend, again))
    text = f"{module.version}, {_whose(f, module)}, as {module.name} in {module.folder}{_library(f)}{_shadowed(module)}"
    if f.jetson and not _of_system(module):
        return Check(name, FIX, f"{text}; a wheel hides JetPack's own", (_uninstall(f, wheels),) if wheels else ())
    numbers = module.numbers()
    if not TRT_OLDEST <= numbers < TRT_BEYOND:
        bounds = f">={_version(TRT_OLDEST)},<{_version(TRT_BEYOND)}"
        fix = () if f.jetson else (pip(f, "install", f"tensorrt{bounds}"),)
        return Check(name, FIX, f"{text}; outside of {bounds}", fix)
    if numbers[:2] == (10, 13) and any(g.sm == "sm87" for g in f.gpus):
        return Check(name, FIX, f"{text}; 10.13 has no code for sm87: JetPack 7.2 brings 10.16")
    return Check(name, OK, text + ("; newer than what was tested" if numbers[:2] > TRT_TESTED else ""))


def _first(f: Facts, *names: str) -> Module:
    """The first of the import names that stands anywhere; else the first."""
    return next((f.modules[name] for name in names if f.modules[name].files), f.modules[names[0]])


def _library(f: Facts) -> str:
    found = [match[1] for match in (re.search(r"libnvinfer\.so\.([\d.]+)$", path) for path in f.libraries) if match]
    return f"; libnvinfer {', '.join(dict.fromkeys(found))}" if found else ""


def _shadowed(module: Module) -> str:
    return f"; hides {', '.join(module.files[1:])}" if len(module.files) > 1 else ""


def check_rtx(f: Facts) -> Check | None:
    """TensorRT-RTX: the builder that needs no GPU."""
    module = _first(f, "tensorrt_rtx", "tensorrt_rtx_bindings")
    if not module.files:
        if f.jetson:
            return None  # it knows no Jetson
        extra = (_extra(f, "rtx"),) if f.interpreter.architecture == "x86_64" else ()
        return Check("tensorrt-rtx", NOTE, "not installed; it builds engines for RTX cards, without a GPU too", extra)
    if not module.works:
        mend = (_uninstall(f, _names(module)), _extra(f, "rtx"))
        return Check("tensorrt-rtx", FIX, f"{module.folder} holds one that does not import: {module.error}", mend)
    text = f"{module.version}, as {module.name}{_shadowed(module)}"
    if not RTX_OLDEST <= module.numbers() < RTX_BEYOND:
        return Check("tensorrt-rtx", FIX, f"{text}; 1.7 is what was tested", (_extra(f, "rtx"),))
    return Check("tensorrt-rtx", OK, f"{text}: builds engines here, with or without a GPU")


def check_cuda_layer(f: Facts) -> Check:
    """cuda-python or pycuda: how Python reaches CUDA for the TensorRT backends."""
    name = "cuda layer"
    found = [f.modules[key] for key in ("cuda.bindings.runtime", "pycuda.driver")]
    there = [module for module in found if module.files]
    titles = {"cuda.bindings.runtime": "cuda-python", "pycuda.driver": "pycuda"}
    extra = _extra(f, _cuda_extra(f))
    if not there:
        if f.gpus or f.jetson:
            return Check(name, FIX, "neither cuda-python nor pycuda: TensorRT cannot be driven", (extra,))
        return Check(name, NOTE, "neither cuda-python nor pycuda; not needed without a GPU")
    bindings = found[0]
    if f.gpus and bindings.works and bindings.numbers()[0] > f.cuda[0]:
        text = f"cuda-python {bindings.version} is for a newer driver; this one speaks CUDA {_version(f.cuda)}"
        return Check(name, FIX, text, (extra,))
    working = [module for module in there if module.works]
    text = ", ".join(f"{titles[m.name]} {m.version}" for m in working)
    broken = "; ".join(f"{titles[m.name]} does not import: {m.error}" for m in there if not m.works)
    if working or not (f.gpus or f.jetson):  # pycuda's driver half cannot load where no driver is
        return Check(name, OK if working else NOTE, "; ".join(part for part in (text, broken) if part))
    return Check(name, FIX, broken, (extra,))


def _cuda_extra(f: Facts) -> str:
    return "cuda13" if f.cuda[0] >= 13 else "cuda12"


def check_onnxruntime(f: Facts) -> Check:
    """ONNX Runtime: two wheels, one module."""
    name, module = "onnxruntime", f.modules["onnxruntime"]
    owners = _names(module)
    if len(owners) > 1:
        keep = "onnxruntime-gpu" if f.gpus and "onnxruntime-gpu" in owners else "onnxruntime"
        text = f"{' and '.join(owners)} are installed over each other: one module, one wheel"
        return Check(name, FIX, text, (_uninstall(f, owners), pip(f, "install", keep)))
    if not module.files:
        return Check(name, FIX, "not installed", (_extra(f, "cpu"),))
    if not module.works:
        mend = (_uninstall(f, owners),) if owners else ()
        return Check(name, FIX, f"does not import: {module.error}", (*mend, _extra(f, "cpu")))
    text = f"{module.version} ({owners[0] if owners else 'no wheel'}): {', '.join(_providers(module))}"
    gpu_only = len(_providers(module)) > 1 and not f.gpus
    return Check(name, OK, text + ("; without a GPU, CPU alone" if gpu_only else ""))


def _providers(module: Module) -> list[str]:
    known = [str(name).removesuffix("ExecutionProvider") for name in module.said.get("providers", ())]
    return [name for name in ("CPU", "CUDA", "Tensorrt") if name in known]


def check_opencv(f: Facts) -> Check:
    """OpenCV: for cameras and videos only; on a Jetson, the one with GStreamer."""
    name, module = "opencv", f.modules["cv2"]
    if not module.files:
        if name_hidden := f.hidden.get("cv2"):
            if f.jetson:
                return Check(
                    name, FIX, f"JetPack's stands in {name_hidden}, which this Python does not search: see python"
                )
            return Check(name, NOTE, f"only the system's Python has it, in {name_hidden}", (_extra(f, "camera"),))
        fix = "sudo apt install nvidia-opencv" if f.jetson else _extra(f, "camera")
        return Check(name, NOTE, "not installed; for cameras and videos only", (fix,))
    wheels = _names(module)
    here = _names(module, module.folder)
    if len(here) > 1:
        text = f"{' and '.join(here)} are installed over each other: one module, one wheel"
        return Check(name, FIX, text, (_uninstall(f, here), *(() if f.jetson else (_extra(f, "camera"),))))
    if not module.works:
        if "numpy" in module.error.lower():
            return Check(name, FIX, f"does not import: {module.error}: see numpy")
        mend = (_uninstall(f, wheels),) if wheels else ()
        last = "sudo apt install --reinstall nvidia-opencv" if f.jetson else _extra(f, "camera")
        return Check(name, FIX, f"does not import: {module.error}", (*mend, last))
    stream = str(module.said.get("gstreamer", "NO"))
    text = f"{module.version}, {_whose(f, module)}, GStreamer {stream}{_shadowed(module)}"
    if f.jetson and not _of_system(module) and not stream.startswith("YES"):
        if "cv2" in f.hidden:
            return Check(name, FIX, f"{text}; JetPack's reads CSI cameras, and this Python does not see it: see python")
        why = "hides JetPack's and reads no CSI camera" if len(module.files) > 1 else "reads no CSI camera"
        return Check(name, FIX, f"{text}; {why}", (_uninstall(f, wheels),) if wheels else ())
    return Check(name, OK, text)


def check_numpy(f: Facts) -> Check:
    """Numpy, whose ABI JetPack's OpenCV 4.8 was compiled for (numpy 2 came with OpenCV 4.10)."""
    if not f.numpy:
        return Check("numpy", FIX, "not installed", (pip(f, "install", "numpy"),))
    if version_numbers(f.numpy) >= (2,) and "numpy" in f.modules["cv2"].error.lower():
        text = f"{f.numpy}; {_whose(f, f.modules['cv2'])} OpenCV was compiled for numpy 1"
        return Check("numpy", FIX, text, (pip(f, "install", "numpy>=1.24,<2"),))
    return Check("numpy", OK, f.numpy)


def check_trtexec(f: Facts) -> Check | None:
    """NVIDIA's own benchmark, for comparing."""
    if not f.trtexec:
        return Check("trtexec", NOTE, "not found; only for comparing") if f.gpus else None
    if f.trtexec_on_path:
        return Check("trtexec", OK, f.trtexec)
    folder = f.trtexec.rpartition("/")[0]
    return Check("trtexec", NOTE, f"{f.trtexec}, where the shell does not look", (f'export PATH="$PATH:{folder}"',))


CHECKS: tuple[Callable[[Facts], Check | None], ...] = (
    check_python, check_jetpack, check_gpu, check_tensorrt, check_rtx, check_cuda_layer, check_onnxruntime,
    check_opencv, check_numpy, check_trtexec,
)  # fmt: skip


def all_checks(f: Facts) -> tuple[Check, ...]:
    """Every check that means something on this machine."""
    return tuple(found for found in (check(f) for check in CHECKS) if found is not None)


# ------------------------------------------------------------------------------------------------------------- backends
def backends(f: Facts) -> tuple[BackendState, ...]:
    """What can run a bundle here."""
    return (_runs_onnxruntime(f), _runs_tensorrt(f), _runs_rtx(f))


def _runs_onnxruntime(f: Facts) -> BackendState:
    module = f.modules["onnxruntime"]
    if not module.works:
        return BackendState("onnxruntime", False, "cannot run: " + (module.error or "not installed"))
    more = [name for name in _providers(module) if name != "CPU"] if f.gpus else []
    return BackendState("onnxruntime", True, "runs bundles: " + " or ".join(["CPU", *more]))


def _runs_tensorrt(f: Facts) -> BackendState:
    module = _first(f, "tensorrt", "tensorrt_bindings")
    trouble = "" if check_tensorrt(f).status == OK else "see tensorrt"
    return _runs_trt(f, "tensorrt", module, trouble)


def _runs_rtx(f: Facts) -> BackendState:
    module = _first(f, "tensorrt_rtx", "tensorrt_rtx_bindings")
    if f.jetson:
        return BackendState("tensorrt_rtx", False, "cannot run: it is made for RTX cards, not for Jetson")
    check = check_rtx(f)
    trouble = "" if check is not None and check.status == OK else "see tensorrt-rtx"
    if not trouble and f.gpus and not any(g.sm in RTX_SMS for g in f.gpus):
        trouble = f"it has no code for {', '.join(g.sm for g in f.gpus)}"
    state = _runs_trt(f, "tensorrt_rtx", module, trouble)
    return state if state.runs or not module.works else BackendState(state.name, False, f"builds; {state.text}")


def _runs_trt(f: Facts, name: str, module: Module, trouble: str) -> BackendState:
    layers = [f.modules[key] for key in ("cuda.bindings.runtime", "pycuda.driver")]
    if not module.files and name not in f.hidden:
        return BackendState(name, False, "cannot run: not installed")
    if trouble:
        return BackendState(name, False, f"cannot run: {trouble}")
    if not f.gpus:
        return BackendState(name, False, "cannot run: no GPU")
    if not any(layer.works for layer in layers):
        return BackendState(name, False, "cannot run: see cuda layer")
    return BackendState(name, True, f"runs bundles that have engines for {', '.join(g.sm for g in f.gpus)}")
