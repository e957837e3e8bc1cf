"""Do the built engines give the golden answers on the card of this machine?

Each engine is judged alone: an engine of `frame` works with ONNX Runtime's `temporal` of the same precision, and the
other way about, so that a wrong kernel in one of them does not throw suspicion on the other. What cannot run here is
reported as built, not run, and nothing is concluded from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..bundle import MIXED, Bundle, Golden, GraphEntry
from ..errors import MachineError, RefusedError
from .golden import Check, answers_of_clip, answers_of_pair, check_answers
from .runtime import Runtime, load
from .sessions.backends import TrtDevice, open_trt_device
from .sessions.contract import Session
from .trust.admit import mismatches
from .trust.index import FAILED, STALE, VERIFIED, EngineEntry, read_engine, verdict_of
from .trust.store import TrustStore


@dataclass(frozen=True)
class EngineCheck:
    """What was found of one engine.

    Attributes:
        entry: of the index.
        evaluator: who ran it; whose it is when it was not run.
        check: how far its answers are; None when it was not run.
        verdict: 'verified' or 'failed'; the one of the index when it was not run.
        why_not: why it was not run; empty when it was.
    """

    entry: EngineEntry
    evaluator: str
    check: Check | None
    verdict: str
    why_not: str = ""


def check_engines(
    bundle: Bundle,
    golden: Golden,
    folder: Path,
    entries: Sequence[EngineEntry],
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[EngineCheck]:
    """Runs every engine that this machine can run; one that failed before is tried again.

    Args:
        bundle: whose graphs they were built from.
        golden: its golden clips.
        folder: of the index.
        entries: of the index.
        threads: CPU threads of what ONNX Runtime does beside an engine.
        progress: called with (done, total).

    Raises:
        RefusedError: an engine file is not what its index promises.
        DeviceLostError: the card is gone.
    """
    cards: dict[str, TrtDevice | MachineError] = {}
    trust = TrustStore()
    found = []
    for done, entry in enumerate(entries):
        progress(done, len(entries))
        read_engine(folder, entry)  # proves that the file is whole, also of one that cannot run here
        if entry.kind not in cards:
            cards[entry.kind] = _card(entry.kind)
        found.append(_check(bundle, golden, folder, entry, cards[entry.kind], trust, threads))
    return found


def _card(kind: str) -> TrtDevice | MachineError:
    try:
        return open_trt_device(kind, {})
    except MachineError as error:
        return error


def _check(
    bundle: Bundle,
    golden: Golden,
    folder: Path,
    entry: EngineEntry,
    card: TrtDevice | MachineError,
    trust: TrustStore,
    threads: int | None,
) -> EngineCheck:
    before = verdict_of(entry, bundle.graphs)
    builder = f"TensorRT {entry.tensorrt_version} ({entry.target})"
    if before == STALE:
        return EngineCheck(entry, builder, None, STALE)
    if isinstance(card, MachineError):
        return EngineCheck(entry, builder, None, before, card.what)
    wrong = mismatches(entry, card.running)
    if wrong:
        return EngineCheck(entry, builder, None, before, "; ".join(wrong))
    graph = next(graph for graph in bundle.graphs if graph.sha256 == entry.graph_sha256)
    try:
        session = card.open(folder, entry, graph, trust)
    except (RefusedError, MachineError) as error:  # nobody vouches for it, memory is short, TensorRT does not take it
        return EngineCheck(entry, builder, None, before, error.what)
    try:
        # An INT8 graph of a mixture is judged with the FP16 graph that it works with.
        mixed = graph.precision == "int8" == bundle.mixture.get(graph.graph)
        precision = MIXED if mixed else graph.precision
        with load(bundle, backend="onnxruntime", precision=precision, threads=threads) as partner:
            check = _judge(session, graph, partner, golden)
    finally:
        session.close()
    return EngineCheck(entry, card.name, check, VERIFIED if check.passed else FAILED)


def _judge(session: Session, graph: GraphEntry, partner: Runtime, golden: Golden) -> Check:
    shown = f"{graph.graph} b{graph.batch}"
    spec = partner.bundle.stream
    if graph.graph == "clip":
        answers = answers_of_clip(session, golden)
    elif graph.graph == "frame":
        answers = answers_of_pair(session, partner.session("temporal"), spec, golden, graph.batch)
    else:
        answers = answers_of_pair(partner.session("frame"), session, spec, golden)
    return check_answers(shown, answers, golden, graph.precision)
