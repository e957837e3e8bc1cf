"""Probing of a machine: files, the interpreter's search path, short child processes.

Importing what is broken can end a process, so packages are imported in a child only; what stands where is read from the
file system. Everything goes through a `Probe`, so that a recorded machine can replace this one.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

SECONDS = 60.0  # a cold import of a CUDA library on a Jetson's SD card takes tens of seconds
MAX_BYTES = 16 << 20  # /var/lib/dpkg/status is the largest file that is read

# Run by a child with the module's name. The working folder is not searched: a stray tensorrt.py there proves nothing.
IMPORT = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
import importlib, json
sys.modules["openvino_telemetry"] = None  # openvino's import would send an event over the network
module = importlib.import_module(sys.argv[1])
parent = sys.modules[sys.argv[1].rpartition(".")[0] or sys.argv[1]]
said = {"version": str(getattr(module, "__version__", getattr(parent, "__version__", "")))}
if sys.argv[1] == "onnxruntime":
    said["providers"] = module.get_available_providers()
if sys.argv[1] == "openvino":
    said["devices"] = list(module.Core().available_devices)
if sys.argv[1] == "pycuda.driver":
    said["version"] = parent.VERSION_TEXT
if sys.argv[1] == "cv2":
    lines = [line.partition("GStreamer:")[2].strip() for line in module.getBuildInformation().splitlines()]
    lines = [line for line in lines if line]
    said["gstreamer"] = lines[0] if lines else "NO"
print(json.dumps(said))
"""

# The driver's own library, by ctypes: no package is needed to ask which cards there are. 75, 76: compute capability.
CUDA = """
import ctypes, json
said = {"init": -1, "version": 0, "devices": []}
try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError as error:
    said["error"] = str(error)
else:
    number = ctypes.c_int()
    def ask(name, *given):
        getattr(cuda, name)(ctypes.byref(number), *given)
        return number.value
    said["init"] = cuda.cuInit(0)
    said["version"] = ask("cuDriverGetVersion")
    for place in range(ask("cuDeviceGetCount") if said["init"] == 0 else 0):
        device, name, size = ask("cuDeviceGet", place), ctypes.create_string_buffer(256), ctypes.c_size_t()
        cuda.cuDeviceGetName(name, 256, device)
        cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        sm = f"sm{ask('cuDeviceGetAttribute', 75, device)}{ask('cuDeviceGetAttribute', 76, device)}"
        card = {"name": name.value.decode("utf-8", "replace"), "sm": sm, "memory_mib": size.value >> 20}
        bus = ctypes.create_string_buffer(32)
        if cuda.cuDeviceGetPCIBusId(bus, 32, device) == 0:
            card["bus"] = bus.value.decode("ascii", "replace")
        said["devices"].append(card)
print(json.dumps(said))
"""


@dataclass(frozen=True)
class ChildAnswer:
    """The output of a child process.

    Attributes:
        code: its exit status; negative when a signal ended it; None when it could not start or took too long.
        out: standard output.
        err: standard error, or why it did not start.
    """

    code: int | None
    out: str = ""
    err: str = ""

    def json(self) -> Mapping[str, Any]:
        """Its last line of output as an object; empty when it failed or printed something else."""
        lines = self.out.strip().splitlines()
        if self.code != 0 or not lines:
            return {}
        try:
            value = json.loads(lines[-1])
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def why(self) -> str:
        """One line for people: why there is no answer."""
        if self.code is None:
            return self.err
        if self.code < 0:
            return f"its process was ended by signal {-self.code}"
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        return lines[-1] if lines else f"exit status {self.code} and no message"


@dataclass(frozen=True)
class Interpreter:
    """The Python that runs.

    Attributes:
        executable: its path.
        version: such as '3.10.12'.
        prefix: of the environment; another than `base_prefix` in a virtual environment.
        base_prefix: of the installation behind it.
        search_path: folders that `import` looks through, in order.
        architecture: 'x86_64', 'aarch64', ...
    """

    executable: str
    version: str
    prefix: str
    base_prefix: str
    search_path: tuple[str, ...]
    architecture: str

    @property
    def in_venv(self) -> bool:
        """Whether this is a virtual environment."""
        return self.prefix != self.base_prefix

    @classmethod
    def here(cls) -> Interpreter:
        """The one that runs this."""
        return cls(
            executable=sys.executable,
            version=platform.python_version(),
            prefix=sys.prefix,
            base_prefix=sys.base_prefix,
            search_path=tuple(str(Path(entry).absolute()) for entry in sys.path if entry and Path(entry).is_dir()),
            architecture=platform.machine(),
        )


Ask = Callable[[str, Sequence[str]], ChildAnswer]


def ask_here(name: str, words: Sequence[str]) -> ChildAnswer:
    """Runs a command; a recording files the answer under `name`, such as 'import tensorrt'."""
    try:
        done = subprocess.run(
            list(words), capture_output=True, text=True, errors="replace", timeout=SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return ChildAnswer(None, err=f"no answer within {SECONDS:.0f} s")
    except OSError as error:
        return ChildAnswer(None, err=error.strerror or str(error))
    return ChildAnswer(done.returncode, done.stdout, done.stderr)


@dataclass(frozen=True)
class Distribution:
    """An installed distribution, by its metadata."""

    name: str
    version: str
    folder: str


class Probe:
    """Looks at one machine.

    Args:
        root: where `etc`, `proc`, `usr`, `var` stand.
        interpreter: whose packages are meant.
        ask: runs commands.
    """

    def __init__(self, root: Path, interpreter: Interpreter, ask: Ask) -> None:
        self.root, self.interpreter, self.ask = root, interpreter, ask

    def at(self, path: str) -> Path:
        """An absolute path of that machine, here."""
        return self.root / path.lstrip("/")

    def text(self, path: str) -> str:
        """A small text file; empty when it cannot be read."""
        try:
            with self.at(path).open("rb") as file:
                return file.read(MAX_BYTES).decode("utf-8", "replace").strip("\0 \n")
        except OSError:
            return ""

    def names(self, pattern: str) -> tuple[str, ...]:
        """Absolute paths of that machine that match, sorted."""
        found = sorted(self.root.glob(pattern.lstrip("/")))
        return tuple("/" + path.relative_to(self.root).as_posix() for path in found)

    def module_files(self, name: str) -> tuple[str, ...]:
        """Where an import name stands, in search order: the first wins, the others are shadowed."""
        found = (self._module_in(folder, name) for folder in self.interpreter.search_path)
        return tuple(dict.fromkeys(path for path in found if path))

    def _module_in(self, folder: str, name: str) -> str:
        place = Path(folder, *name.split("."))
        for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if self.at(str(path)).is_file():
                return str(path)
        compiled = sorted(self.at(str(place.parent)).glob(f"{place.name}.*so"))
        return str(place.parent / compiled[0].name) if compiled else ""

    def distributions(self) -> Iterator[Distribution]:
        """What is installed where `import` looks, in search order."""
        for folder in self.interpreter.search_path:
            for found in metadata.distributions(path=[str(self.at(folder))]):
                name = found.metadata["Name"]
                if name:
                    yield Distribution(re.sub(r"[-_.]+", "-", name).lower(), found.version, folder)

    def debs(self, wanted: Sequence[str]) -> dict[str, str]:
        """Versions of Debian packages that are installed."""
        found = {}
        for paragraph in self.text("/var/lib/dpkg/status").split("\n\n"):
            fields = dict(re.findall(r"^(Package|Status|Version): (.+)$", paragraph, re.MULTILINE))
            if fields.get("Package") in wanted and fields.get("Status") == "install ok installed":
                found[fields["Package"]] = fields.get("Version", "")
        return found


def probe_here() -> Probe:
    """This machine."""
    return Probe(Path(os.sep), Interpreter.here(), ask_here)
