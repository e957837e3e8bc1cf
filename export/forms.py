"""Forms of a family's graphs: one function, written for different processors.

Where a family has two (`graphs.ABSORBED`), a precision takes the one that its usual processor runs faster. FP32 is what
CPUs run: fewer multiply-accumulates win there. FP16 and INT8 are what TensorRT runs: fused attentions and few kernels
win there, as far as a kernel plan can tell; no speed of a GPU was measured. The figures are in
`benchmarks/results/families.json`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..model.networks.contract import NetworkConfig
from .graphs import ABSORBED


@dataclass(frozen=True)
class GraphForm:
    """A form, and why a precision has it.

    Attributes:
        name: 'absorbed' or 'fused'.
        reason: for the manifest.
    """

    name: str
    reason: str

    @property
    def absorbed(self) -> bool:
        """Whether the graphs are those of `graphs.ABSORBED`."""
        return self.name == "absorbed"


_ABSORBED = GraphForm("absorbed", "projections of many queries moved to few keys: fewer multiply-accumulates, for CPUs")
_FUSED = GraphForm("fused", "every attention in the form of TensorRT's fused kernels: fewer kernels, for GPUs")


def form_of(config: NetworkConfig, precision: str) -> GraphForm:
    """The form that a precision's graphs have."""
    return _ABSORBED if precision == "fp32" and config.family in ABSORBED else _FUSED


def form_entry(config: NetworkConfig, precision: str) -> dict[str, dict[str, str]]:
    """What the manifest says of a precision's form; nothing where there is only one."""
    if config.family not in ABSORBED:
        return {}
    form = form_of(config, precision)
    return {"form": {"name": form.name, "reason": form.reason}}
