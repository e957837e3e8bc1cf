"""Admission of engine files, and the choice of the one that fits this machine.

An engine is native code: whoever loads one runs it. So every question is settled before a byte of it reaches TensorRT,
on one reading of the file: is it a regular file, of the size and the hash that the sealed index names; does somebody
vouch for it whom this user trusts; was it built for what runs here. The bytes that were asked about are handed out; the
file is not opened again, so that nothing can be exchanged in between.

TensorRT-RTX's own `get_engine_validity` is a second opinion on the last question, never on the others: it takes any
engine of the right version for good.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path

from ...bundle import GraphEntry
from ...bundle.descriptors import HeldFolder
from ...bundle.files import read_regular
from ...errors import MachineError, RefusedError, printable
from ..machine.environment import Running
from ..machine.targets import JETSON_SMS, version_numbers
from .index import FAILED, STALE, VERIFIED, EngineEntry, build_command, read_engine
from .signature import SIGNATURE_BYTES
from .store import TrustStore

_log = logging.getLogger(__name__)

AMPERE_PLUS = "AMPERE_PLUS"


def admit_engine(
    folder: str | os.PathLike[str], entry: EngineEntry, running: Running, *, trust: TrustStore | None = None
) -> bytes:
    """Reads an engine whose file, origin and target were all checked.

    Args:
        folder: of the engine index.
        entry: of `read_index`, which has proven the index's own digest.
        running: what runs here.
        trust: whose word counts; the user's own store when None.

    Returns:
        The very bytes that were checked. Give these to the runtime; do not open the file again.

    Raises:
        RefusedError: no regular file, another size or hash than the index names, not trusted, or built for another
            TensorRT, GPU or platform.
    """
    data = read_engine(folder, entry)
    shown = f"{os.fspath(folder)}/{entry.file}"
    store = trust or TrustStore()
    store.require_engine(entry.sha256, entry.graph_sha256, shown, read_signature(folder, entry.file))
    wrong = mismatches(entry, running)
    if wrong:
        raise RefusedError(
            f"{shown} was not built for this machine: {'; '.join(wrong)}.",
            cause="engines are tied to the TensorRT, the GPU and the platform that they were built for",
            next=build_command(folder, entry.graph, entry.precision, running.target, running.device),
        )
    _log.info("engine admitted: %s, sha256 %s, %s", printable(shown), entry.sha256, entry.verdict)
    return data


def read_signature(folder: str | os.PathLike[str], file: str) -> bytes | None:
    """The detached signature beside an engine, or None.

    Raises:
        RefusedError: a link, or an overlong file.
    """
    name = f"{file}.sig"
    held = isinstance(folder, HeldFolder) and folder.held(name) is not None
    if not held and not os.path.lexists(Path(folder) / name):
        return None
    return read_regular(folder, name, SIGNATURE_BYTES)


def choose_engine(
    entries: Iterable[EngineEntry],
    graph: GraphEntry,
    running: Running,
    *,
    folder: str | os.PathLike[str] = "BUNDLE/engines",  # for the advice
) -> EngineEntry:
    """Chooses a fitting engine: verified ones first, then this model's, then special ones.

    Raises:
        MachineError: there is none; says why each of them does not fit, and how to build one.
    """
    same = [e for e in entries if (e.graph, e.batch) == (graph.graph, graph.batch)]
    meant = [e for e in same if e.precision == graph.precision]
    judged = [(e, _against(e, graph, running)) for e in meant]
    for engine, reasons in judged:
        if reasons:
            _log.debug("engine not used: %s: %s", printable(engine.file), printable("; ".join(reasons)))
    fitting = [engine for engine, reasons in judged if not reasons]
    if fitting:
        return min(fitting, key=lambda e: _rank(e, running))
    why = [f"{engine.file}: {'; '.join(reasons)}" for engine, reasons in judged]
    why += [
        f"{e.file}: replaces {graph.precision}, which was not built: {e.fallback['reason']}"
        for e in same
        if e.fallback.get("precision") == graph.precision
    ]
    raise MachineError(
        f"There is no engine of {graph.graph} {graph.precision} b{graph.batch} for {_running(running)}.",
        cause="; ".join(why) or "none was built",
        next=build_command(folder, graph.graph, graph.precision, running.target, running.device),
    )


def _rank(entry: EngineEntry, running: Running) -> tuple[object, ...]:
    """Smaller is better."""
    foreign = 2 if differences(entry, running) else int(not entry.gpu)  # 1: not recorded where it was built
    return entry.verdict != VERIFIED, foreign, len(entry.compute_capabilities), entry.file


def differences(entry: EngineEntry, running: Running) -> list[str]:
    """Differences between the model of GPU that an engine was measured on and the one here.

    Such an engine loads, and TensorRT does not promise that it is fast or even right: its kernels were chosen by
    measuring on another number of multiprocessors or at other clocks. Empty where one side is not known, and for an
    engine that was asked for to run on several kinds of GPU.
    """
    if entry.flags.get("hardware_compatibility") == AMPERE_PLUS:
        return []
    pairs = ((entry.gpu, running.gpu), (entry.power_mode, running.power_mode))
    names = ("", "power mode ")
    return [
        f"built on {name}{there}, running here on {name}{here}"
        for name, (there, here) in zip(names, pairs, strict=True)
        if there and here and there != here
    ]


def require_same_model(
    entries: Iterable[EngineEntry], running: Running, folder: str | os.PathLike[str], *, strict: bool
) -> None:
    """Warns once where engines were measured on another model of GPU or in another power mode.

    Raises:
        RefusedError: `strict` is asked for.
    """
    chosen = list(entries)
    found = [(entry, differences(entry, running)) for entry in chosen]
    other = {text: entry for entry, texts in found for text in texts}
    if not other:
        return
    first = next(iter(other.values()))
    advice = build_command(folder, first.graph, first.precision, running.target, running.device, every_graph=True)
    what = f"The engines of {os.fspath(folder)} were built on another model of GPU: {'; '.join(other)}."
    cause = "TensorRT measured their kernels there: here they may be slow, and nothing promises that they are right"
    error = RefusedError(what, cause=cause, next=advice)
    if strict:
        raise error
    warnings.warn(error.line, RuntimeWarning, stacklevel=2)


def _running(running: Running) -> str:
    """What runs here, in one phrase."""
    name = "TensorRT-RTX" if running.target == "rtx" else "TensorRT"
    gpu = running.compute_capability or "no GPU that could be found"
    return f"{name} {running.tensorrt_version} on {gpu}, {running.platform}"


def mismatches(entry: EngineEntry, running: Running) -> list[str]:
    """Differences between an engine and this machine, each with both sides; empty if it fits."""
    wrong = []
    if entry.kind != running.target:
        wrong.append(f"built with target {entry.kind}, running here {running.target}")
    elif entry.tensorrt_version != running.tensorrt_version:
        there, here = entry.tensorrt_version, running.tensorrt_version
        age = "an older" if version_numbers(there) < version_numbers(here) else "a newer"
        wrong.append(f"built with TensorRT {there} ({age} one), running here {here}")
    if not _covers(entry, running.compute_capability):
        built = "+".join(entry.compute_capabilities) or "a GPU that was not recorded"
        wrong.append(f"built for {built}, running here {running.compute_capability or 'no GPU that could be found'}")
    if entry.platform != running.platform:
        wrong.append(f"built on {entry.platform}, running here {running.platform}")
    return wrong


def _against(entry: EngineEntry, graph: GraphEntry, running: Running) -> list[str]:
    stale = [] if entry.graph_sha256 == graph.sha256 else [STALE]
    failed = ["it failed logoformer verify"] if entry.verdict == FAILED else []
    return [*stale, *failed, *mismatches(entry, running)]


def _covers(entry: EngineEntry, sm: str | None) -> bool:
    if sm is None:
        return False
    if sm in entry.compute_capabilities:
        return True
    # Asked for with --hardware-compatible: from Ampere on, any GPU but those of a Jetson, where TensorRT lacks it.
    number = re.fullmatch(r"sm(\d{2,3})", sm)
    asked = entry.flags.get("hardware_compatibility") == AMPERE_PLUS
    return asked and number is not None and int(number[1]) >= 80 and sm not in JETSON_SMS
