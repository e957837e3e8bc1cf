"""Recordings answered on Ray: Ray Data's `map_batches` over actors that hold a runtime each.

Ray hands blocks of recordings to actors and repeats a block whose actor died; this process alone writes the journal, so
that each recording is answered once. Processes of Ray that this one starts end with it, whatever ends it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import secrets
import shutil
import site
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ...engine.sessions.backends import CPU_BACKENDS
from ...errors import MachineError, UsageError, VerificationError, needing, printable
from .actor import FAILED, LabelActor, describe_runtime, error_from_json
from .answering import Found, LabelConfig
from .recordings import ArchiveItem

_log = logging.getLogger(__name__)

PURPOSE = "Labelling on Ray"
_ADDRESS = re.compile(r"auto|[\w.-]+:\d{1,5}|\[[0-9a-fA-F:.]+\]:\d{1,5}")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Set before Ray is imported. Nothing is sent anywhere; none of Ray's bars and notices stand between ours; and where an
# actor has no GPU of Ray's, CUDA_VISIBLE_DEVICES stays as it is.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}  # fmt: skip
_OBJECTS_BYTES = 128 << 20  # of Ray's store on this machine: what goes through it are paths and answers
_CONNECT_S = 10.0
_FREE_S = 600.0  # for a process on a busy cluster
_DEATHS = 3  # of actors over one block, before the run ends
_BLOCKS_PER_ACTOR, _MOST_CLIPS, _MOST_BLOCKS = 16, 16, 4096
_LONGEST_PLACE = 18  # a socket's path has at most 107 characters; Ray appends 65, and we 24


@dataclass(frozen=True)
class RayConfig:
    """Where Ray runs, and with how many actors.

    Attributes:
        address: 'auto' or HOST:PORT of a running cluster that this machine is part of; '' starts Ray on this machine.
        actors: each with a runtime; None takes one for each GPU where the backend uses one, else one for each core (for
            `threads` cores where that is given).
    """

    address: str = ""
    actors: int | None = None

    def __post_init__(self) -> None:
        if self.address and not _ADDRESS.fullmatch(self.address):
            raise UsageError(
                f"{self.address!r} is no address of a Ray cluster: auto, or HOST:PORT.",
                cause="a source behind --ray, or an address of Ray Client (ray://), which Ray Data does not go through",
                next="put --ray at the end, or give --ray HOST:PORT",
            )
        if self.actors is not None and self.actors < 1:
            raise UsageError(f"{self.actors} actors cannot answer.", next="give --actors 1 or more")


class RayLabeller:
    """Recordings on Ray, as a context manager; at its end everything that it started has ended.

    Args:
        bundle: its folder, under the same path on every machine of the cluster.
        arguments: keywords of `logoformer.load`; without `threads` an actor on a CPU has one.
        config: how recordings are answered.
        cluster: where Ray runs.

    Raises:
        UsageError: an argument that Ray decides.
        MachineError: Ray is not installed.
    """

    def __init__(
        self, bundle: str | os.PathLike[str], arguments: Mapping[str, Any], config: LabelConfig, cluster: RayConfig
    ) -> None:
        if arguments.get("device"):
            raise UsageError("Ray gives each actor a GPU of its own.", next="leave --device out")
        if "ray" not in sys.modules:  # it reads the environment when it is imported
            os.environ.update(RAY_ENVIRONMENT)
            if not cluster.address:
                # Ray listens on every network of this machine, and who may speak to it may run code.
                os.environ["RAY_AUTH_MODE"] = "token"
                os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        with needing("ray", "ray", PURPOSE):
            import ray.data  # noqa: F401
        self.bundle, self._bundle = Path(bundle), str(Path(bundle).absolute())
        self._config, self._cluster = config, cluster
        folder = arguments.get("engines_dir")
        self._arguments = {**arguments, "engines_dir": None if folder is None else str(Path(folder).absolute())}
        self._stack = contextlib.ExitStack()
        self._head: dict[str, Any] = {}
        self._actor: dict[str, Any] = {}  # what of a machine an actor takes
        self._actors = 0
        self._processes: set[tuple[str, int]] = set()
        self._init_s = self.start_s = 0.0

    def __enter__(self) -> RayLabeller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def prepare(self) -> Mapping[str, Any]:
        """Starts Ray and asks one of its processes what it answers with.

        Raises:
            MachineError: no cluster is at the address, or its processes cannot import this package.
            LogoformerError: that process cannot open the bundle.
        """
        import ray

        self._start()
        there = ray.cluster_resources()
        wants_gpu = self._arguments.get("backend") not in CPU_BACKENDS and there.get("GPU", 0) >= 1
        if not wants_gpu:
            self._arguments["threads"] = self._arguments.get("threads") or 1
        self._actor = {"num_cpus": self._arguments.get("threads") or 1, "num_gpus": 1 if wants_gpu else 0}
        with _ray_errors():
            ask = ray.remote(describe_runtime).options(max_retries=_DEATHS, **self._actor)
            asked = ask.remote(self._bundle, self._arguments, self._config)
            found = json.loads(ray.get(asked, timeout=_FREE_S))
        if "provenance" not in found:
            raise error_from_json(found)
        self._head = found["provenance"]
        kind, each = ("GPU", 1) if wants_gpu else ("CPU", self._actor["num_cpus"])
        self._actors = self._cluster.actors or max(1, int(there.get(kind, 1) // each))
        return self._head

    def answers(self, items: Sequence[ArchiveItem]) -> Iterator[tuple[ArchiveItem, Found]]:
        """Each recording with its answers, as blocks come back.

        Raises:
            VerificationError: an actor answers with another version, backend or bundle than the others.
            MachineError: actors died several times over one block, or Ray itself failed.
            LogoformerError: what an actor met, other than a damaged recording; of a damaged graph, too.
        """
        import ray.data

        rows = [
            {"number": number, "path": json.dumps(str(item.path.absolute())), "shown": json.dumps(item.shown)}
            for number, item in enumerate(items)
        ]
        began_s = time.time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray 2.64 will take no `max_task_retries`: pyproject stays below it
            made = ray.data.from_items(rows, override_num_blocks=self._blocks(len(rows))).map_batches(
                LabelActor,
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(size=self._actors),
                fn_constructor_args=(self._bundle, self._arguments, self._config),
                max_restarts=-1,
                max_task_retries=_DEATHS,  # Ray Data's own choice is without end
                **self._actor,
            )
        with _ray_errors():
            for table in made.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for row in table.to_pylist():
                    self._note(json.loads(row["by"]), began_s)
                    found = json.loads(row["found"])
                    if row["number"] == FAILED:
                        raise error_from_json(found)
                    yield items[row["number"]], found

    def to_json(self) -> dict[str, Any]:
        """Ray's version, actors, processes that answered, seconds of what it took to start."""
        import ray

        return {
            "version": ray.__version__, "actors": self._actors, "processes": len(self._processes),
            "init_s": round(self._init_s, 3), "start_s": round(self.start_s, 3),
        }  # fmt: skip

    def _start(self) -> None:
        import ray
        from ray.exceptions import RayError

        logging.getLogger("ray").setLevel(logging.ERROR)
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        options["runtime_env"] = {"env_vars": python_path()}
        if self._cluster.address:
            options["address"] = self._cluster.address
        else:
            threads = self._arguments.get("threads") or 1
            options |= {
                "address": "local",  # whatever RAY_ADDRESS says
                "num_cpus": max((self._cluster.actors or 1) * threads, len(os.sched_getaffinity(0))),
                "object_store_memory": _OBJECTS_BYTES,
                "include_dashboard": False,
                "_temp_dir": self._stack.enter_context(_short_folder()),
            }
        began_s = time.perf_counter()
        # Ray tells of dead processes on the standard output, where ours is one JSON object.
        self._stack.enter_context(contextlib.redirect_stdout(_LogLines()))
        self._stack.callback(ray.shutdown)
        with _stderr_lines() as said:
            try:
                _require_listener(self._cluster.address)
                ray.init(**options)
            except (OSError, RuntimeError, ValueError, RayError) as error:
                raise _not_started(error, self._cluster.address, said()) from error
        self._init_s = time.perf_counter() - began_s
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False

    def _blocks(self, count: int) -> int:
        """Blocks of a run: few enough to be worth sending, many enough to lose one."""
        if self._config.face == "whole":
            return min(count, max(_BLOCKS_PER_ACTOR * self._actors, -(-count // _MOST_CLIPS)), _MOST_BLOCKS)
        return min(count, _MOST_BLOCKS)

    def _note(self, by: Mapping[str, Any], began_s: float) -> None:
        """Notes who answered, and refuses an actor that is not like the others."""
        process = (by["machine"], by["process"])
        if process in self._processes:
            return
        if "provenance" in by and by["provenance"] != self._head:
            differing = {name: (value, by["provenance"].get(name)) for name, value in self._head.items()}
            shown = "; ".join(f"{n}: {one} and {other}" for n, (one, other) in differing.items() if one != other)
            raise VerificationError(
                f"Machines of the cluster answer differently: {printable(by['machine'])} with {shown}.",
                cause="other versions are installed there, or another bundle lies under the same path",
                next="name one with --backend and --precision, and install the same versions everywhere",
            )
        if not self._processes:
            self.start_s = max(0.0, by["ready_s"] - began_s)
        self._processes.add(process)


def python_path() -> dict[str, str]:
    """PYTHONPATH for Ray's processes, where this package is not installed."""
    package = Path(__file__).resolve().parents[2]
    entries = [_absolute(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    installed = [_absolute(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())]
    for entry in map(_absolute, sys.path):
        found = Path(entry) / __name__.partition(".")[0]
        if found.is_dir() and found.resolve() == package:
            if entry not in installed and entry not in entries:
                entries.insert(0, entry)
            break
    return {"PYTHONPATH": os.pathsep.join(entries)} if entries else {}


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _require_listener(address: str) -> None:
    """Refuses at once what Ray would try for minutes.

    Raises:
        OSError: nobody listens at HOST:PORT.
    """
    host, _, port = address.rpartition(":")
    if host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()


def _not_started(error: Exception, address: str, said: Sequence[str]) -> MachineError:
    what = printable(str(error).strip().rstrip(".") or type(error).__name__, 300)
    if not address:
        return MachineError(f"Ray did not start: {what}.", log=said[-8:])
    return MachineError(
        f"No Ray cluster is at {address}: {what}.",
        cause="it does not run, or this machine is no part of it",
        next="ray start --head, or with its --address on this machine",
        log=said[-8:],
    )


@contextlib.contextmanager
def _short_folder() -> Iterator[str]:
    """A folder for Ray's sockets and logs, removed at the end; Ray itself would leave it.

    Ray lets everybody write there: so it lies in one that only this user may enter.
    """
    place = tempfile.gettempdir()
    folder = tempfile.mkdtemp(prefix="logoformer-", dir=place if len(place) < _LONGEST_PLACE else "/tmp")
    try:
        yield f"{folder}/ray"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _LogLines(io.TextIOBase):
    """A text stream whose lines become warnings of ours."""

    def write(self, text: str) -> int:
        for line in _COLOUR.sub("", text).splitlines():
            if line.strip():
                _log.warning("Ray: %s", printable(line, 120))
        return len(text)


@contextlib.contextmanager
def _stderr_lines() -> Iterator[Callable[[], list[str]]]:
    """Keeps what goes to standard error, that of Ray's C++ too; gives a function of the lines."""
    with tempfile.TemporaryFile() as kept:
        sys.stderr.flush()
        before = os.dup(2)
        os.dup2(kept.fileno(), 2)

        def lines() -> list[str]:
            kept.seek(0)
            return kept.read().decode("utf-8", "replace").splitlines()

        try:
            yield lines
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)


@contextlib.contextmanager
def _ray_errors() -> Iterator[None]:
    """Turns what Ray raises into a MachineError."""
    from ray.exceptions import GetTimeoutError, RayError

    try:
        yield
    except GetTimeoutError as error:
        raise MachineError(
            f"No process of Ray was free within {_FREE_S:.0f} s.",
            cause="the cluster is busy, or has no machine with what an actor needs",
            next="ray status",
        ) from error
    except RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        if any("No module named 'logoformer" in line for line in lines):
            raise MachineError(
                "Ray's processes cannot import logoformer.",
                cause="it is not installed on every machine of the cluster",
                next="pip install 'logoformer[ray]', with the backend's extra, on each",
            ) from error
        raise MachineError(
            f"Ray failed: {type(error).__name__}.",
            cause="actors that died again and again: short memory, or a recording that ends its decoder",
            next="run again without --ray to see which; what was answered is kept",
            log=lines[-8:],
        ) from error
