"""Kernel plans of a graph, and the proof that its kernels have the promised precision.

A plan comes from TensorRT-RTX without a GPU, or from a device's engine inspector. TensorRT-RTX compiles on any machine
and, asked for details, prints its whole plan. That shows what a latency number would only hint at: whether attention
was fused, whether data is moved for nothing, and in which precision the work is done *as compiled*. It is a plan: no
kernel was run, and nothing here is a speed. It is a build of its own: what TensorRT-RTX ships keeps no details. On a
device it is the engine itself that is asked, and nothing is compiled again.

Three counts of multiply-accumulates by precision: from the ONNX types, from the network that TensorRT parsed, and from
the kernels as compiled. The first two only say what was asked for: builders fall back to another precision without a
word (packed Q, K, V projections with stored INT8 weights; a scale that is a vector of one entry; any convolution on
Turing). So the kernels alone decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...bundle import Bundle, GraphEntry
from ...errors import VerificationError, command, printable
from ..machine.interrupts import holding_interrupts
from ..machine.log import BuildLog, make_logger, write_to
from ..machine.tensorrt import find_module
from ..plan.inspector import engine_information, parse_inspector
from ..plan.kernels import Kernel, KernelPlan
from ..plan.macs import network_macs, place_macs, place_nodes
from ..plan.rtx_log import parse_plan
from .compile import BuildOptions, Compilation, on_card

# What a graph holds at least when its index entry does not say (bundles of before the promise).
PROMISED = {"fp32": 0.95, "fp16": 0.95, "int8": 0.95}
_SHOWN = 12  # kernels named in a message


# ---------------------------------------------------------------------------------------------------------------- plans
def xray(
    onnx: bytes,
    sm: str = "sm86",
    options: BuildOptions | None = None,
    *,
    shown: str = "the graph",
    typed_macs: Mapping[str, int] | None = None,
) -> KernelPlan:
    """Compile a graph for one GPU with TensorRT-RTX and read its plan; no GPU is needed.

    Args:
        onnx: the checked bytes of a static graph.
        sm: the compute capability, one of `targets.RTX_SMS`.
        options: settings of the engine whose plan is wanted; target and GPUs are replaced.
        shown: how to name the graph in a message.
        typed_macs: multiply-accumulates by precision as the ONNX types have them, shown with the other counts.

    Raises:
        UsageError: a GPU that TensorRT-RTX does not build for.
        RefusedError: the graph names data in other files, or is malformed.
        BadInputError: the parser does not take it.
        MachineError: TensorRT-RTX is missing, or the build fails.
        VerificationError: the build went well but its log holds no plan.
    """
    wanted = replace(options or BuildOptions(), target="rtx", compute_capabilities=(sm,), device=0)
    trt = find_module("rtx")
    messages: list[str] = []
    log = BuildLog(lambda message: messages.append(message) if message.startswith("Layers:") else None)
    with holding_interrupts() as handle:
        compilation = Compilation(trt, onnx, shown, wanted, log)
        compilation.run("DETAILED", lambda *_: handle())  # what a handler raises ends the build and comes out of it
    steps, unread = parse_plan(messages)
    if not steps:
        raise VerificationError(
            f"{trt} compiled {shown} but printed no kernel plan that can be read.",
            cause="another version prints it in another way; 1.7.1 is the one this was written for",
            next="pip install 'logoformer[rtx]'",
            log=unread[:10],
        )
    return _plan_of(sm, str(trt), network_macs(trt.module, compilation.network), steps, unread, typed_macs)


@dataclass(frozen=True)
class Inspection:
    """An engine inspector's answer and the parsed network, as plain values for another process.

    Attributes:
        compiler: TensorRT's name and version.
        text: the engine inspector's JSON.
        parsed: see `KernelPlan`.
    """

    compiler: str
    text: str
    parsed: Mapping[str, tuple[int, str]]


def inspect_here(onnx: bytes, engine: bytes, options: BuildOptions, *, shown: str = "the graph") -> Inspection:
    """Query the engine inspector for an engine that was built here, on the GPU of this machine.

    The graph is parsed again, which takes little beside a compile, to know what was asked for.

    Raises:
        MachineError: no GPU, no TensorRT, or the engine does not load.
    """
    trt = find_module(options.target)
    log = BuildLog()
    write_to(log)
    with on_card(options):
        text = engine_information(trt.module, make_logger(trt.module), engine)  # its memory is free before a builder's
        compilation = Compilation(trt, onnx, shown, options, log)
        return Inspection(str(trt), text, network_macs(trt.module, compilation.network))


def plan_of_inspection(inspection: Inspection, typed_macs: Mapping[str, int] | None = None) -> KernelPlan:
    """The kernel plan for 'this-gpu', parsed by `plan/inspector.py`.

    Raises:
        RefusedError: the inspector's answer is no JSON.
    """
    steps, unread = parse_inspector(inspection.text)
    return _plan_of("this-gpu", inspection.compiler, inspection.parsed, steps, unread, typed_macs)


def _plan_of(
    sm: str,
    compiler: str,
    parsed: Mapping[str, tuple[int, str]],
    steps: tuple[Kernel, ...],
    unread: tuple[str, ...],
    typed_macs: Mapping[str, int] | None,
) -> KernelPlan:
    placed, unplaced = place_macs(steps, {name: count for name, (count, _) in parsed.items()})
    return KernelPlan(sm, compiler, steps, tuple(placed), unplaced, unread, dict(typed_macs or {}), dict(parsed))


# ---------------------------------------------------------------------------------------------------------------- proof
@dataclass(frozen=True)
class Proof:
    """The verdict on one graph for one GPU.

    Attributes:
        precision: that the index names.
        promised: share of multiply-accumulates that must be compiled to it.
        plan: the kernels, and the three counts.
    """

    precision: str
    promised: float
    plan: KernelPlan

    @property
    def share(self) -> float:
        """Share of all multiply-accumulates that are placed on a kernel of the precision."""
        return self._of_all(self.plan.macs_by_precision.get(self.precision, 0))

    @property
    def holds(self) -> bool:
        """Whether the promise is kept."""
        return self.share >= self.promised

    @property
    def fallen(self) -> float:
        """Share of all multiply-accumulates that are known to be compiled to another precision."""
        known = self.plan.macs_by_precision
        return self._of_all(sum(count for name, count in known.items() if name not in (self.precision, "unclear")))

    def _of_all(self, macs: int) -> float:
        total = sum(self.plan.macs) + sum(self.plan.unplaced_macs.values())
        return macs / total if total else 0.0

    @property
    def others(self) -> tuple[str, ...]:
        """Kernels of another precision, most work first, each with what the graph asked for."""
        asked: dict[int, set[str]] = {}
        nodes: dict[int, list[str]] = {}
        for node, index in place_nodes(self.plan.steps, self.plan.parsed).items():
            asked.setdefault(index, set()).add(self.plan.parsed[node][1])
            nodes.setdefault(index, []).append(node)
        found = []
        for index in sorted(nodes, key=lambda i: -self.plan.macs[i]):
            kernel = self.plan.steps[index]
            if kernel.precision == self.precision:
                continue
            fell = f"fell back; the graph says {'+'.join(sorted(asked[index]))}"
            if asked[index] == {kernel.precision}:
                fell = "as the graph says"
            million = self.plan.macs[index] / 1e6
            found.append(f"{kernel.name}: {kernel.precision}, {million:.2f} M, {fell} <- {', '.join(nodes[index])}")
        return tuple(found)

    def summary(self) -> dict[str, Any]:
        """The plan's figures and the verdict, as JSON."""
        verdict = {"share": round(self.share, 6), "promised_share": self.promised, "holds": self.holds}
        return {**self.plan.summary(), "proof": {"precision": self.precision, **verdict}}

    def table(self) -> str:
        """The verdict, the kernels that are of another precision, and the plan, for a terminal."""
        return "\n".join([str(self), *(f"  not {self.precision}: {line}" for line in self.others), self.plan.table()])

    def __str__(self) -> str:
        kept = "holds" if self.holds else "BROKEN"
        return f"{self.share:.2%} of multiply-accumulates are {self.precision}, {self.promised:.1%} promised: {kept}"


@dataclass(frozen=True)
class Proven:
    """GPUs on which a graph keeps its promise, and those left out.

    Attributes:
        gpus: compute capabilities on which the promise holds; empty for a build that names none.
        left_out: the others, each with the reason.
        plans: kernel plan summaries by compute capability.
    """

    gpus: tuple[str, ...]
    left_out: Mapping[str, str]
    plans: Mapping[str, dict[str, Any]]


def promised_share(bundle: Bundle, entry: GraphEntry) -> float:
    """The share of multiply-accumulates that the index promises for a graph."""
    promises = bundle.precisions.get(entry.precision, {}).get("promised_share", {})
    value = promises.get(entry.graph) if isinstance(promises, dict) else None
    return float(value) if isinstance(value, (int, float)) and 0 <= value <= 1 else PROMISED[entry.precision]


def prove(data: bytes, bundle: Bundle, entry: GraphEntry, sm: str, options: BuildOptions | None = None) -> Proof:
    """Compile a graph for one GPU and check its kernels against the promise.

    Raises:
        MachineError: TensorRT-RTX is missing, or it has no kernels for that GPU.
    """
    plan = xray(data, sm, options, shown=entry.file, typed_macs=entry.macs)
    return Proof(entry.precision, promised_share(bundle, entry), plan)


def prove_build(data: bytes, bundle: Bundle, entry: GraphEntry, options: BuildOptions) -> Proven:
    """Prove a graph on the GPUs that an engine is to be built for.

    INT8 is proven on each: whether it falls back depends on the GPU (TensorRT-RTX 1.7.1 has no INT8 convolution for
    Turing), and a GPU on which it does is left out. FP32 and FP16 are proven on one. TensorRT on a device prints no
    plan: it is asked afterwards, see `prove_inspected`.

    Raises:
        VerificationError: the promise holds on none of them; the kernels that fell back are named.
    """
    if options.target != "rtx":
        return Proven(options.compute_capabilities, {}, {})
    each = options.compute_capabilities
    # The GPU that figures in this project are given for, if it is among them; else the newest.
    one = "sm86" if "sm86" in each else each[-1]
    tried = each if entry.precision == "int8" else (one,)
    proofs = {sm: prove(data, bundle, entry, sm, replace(options, compute_capabilities=(sm,))) for sm in tried}
    broken = {sm: proof for sm, proof in proofs.items() if not proof.holds}
    if len(broken) == len(proofs):
        raise _broken(bundle, entry, broken)
    return Proven(
        tuple(sm for sm in each if sm not in broken),
        {sm: f"{proof}; use another precision there" for sm, proof in broken.items()},
        {sm: proof.summary() for sm, proof in proofs.items()},
    )


def prove_inspected(inspection: Inspection, bundle: Bundle, entry: GraphEntry) -> dict[str, dict[str, Any]]:
    """Check the kernels that a device's engine inspector lists against the promise.

    The shape of the engine inspector's answer is unverified: only what is known to have fallen back is held against a
    graph, not what could not be found.

    Returns:
        The plan's summary, under 'this-gpu'.

    Raises:
        VerificationError: too much fell back; the kernels are named.
        RefusedError: the inspector's answer is no JSON.
    """
    plan = plan_of_inspection(inspection, entry.macs)
    proof = Proof(entry.precision, promised_share(bundle, entry), plan)
    if proof.fallen > 1.0 - proof.promised:
        raise _broken(bundle, entry, {plan.sm: proof})
    return {plan.sm: {**proof.summary(), "shape": "unverified: read from the engine inspector"}}


def _broken(bundle: Bundle, entry: GraphEntry, proofs: Mapping[str, Proof]) -> VerificationError:
    sm, proof = next(iter(proofs.items()))
    plan = proof.plan
    counts = (("ONNX types", plan.typed_macs), ("parsed", plan.parsed_macs), ("compiled", plan.macs_by_precision))
    lines = [f"{name}: " + ", ".join(f"{n / 1e6:.2f} M {p}" for p, n in sorted(macs.items())) for name, macs in counts]
    others = proof.others
    lines += [printable(line, 300) for line in others[:_SHOWN]]
    lines += [f"and {len(others) - _SHOWN} kernels more"] if len(others) > _SHOWN else []
    return VerificationError(
        f"{entry.file} is not {entry.precision} on {'+'.join(proofs)}: on {sm} {proof.share:.2%} of its "
        f"multiply-accumulates are compiled to {entry.precision}, {proof.promised:.1%} are promised.",
        cause="a graph that is not what its index says, or a compiler that fell back; the kernels below did",
        next=command("logoformer", "inspect", bundle.path, "--plan", "--graph", entry.graph)
        + f" --precision {entry.precision} --sm {sm}",
        log=lines,
    )
