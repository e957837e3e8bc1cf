"""Verdicts on the parts of a machine, each with the exact commands that mend it.

Each rule reads `Facts` and nothing else, so a recorded machine gives the same advice here as there. Sources of the
limits: NVIDIA's support matrices and migration guides for TensorRT 10 and 11, the wheels' own metadata, and the Debian
packages of JetPack 6.2 and 7.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from ..machine.targets import version_numbers
from .commands import (
    NOTE,
    OK,
    Check,
    check_python,
    cuda_layer_extra,
    dotted,
    flavoured,
    has_wheels,
    install_extra,
    make_fix,
    make_note,
    pip_command,
    uninstall_wheels,
    wheel_names,
    wheel_too_new,
)
from .facts import Facts, Module

TRT_OLDEST, TRT_TESTED, TRT_BEYOND = (10, 3), (11, 4), (12,)
RTX_OLDEST, RTX_BEYOND = (1, 7), (1, 8)  # the API that is used; engines do not move between versions
# 1.17 does not read a bundle's graphs, 1.18 gives NaN for FP16, 1.19 and 1.20 do not load INT8; measured, by release.
ORT_OLDEST = (1, 21)
OPENVINO_OLDEST = (2025, 3)  # older ones do not load INT8 graphs
ORT_CUDA_13 = (1, 27)  # onnxruntime-gpu's first for CUDA 13
GIL_GIVEN_UP = (12, 9, 1)  # the first cuda-bindings that does not hold Python's lock while it waits
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


def _of_system(module: Module) -> bool:
    return module.folder.startswith("/usr/lib/python3")


def _whose(f: Facts, module: Module) -> str:
    if _of_system(module):
        return "JetPack's" if f.jetson else "apt's"
    return "a wheel's" if wheel_names(module) else "no package's"


def _overwritten(f: Facts, owners: tuple[str, ...], *again: str) -> Check:
    """Several wheels wrote the same module; all are removed before one returns."""
    text = f"{' and '.join(owners)} are installed over each other: one module, one wheel"
    return make_fix(text, *uninstall_wheels(f, owners), *again)


def _not_searched(folder: str) -> Check:
    return make_fix(f"JetPack's is in {folder}, which this Python does not search: see python")


# --------------------------------------------------------------------------------------------------------------- checks
def check_jetpack(f: Facts) -> Check | None:
    """The board and its software."""
    if not f.jetson:
        return None
    numbers = version_numbers(f.l4t)
    deb = f.debs.get("nvidia-jetpack", "")
    guess = JETPACKS.get(dotted(numbers[:2]), JETPACKS.get(str(numbers[0]), "unknown"))
    jetpack = f"JetPack {deb} " if deb else f"JetPack {guess} by its L4T, package nvidia-jetpack not installed "
    text = f"{f.board or 'a Jetson'}, {jetpack}(L4T {f.l4t or 'unknown'})"
    if f.l4t and numbers < L4T_OLDEST:
        return make_fix(f"{text}; its TensorRT is too old: flash JetPack 6.2 or newer, or use the CPU")
    if not any(name in f.debs for name in ("tensorrt", "python3-libnvinfer", "libnvinfer10")):
        return make_fix(f"{text}; TensorRT is not installed", "sudo apt install nvidia-jetpack")
    return Check(OK, text)


def check_gpu(f: Facts) -> Check:
    """GPUs, driver, CUDA."""
    driver = f"driver {f.driver}" if f.driver else "driver of unknown version"
    if f.gpus:
        gpus = "; ".join(f"{g.name}, {g.sm}, {g.memory_mib / 1024:.1f} GiB" for g in f.gpus)
        return Check(OK, f"{gpus}; {driver}, CUDA {dotted(f.cuda)}")
    if f.cuda_init > 0:
        why, way_out = CUDA_ERRORS.get(f.cuda_init, ("CUDA does not start", "nvidia-smi"))
        return make_fix(f"{driver}, but cuInit gives {f.cuda_init}: {why}", way_out)
    if f.driver or f.smi or f.jetson:
        seen = f"; nvidia-smi lists {'; '.join(f.smi)}" if f.smi else ""
        why = f.cuda_error or "libcuda.so.1 gives no answer"
        return make_fix(f"{driver}{seen}, but CUDA cannot be used: {why}", *_driver_library(f))
    return make_note(f"no NVIDIA GPU: no driver is loaded ({f.cuda_error or 'CUDA gives no answer'})")


def _driver_library(f: Facts) -> tuple[str, ...]:
    if f.jetson:
        return ("sudo apt install --reinstall nvidia-l4t-cuda && sudo ldconfig",)
    major = f.driver.split(".")[0]
    return (f"sudo apt install libnvidia-compute-{major}  # in a container: docker run --gpus all",) if major else ()


def check_card_order(f: Facts) -> Check | None:
    """Several cards: CUDA numbers them by speed, nvidia-smi and NVML by their address."""
    ours, theirs = [_address(gpu.bus) for gpu in f.gpus], [_address(bus) for bus in f.smi_buses]
    if len(ours) < 2 or sorted(ours) != sorted(theirs) or ours == theirs:
        return None
    other = theirs.index(ours[0])
    return make_note(
        f"CUDA's card 0 ({f.gpus[0].name}) is nvidia-smi's card {other}: --device counts as CUDA does",
        "export CUDA_DEVICE_ORDER=PCI_BUS_ID  # both count alike then",
    )


def _address(bus: str) -> str:
    """A PCI address with a domain of four digits: nvidia-smi prints eight."""
    return re.sub(r"^0000(?=[0-9a-f]{4}:)", "", bus.strip().lower())


def check_tensorrt(f: Facts) -> Check:
    """TensorRT: which copy is imported, and whether its version was tested."""
    module = f.tensorrt
    if not module.files:
        if "tensorrt" in f.hidden:
            return _not_searched(f.hidden["tensorrt"])
        if f.jetson:
            return make_fix("not installed", "sudo apt install nvidia-jetpack")
        useful = f.gpus and has_wheels(f)
        return make_note("not installed", *([install_extra(f, flavoured(f, "tensorrt"))] if useful else []))
    wheels, of_system = wheel_names(module, module.folder), _of_system(module)
    if not module.works:
        by_apt = "sudo apt install --reinstall python3-libnvinfer"
        return make_fix(
            f"{module.folder} holds one that does not import: {module.error}",
            *uninstall_wheels(f, () if of_system else wheels),
            by_apt if f.jetson or of_system else install_extra(f, flavoured(f, "tensorrt")),
        )
    too_new = None if f.jetson else wheel_too_new(f, module, "tensorrt")
    if too_new is not None:
        return too_new
    text = f"{module.version}, {_whose(f, module)}, as {module.name} in {module.folder}{_library(f)}{_shadowed(module)}"
    if f.jetson and not of_system:
        return make_fix(f"{text}; a wheel hides JetPack's own", *uninstall_wheels(f, wheels))
    numbers = module.numbers()
    if not TRT_OLDEST <= numbers < TRT_BEYOND:
        bounds = f">={dotted(TRT_OLDEST)},<{dotted(TRT_BEYOND)}"
        again = pip_command(f, "install", f"tensorrt-cu{12 if f.cuda[0] == 12 else 13}{bounds}")
        return make_fix(f"{text}; outside of {bounds}", *([] if f.jetson else [again]))
    if numbers[:2] == (10, 13) and any(g.sm == "sm87" for g in f.gpus):
        return make_fix(f"{text}; 10.13 has no code for sm87: JetPack 7.2 brings 10.16")
    return Check(OK, text + ("; newer than what was tested" if numbers[:2] > TRT_TESTED else ""))


def _library(f: Facts) -> str:
    found = [match[1] for match in (re.search(r"libnvinfer\.so\.([\d.]+)$", path) for path in f.libraries) if match]
    return f"; libnvinfer {', '.join(dict.fromkeys(found))}" if found else ""


def _shadowed(module: Module) -> str:
    return f"; hides {', '.join(module.files[1:])}" if len(module.files) > 1 else ""


def check_rtx(f: Facts) -> Check | None:
    """TensorRT-RTX: the builder that needs no GPU."""
    module = f.tensorrt_rtx
    extra = install_extra(f, flavoured(f, "rtx"))
    if not module.files:
        if f.jetson:
            return None  # it knows no Jetson
        fixes = [extra] if has_wheels(f) else []
        return make_note("not installed; it builds engines for RTX cards, without a GPU too", *fixes)
    if not module.works:
        text = f"{module.folder} holds one that does not import: {module.error}"
        return make_fix(text, *uninstall_wheels(f, wheel_names(module)), extra)
    too_new = wheel_too_new(f, module, "rtx")
    if too_new is not None:
        return too_new
    text = f"{module.version}, as {module.name}{_shadowed(module)}"
    if not RTX_OLDEST <= module.numbers() < RTX_BEYOND:
        return make_fix(f"{text}; 1.7 is what was tested", extra)
    return Check(OK, f"{text}: builds engines here, with or without a GPU")


def check_cuda_layer(f: Facts) -> Check:
    """cuda-python or pycuda: how Python reaches CUDA for the TensorRT backends."""
    found = {title: module for title, module in f.cuda_layers.items() if module.files}
    extra = install_extra(f, cuda_layer_extra(f))
    if not found:
        if f.gpus or f.jetson:
            return make_fix("neither cuda-python nor pycuda: TensorRT cannot be driven", extra)
        return make_note("neither cuda-python nor pycuda; not needed without a GPU")
    bindings = found.get("cuda-python")
    if f.gpus and bindings and bindings.works and bindings.numbers()[0] > f.cuda[0]:
        text = f"cuda-python {bindings.version} is for a newer driver; this one speaks CUDA {dotted(f.cuda)}"
        return make_fix(text, extra)
    if bindings and bindings.works and bindings.numbers() < GIL_GIVEN_UP and (f.gpus or f.jetson):
        text = f"cuda-python {bindings.version} holds Python's lock while it waits for the GPU: all threads wait"
        return make_fix(text, extra)
    working = ", ".join(f"{title} {m.version}" for title, m in found.items() if m.works)
    broken = "; ".join(f"{title} does not import: {m.error}" for title, m in found.items() if not m.works)
    if working or not (f.gpus or f.jetson):  # pycuda's driver half cannot load where no driver is
        return Check(OK if working else NOTE, "; ".join(part for part in (working, broken) if part))
    return make_fix(broken, extra)


def check_onnxruntime(f: Facts) -> Check:
    """ONNX Runtime: two wheels, one module."""
    module = f.modules["onnxruntime"]
    owners = wheel_names(module)
    if len(owners) > 1:
        on_card = bool(f.gpus) and not f.jetson and "onnxruntime-gpu" in owners
        return _overwritten(f, owners, install_extra(f, flavoured(f, "gpu") if on_card else "cpu"))
    if not module.files:
        return make_fix("not installed", install_extra(f, "cpu"))
    if not module.works:
        return make_fix(f"does not import: {module.error}", *uninstall_wheels(f, owners), install_extra(f, "cpu"))
    if module.numbers() < ORT_OLDEST:
        text = f"{module.version} cannot run every graph of a bundle; {dotted(ORT_OLDEST)} is the first that can"
        named = owners[0] if owners else "onnxruntime"
        below = f",<{dotted(ORT_CUDA_13)}" if named == "onnxruntime-gpu" and f.cuda[0] == 12 else ""
        return make_fix(text, pip_command(f, "install", f"{named}>={dotted(ORT_OLDEST)}{below}"))
    if "onnxruntime-gpu" in owners and module.numbers() >= ORT_CUDA_13 and f.cuda[0] == 12:
        text = f"{module.version} (onnxruntime-gpu) is for CUDA 13; this driver speaks {dotted(f.cuda)}: CPU alone"
        return make_fix(text, *uninstall_wheels(f, owners), install_extra(f, "gpu12"))
    providers = module.providers
    text = f"{module.version} ({owners[0] if owners else 'no wheel'}): {', '.join(providers)}"
    return Check(OK, text + ("; without a GPU, CPU alone" if len(providers) > 1 and not f.gpus else ""))


def check_openvino(f: Facts) -> Check | None:
    """OpenVINO: the faster of the two on x86 CPUs."""
    module = f.modules["openvino"]
    extra = install_extra(f, "openvino")
    if not module.files:
        useful = f.interpreter.architecture == "x86_64"
        return make_note("not installed; the faster backend on a CPU, INT8 above all", extra) if useful else None
    if not module.works:
        return make_fix(f"does not import: {module.error}", *uninstall_wheels(f, wheel_names(module)), extra)
    version = module.version.split("-")[0]
    if module.numbers() < OPENVINO_OLDEST:
        return make_fix(f"{version} does not load INT8 graphs; {dotted(OPENVINO_OLDEST)} is the first that does", extra)
    return Check(OK, f"{version}: {', '.join(module.said.get('devices', ())) or 'no device'}")


def check_opencv(f: Facts) -> Check:
    """OpenCV: for cameras and videos only; on a Jetson, the one with GStreamer."""
    module = f.modules["cv2"]
    camera, hidden = install_extra(f, "camera"), f.hidden.get("cv2")
    if not module.files:
        if hidden and f.jetson:
            return _not_searched(hidden)
        if hidden:
            return make_note(f"only the system's Python has it, in {hidden}", camera)
        fix = "sudo apt install nvidia-opencv" if f.jetson else camera
        return make_note("not installed; for cameras and videos only", fix)
    wheels = wheel_names(module)
    here = wheel_names(module, module.folder)
    if len(here) > 1:
        return _overwritten(f, here, *([] if f.jetson else [camera]))
    if not module.works:
        text = f"does not import: {module.error}"
        if "numpy" in module.error.lower():
            return make_fix(f"{text}: see numpy")
        last = "sudo apt install --reinstall nvidia-opencv" if f.jetson else camera
        return make_fix(text, *uninstall_wheels(f, wheels), last)
    stream = str(module.said.get("gstreamer", "NO"))
    text = f"{module.version}, {_whose(f, module)}, GStreamer {stream}{_shadowed(module)}"
    if f.jetson and not _of_system(module) and not stream.startswith("YES"):
        if hidden:
            return make_fix(f"{text}; JetPack's reads CSI cameras, and this Python does not see it: see python")
        why = "hides JetPack's and reads no CSI camera" if len(module.files) > 1 else "reads no CSI camera"
        return make_fix(f"{text}; {why}", *uninstall_wheels(f, wheels))
    return Check(OK, text)


def check_numpy(f: Facts) -> Check:
    """Numpy, whose ABI JetPack's OpenCV 4.8 was compiled for (numpy 2 came with OpenCV 4.10)."""
    if not f.numpy:
        return make_fix("not installed", pip_command(f, "install", "numpy"))
    if version_numbers(f.numpy) >= (2,) and "numpy" in f.modules["cv2"].error.lower():
        text = f"{f.numpy}; {_whose(f, f.modules['cv2'])} OpenCV was compiled for numpy 1"
        return make_fix(text, pip_command(f, "install", "numpy>=1.24,<2"))
    return Check(OK, f.numpy)


def check_trtexec(f: Facts) -> Check | None:
    """NVIDIA's own benchmark, for comparing."""
    if not f.trtexec:
        return make_note("not found; only for comparing") if f.gpus else None
    if f.trtexec_on_path:
        return Check(OK, f.trtexec)
    folder = f.trtexec.rpartition("/")[0]
    return make_note(f"{f.trtexec}, where the shell does not look", f'export PATH="$PATH:{folder}"')


CHECKS: Mapping[str, Callable[[Facts], Check | None]] = {
    "python": check_python,
    "jetpack": check_jetpack,
    "gpu": check_gpu,
    "card order": check_card_order,
    "tensorrt": check_tensorrt,
    "tensorrt-rtx": check_rtx,
    "cuda layer": check_cuda_layer,
    "onnxruntime": check_onnxruntime,
    "openvino": check_openvino,
    "opencv": check_opencv,
    "numpy": check_numpy,
    "trtexec": check_trtexec,
}


def all_checks(f: Facts) -> tuple[Check, ...]:
    """Every check that applies to this machine."""
    found = ((name, check(f)) for name, check in CHECKS.items())
    return tuple(replace(check, name=name) for name, check in found if check is not None)
