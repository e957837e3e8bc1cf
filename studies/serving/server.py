"""A real tritonserver without a container: the one inside the nvidia-pytriton wheel.

For tests and studies, in a venv of its own. That wheel holds the server (2.51, of Triton 24.10) and its Python backend,
which garbles the arrays of numpy 2 (triton-inference-server/python_backend#384). So the models' processes get numpy 1,
and the ONNX Runtime of the Python that runs this, because answers are compared bit by bit.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Sequence
from pathlib import Path

from ...errors import MachineError, command
from .venvs import ROOT, VENVS, install_packages, packages_of

VENV = VENVS / "triton"
WHEEL, CLIENT = "nvidia-pytriton==0.7.0", "tritonclient[grpc]>=2.50,<3"
NEWEST_PYTHON, OLDEST_GLIBC = (3, 12), (2, 35)  # numpy 1 has no wheels for Python 3.13
STUB = b"/triton_python_backend_stub"
READY_S, STOP_S = 120.0, 40.0


def install_triton(folder: Path = VENV) -> Path:
    """Makes the venv once; returns its folder of packages.

    Raises:
        MachineError: the wheel cannot run here, or cannot be had.
    """
    kind, glibc = platform.libc_ver()
    found = tuple(int(part) for part in glibc.split(".")) if kind == "glibc" else (0,)
    if found < OLDEST_GLIBC or sys.version_info[:2] > NEWEST_PYTHON:
        raise MachineError(
            f"{WHEEL} with numpy 1 needs glibc 2.35 and at most Python 3.12; here are {kind or 'another libc'} {glibc} "
            f"and Python {platform.python_version()}."
        )
    import onnxruntime  # of onnxruntime-gpu or of onnxruntime: the version is the same

    runtime = f"onnxruntime=={onnxruntime.__version__}"
    install_packages(folder, [("--no-deps", WHEEL), ("numpy<2", "pillow", runtime, CLIENT)])
    return packages_of(folder)


def make_venv(folder: Path, packages: Path) -> Path:
    """A venv for the models' processes; returns its folder of programs.

    The interpreter inside the Python backend is isolated: it reads no PYTHONPATH and no PYTHONHOME. It takes the first
    `python3` of PATH for its own, and that one's venv with it.
    """
    venv.create(folder, symlinks=True)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "logoformer").symlink_to(ROOT)
    (own / "more.pth").write_text(f"{packages}\n", encoding="utf-8")
    return folder / "bin"


class TritonServer:
    """A tritonserver on free ports of this machine, as a context manager.

    Args:
        packages: what `install_triton` gave.
        folder: for its log, and for what the models' processes import; made.
        repositories: folders of models.
        options: further ones, such as '--exit-on-error=false'.

    Attributes:
        url: of gRPC, such as 'localhost:8001'.
        http: of HTTP.
        metrics: of the page for Prometheus.
        log: what the server and the models wrote.
    """

    def __init__(self, packages: Path, folder: Path, repositories: Sequence[Path], options: Sequence[str] = ()) -> None:
        self._ports = _free_ports(3)
        http, grpc, metrics = self._ports
        self.url, self.http, self.log = f"localhost:{grpc}", f"http://localhost:{http}", folder / "triton.log"
        self.metrics = f"http://localhost:{metrics}/metrics"
        server = packages / "pytriton" / "tritonserver"
        backends = folder / "backends"
        _copy_backend(server, backends)
        self._words = [
            os.fspath(server / "bin" / "tritonserver"),
            *(f"--model-repository={path}" for path in repositories),
            f"--backend-directory={backends}", f"--http-port={http}", f"--grpc-port={grpc}",
            f"--metrics-port={metrics}", "--allow-gpu-metrics=false", "--exit-timeout-secs=5",
            # Shared memory of the models' processes: the least that is enough, whatever the machine's /dev/shm.
            "--backend-config=python,shm-default-byte-size=1048576", *options,
        ]  # fmt: skip
        libraries = [str(sysconfig.get_config_var("LIBDIR")), os.fspath(packages / "nvidia_pytriton.libs")]
        self._environment = {
            **os.environ,
            "LD_LIBRARY_PATH": ":".join(libraries),
            "PATH": f"{make_venv(folder / 'venv', packages)}:{os.environ['PATH']}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, wait_s: float = READY_S) -> None:
        """Starts it and waits until it answers; a model that did not load does not matter.

        Raises:
            MachineError: it ended, or took too long.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._words, stdout=log, stderr=log, env=self._environment)
        give_up = time.monotonic() + wait_s
        while self.get("/v2/health/live")[0] != 200:
            if self._process.poll() is not None or time.monotonic() > give_up:
                tail = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:]
                self.stop(signal.SIGKILL)
                raise MachineError("tritonserver did not start.", next=command("less", self.log), log=tail)
            time.sleep(0.1)

    def get(self, path: str) -> tuple[int, bytes]:
        """(status, body) of an HTTP request; status 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"{self.http}{path}", timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    @property
    def pid(self) -> int:
        """Process id of the server.

        Raises:
            MachineError: it does not run.
        """
        if self._process is None:
            raise MachineError("tritonserver does not run.", next=command("less", self.log))
        return self._process.pid

    def model_processes(self, model: str = "") -> list[int]:
        """Process ids of a model's instances; of all models without a name."""
        found = []
        part = f"/{model}/".encode() if model else b"/"
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (path / "cmdline").read_bytes().split(b"\0")
                ours = words[0].endswith(STUB) and part in words[1]
                if ours and self._process is not None and _parent(path) == self._process.pid:
                    found.append(int(path.name))
        return found

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Ends the server and waits for it."""
        models = self.model_processes()
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for model in models:  # of a server that was killed, they would notice much later
            with contextlib.suppress(OSError):
                if (Path("/proc") / str(model) / "cmdline").read_bytes().split(b"\0")[0].endswith(STUB):
                    os.kill(model, signal.SIGKILL)

    def __enter__(self) -> TritonServer:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def _copy_backend(server: Path, target: Path) -> None:
    """Links the Python backend, and the stub of this Python's version beside it."""
    folder, stubs = target / "python", server / "python_backend_stubs"
    folder.mkdir(parents=True)
    stub = stubs / f"{sys.version_info[0]}.{sys.version_info[1]}" / "triton_python_backend_stub"
    for path in (*(server / "backends" / "python").glob("*.*"), stub):
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)


def _parent(process: Path) -> int:
    return int((process / "stat").read_text().rsplit(")", 1)[1].split()[1])


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("localhost", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
