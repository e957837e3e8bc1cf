"""Verdicts on the parts of a machine, each with the exact commands that mend it.

Each rule reads `Facts` and nothing else, so a recorded machine gives the same advice here as there. Sources of the
limits: NVIDIA's support matrices and migration guides for TensorRT 10 and 11, the wheels' own metadata, and the Debian
packages of JetPack 6.2 and 7.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ...errors import command
from ..machine.targets import version_numbers
from .facts import Facts, Module

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
    """The verdict on one part of a machine.

    Attributes:
        status: `OK`; `FIX`, something is wrong; `NOTE`, it is missing and may well be.
        text: what was found.
        fixes: commands, in order.
        name: of the part, such as 'tensorrt'; given by `all_checks`.
    """

    status: str
    text: str
    fixes: tuple[str, ...] = ()
    name: str = ""


def _fix(text: str, *fixes: str) -> Check:
    return Check(FIX, text, fixes)


def _note(text: str, *fixes: str) -> Check:
    return Check(NOTE, text, fixes)


def _pip(f: Facts, *words: str) -> str:
    """A pip command for the examined interpreter, or for the environment advised instead."""
    python = ".venv/bin/python" if check_python(f).fixes else f.interpreter.executable
    return command(python, "-m", "pip", *words)


def _extra(f: Facts, extra: str) -> str:
    return _pip(f, "install", f"logoformer[{extra}]")


def _uninstall(f: Facts, names: tuple[str, ...]) -> tuple[str, ...]:
    """The command that removes these distributions; none when there is nothing to remove."""
    return (_pip(f, "uninstall", "-y", *names),) if names else ()


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


def _overwritten(f: Facts, owners: tuple[str, ...], *again: str) -> Check:
    """Several wheels wrote the same module; all are removed before one returns."""
    text = f"{' and '.join(owners)} are installed over each other: one module, one wheel"
    return _fix(text, *_uninstall(f, owners), *again)


def _not_searched(folder: str) -> Check:
    return _fix(f"JetPack's is in {folder}, which this Python does not search: see python")


# --------------------------------------------------------------------------------------------------------------- checks
def check_python(f: Facts) -> Check:
    """The interpreter, and whether it sees JetPack's packages."""
    kind = "the system's own"
    if f.interpreter.in_venv:
        kind = "virtual environment, " + ("with" if f.system_packages else "without") + " the system's packages"
    text = f"{f.interpreter.version}, {kind}"
    if f.python[:2] < PYTHON_OLDEST:
        return _fix(f"{text}; {_version(PYTHON_OLDEST)} or newer is needed")
    if f.jetson and f.hidden:
        folder = next(iter(f.hidden.values()))
        named = re.search(r"/(python3\.\d+)/", folder)
        python = named[1] if named else "python3"
        why = "it does not see JetPack's packages"
        if named and python != f"python{f.python[0]}.{f.python[1]}":
            why = f"it is not the {python} of JetPack's packages"
        return _fix(f"{text}; {why} in {folder}", *_venv(f, f"/usr/bin/{python}"))
    if f.managed and not f.interpreter.in_venv:
        return _fix(f"{text}; pip installs nothing into it (PEP 668)", *_venv(f, "/usr/bin/python3"))
    newer = f.python[:2] > PYTHON_TESTED
    return Check(OK, text + (f"; newer than what was tested ({_version(PYTHON_TESTED)})" if newer else ""))


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
        return _fix(f"{text}; its TensorRT is too old: flash JetPack 6.2 or newer, or use the CPU")
    if not any(name in f.debs for name in ("tensorrt", "python3-libnvinfer", "libnvinfer10")):
        return _fix(f"{text}; TensorRT is not installed", "sudo apt install nvidia-jetpack")
    return Check(OK, text)


def check_gpu(f: Facts) -> Check:
    """GPUs, driver, CUDA."""
    driver = f"driver {f.driver}" if f.driver else "driver of unknown version"
    if f.gpus:
        gpus = "; ".join(f"{g.name}, {g.sm}, {g.memory_mib / 1024:.1f} GiB" for g in f.gpus)
        return Check(OK, f"{gpus}; {driver}, CUDA {_version(f.cuda)}")
    if f.cuda_init > 0:
        why, way_out = CUDA_ERRORS.get(f.cuda_init, ("CUDA does not start", "nvidia-smi"))
        return _fix(f"{driver}, but cuInit gives {f.cuda_init}: {why}", way_out)
    if f.driver or f.smi or f.jetson:
        seen = f"; nvidia-smi lists {'; '.join(f.smi)}" if f.smi else ""
        why = f.cuda_error or "libcuda.so.1 gives no answer"
        return _fix(f"{driver}{seen}, but CUDA cannot be used: {why}", *_driver_library(f))
    return _note(f"no NVIDIA GPU: no driver is loaded ({f.cuda_error or 'CUDA gives no answer'})")


def _driver_library(f: Facts) -> tuple[str, ...]:
    if f.jetson:
        return ("sudo apt install --reinstall nvidia-l4t-cuda && sudo ldconfig",)
    major = f.driver.split(".")[0]
    return (f"sudo apt install libnvidia-compute-{major}  # in a container: docker run --gpus all",) if major else ()


def check_tensorrt(f: Facts) -> Check:
    """TensorRT: which copy is imported, and whether its version was tested."""
    module = f.tensorrt
    if not module.files:
        if "tensorrt" in f.hidden:
            return _not_searched(f.hidden["tensorrt"])
        if f.jetson:
            return _fix("not installed", "sudo apt install nvidia-jetpack")
        useful = f.gpus and f.interpreter.architecture == "x86_64"
        return _note("not installed", *([_extra(f, "tensorrt")] if useful else []))
    wheels, of_system = _names(module, module.folder), _of_system(module)
    if not module.works:
        by_apt = "sudo apt install --reinstall python3-libnvinfer"
        return _fix(
            f"{module.folder} holds one that does not import: {module.error}",
            *_uninstall(f, () if of_system else wheels),
            by_apt if f.jetson or of_system else _extra(f, "tensorrt"),
        )
    text = f"{module.version}, {_whose(f, module)}, as {module.name} in {module.folder}{_library(f)}{_shadowed(module)}"
    if f.jetson and not of_system:
        return _fix(f"{text}; a wheel hides JetPack's own", *_uninstall(f, wheels))
    numbers = module.numbers()
    if not TRT_OLDEST <= numbers < TRT_BEYOND:
        bounds = f">={_version(TRT_OLDEST)},<{_version(TRT_BEYOND)}"
        return _fix(f"{text}; outside of {bounds}", *([] if f.jetson else [_pip(f, "install", f"tensorrt{bounds}")]))
    if numbers[:2] == (10, 13) and any(g.sm == "sm87" for g in f.gpus):
        return _fix(f"{text}; 10.13 has no code for sm87: JetPack 7.2 brings 10.16")
    return Check(OK, text + ("; newer than what was tested" if numbers[:2] > TRT_TESTED else ""))


def _library(f: Facts) -> str:
    found = [match[1] for match in (re.search(r"libnvinfer\.so\.([\d.]+)$", path) for path in f.libraries) if match]
    return f"; libnvinfer {', '.join(dict.fromkeys(found))}" if found else ""


def _shadowed(module: Module) -> str:
    return f"; hides {', '.join(module.files[1:])}" if len(module.files) > 1 else ""


def check_rtx(f: Facts) -> Check | None:
    """TensorRT-RTX: the builder that needs no GPU."""
    module = f.tensorrt_rtx
    extra = _extra(f, "rtx")
    if not module.files:
        if f.jetson:
            return None  # it knows no Jetson
        fixes = [extra] if f.interpreter.architecture == "x86_64" else []
        return _note("not installed; it builds engines for RTX cards, without a GPU too", *fixes)
    if not module.works:
        text = f"{module.folder} holds one that does not import: {module.error}"
        return _fix(text, *_uninstall(f, _names(module)), extra)
    text = f"{module.version}, as {module.name}{_shadowed(module)}"
    if not RTX_OLDEST <= module.numbers() < RTX_BEYOND:
        return _fix(f"{text}; 1.7 is what was tested", extra)
    return Check(OK, f"{text}: builds engines here, with or without a GPU")


def check_cuda_layer(f: Facts) -> Check:
    """cuda-python or pycuda: how Python reaches CUDA for the TensorRT backends."""
    found = {title: module for title, module in f.cuda_layers.items() if module.files}
    extra = _extra(f, _cuda_extra(f))
    if not found:
        if f.gpus or f.jetson:
            return _fix("neither cuda-python nor pycuda: TensorRT cannot be driven", extra)
        return _note("neither cuda-python nor pycuda; not needed without a GPU")
    bindings = found.get("cuda-python")
    if f.gpus and bindings and bindings.works and bindings.numbers()[0] > f.cuda[0]:
        text = f"cuda-python {bindings.version} is for a newer driver; this one speaks CUDA {_version(f.cuda)}"
        return _fix(text, extra)
    working = ", ".join(f"{title} {m.version}" for title, m in found.items() if m.works)
    broken = "; ".join(f"{title} does not import: {m.error}" for title, m in found.items() if not m.works)
    if working or not (f.gpus or f.jetson):  # pycuda's driver half cannot load where no driver is
        return Check(OK if working else NOTE, "; ".join(part for part in (working, broken) if part))
    return _fix(broken, extra)


def _cuda_extra(f: Facts) -> str:
    return "cuda13" if f.cuda[0] >= 13 else "cuda12"


def check_onnxruntime(f: Facts) -> Check:
    """ONNX Runtime: two wheels, one module."""
    module = f.modules["onnxruntime"]
    owners = _names(module)
    if len(owners) > 1:
        keep = "onnxruntime-gpu" if f.gpus and "onnxruntime-gpu" in owners else "onnxruntime"
        return _overwritten(f, owners, _pip(f, "install", keep))
    if not module.files:
        return _fix("not installed", _extra(f, "cpu"))
    if not module.works:
        return _fix(f"does not import: {module.error}", *_uninstall(f, owners), _extra(f, "cpu"))
    providers = module.providers
    text = f"{module.version} ({owners[0] if owners else 'no wheel'}): {', '.join(providers)}"
    return Check(OK, text + ("; without a GPU, CPU alone" if len(providers) > 1 and not f.gpus else ""))


def check_opencv(f: Facts) -> Check:
    """OpenCV: for cameras and videos only; on a Jetson, the one with GStreamer."""
    module = f.modules["cv2"]
    camera, hidden = _extra(f, "camera"), f.hidden.get("cv2")
    if not module.files:
        if hidden and f.jetson:
            return _not_searched(hidden)
        if hidden:
            return _note(f"only the system's Python has it, in {hidden}", camera)
        fix = "sudo apt install nvidia-opencv" if f.jetson else camera
        return _note("not installed; for cameras and videos only", fix)
    wheels = _names(module)
    here = _names(module, module.folder)
    if len(here) > 1:
        return _overwritten(f, here, *([] if f.jetson else [camera]))
    if not module.works:
        text = f"does not import: {module.error}"
        if "numpy" in module.error.lower():
            return _fix(f"{text}: see numpy")
        last = "sudo apt install --reinstall nvidia-opencv" if f.jetson else camera
        return _fix(text, *_uninstall(f, wheels), last)
    stream = str(module.said.get("gstreamer", "NO"))
    text = f"{module.version}, {_whose(f, module)}, GStreamer {stream}{_shadowed(module)}"
    if f.jetson and not _of_system(module) and not stream.startswith("YES"):
        if hidden:
            return _fix(f"{text}; JetPack's reads CSI cameras, and this Python does not see it: see python")
        why = "hides JetPack's and reads no CSI camera" if len(module.files) > 1 else "reads no CSI camera"
        return _fix(f"{text}; {why}", *_uninstall(f, wheels))
    return Check(OK, text)


def check_numpy(f: Facts) -> Check:
    """Numpy, whose ABI JetPack's OpenCV 4.8 was compiled for (numpy 2 came with OpenCV 4.10)."""
    if not f.numpy:
        return _fix("not installed", _pip(f, "install", "numpy"))
    if version_numbers(f.numpy) >= (2,) and "numpy" in f.modules["cv2"].error.lower():
        text = f"{f.numpy}; {_whose(f, f.modules['cv2'])} OpenCV was compiled for numpy 1"
        return _fix(text, _pip(f, "install", "numpy>=1.24,<2"))
    return Check(OK, f.numpy)


def check_trtexec(f: Facts) -> Check | None:
    """NVIDIA's own benchmark, for comparing."""
    if not f.trtexec:
        return _note("not found; only for comparing") if f.gpus else None
    if f.trtexec_on_path:
        return Check(OK, f.trtexec)
    folder = f.trtexec.rpartition("/")[0]
    return _note(f"{f.trtexec}, where the shell does not look", f'export PATH="$PATH:{folder}"')


CHECKS: Mapping[str, Callable[[Facts], Check | None]] = {
    "python": check_python,
    "jetpack": check_jetpack,
    "gpu": check_gpu,
    "tensorrt": check_tensorrt,
    "tensorrt-rtx": check_rtx,
    "cuda layer": check_cuda_layer,
    "onnxruntime": check_onnxruntime,
    "opencv": check_opencv,
    "numpy": check_numpy,
    "trtexec": check_trtexec,
}


def all_checks(f: Facts) -> tuple[Check, ...]:
    """Every check that applies to this machine."""
    found = ((name, check(f)) for name, check in CHECKS.items())
    return tuple(replace(check, name=name) for name, check in found if check is not None)
