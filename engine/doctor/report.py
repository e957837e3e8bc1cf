"""The verb `doctor`: which parts of this machine work, and commands that mend the others."""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from ...errors import EXIT_ENVIRONMENT, EXIT_OK
from ..machine.targets import RTX_SMS
from .advice import ORT_OLDEST, all_checks, check_onnxruntime, check_openvino, check_rtx, check_tensorrt
from .commands import FIX, OK, Check
from .facts import Facts, Module, read_facts
from .probe import Probe, probe_here

WIDTH = 118


@dataclass(frozen=True)
class BackendState:
    """Whether one backend can run a bundle here."""

    name: str
    runs: bool
    text: str


@dataclass(frozen=True)
class DoctorReport:
    """Facts of one machine, a verdict on each part, and the backends that can run a bundle."""

    facts: Facts
    checks: tuple[Check, ...]
    backends: tuple[BackendState, ...]

    @property
    def exit_code(self) -> int:
        """0 when at least one backend can run a bundle, else 6 (environment)."""
        return EXIT_OK if any(state.runs for state in self.backends) else EXIT_ENVIRONMENT

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        f = self.facts
        return {
            "exit_code": self.exit_code,
            "system": f.system,
            "architecture": f.interpreter.architecture,
            "python": f.interpreter.version,
            "executable": f.interpreter.executable,
            "jetson": f.jetson,
            "board": f.board,
            "l4t": f.l4t,
            "driver": f.driver,
            "cuda": list(f.cuda),
            "gpus": [asdict(gpu) for gpu in f.gpus],
            "debian_packages": dict(f.debs),
            "libraries": list(f.libraries),
            "modules": {
                name: {
                    "version": module.version,
                    "files": list(module.files),
                    "owners": [f"{owner.name} {owner.version}" for owner in module.owners],
                    "error": module.error,
                }
                for name, module in f.modules.items()
                if module.files or module.owners
            },
            "checks": [asdict(check) for check in self.checks],
            "backends": [asdict(state) for state in self.backends],
        }

    def text(self) -> str:
        """The report as text, on one screen."""
        f = self.facts
        lines = [f"{f.system or 'An unknown system'}, {f.interpreter.architecture}, {f.interpreter.executable}", ""]
        for check in self.checks:
            lines += _entry(f"{check.status:<3}  {check.name:<12}  ", check.text)
            lines += [f"{'':19}$ {fix}" for fix in check.fixes]  # never broken: it is there to be copied
        lines.append("")
        for state in self.backends:
            lines += _entry(f"{'yes' if state.runs else 'no':<3}  {state.name:<12}  ", state.text)
        wrong = sum(check.status == FIX for check in self.checks)
        verdict = "A bundle can run here" if self.exit_code == EXIT_OK else "No backend can run a bundle here"
        mending = f"; {wrong} of {len(self.checks)} parts need mending, by the commands behind $" if wrong else ""
        return "\n".join([*lines, "", f"{verdict}{mending}."])


def _entry(head: str, text: str) -> list[str]:
    whole = textwrap.TextWrapper(WIDTH, head, " " * len(head), break_long_words=False, break_on_hyphens=False)
    return whole.wrap(text)


def doctor(probe: Probe | None = None) -> DoctorReport:
    """Examines a machine: without a probe this one, and the interpreter that runs."""
    facts = read_facts(probe or probe_here())
    return DoctorReport(facts, all_checks(facts), backends(facts))


def backends(f: Facts) -> tuple[BackendState, ...]:
    """Whether each backend can run a bundle here."""
    trouble = "" if check_tensorrt(f).status == OK else "see tensorrt"
    return (_runs_onnxruntime(f), _runs_openvino(f), _runs_trt(f, "tensorrt", f.tensorrt, trouble), _runs_rtx(f))


def _runs_onnxruntime(f: Facts) -> BackendState:
    module = f.modules["onnxruntime"]
    if not module.works:
        return BackendState("onnxruntime", False, "cannot run: " + (module.error or "not installed"))
    if module.numbers() < ORT_OLDEST:
        return BackendState("onnxruntime", False, "cannot run: see onnxruntime")
    fine = check_onnxruntime(f).status == OK
    more = [name for name in module.providers if name != "CPU"] if f.gpus and fine else []
    return BackendState("onnxruntime", True, "runs bundles: " + " or ".join(["CPU", *more]))


def _runs_openvino(f: Facts) -> BackendState:
    module, check = f.modules["openvino"], check_openvino(f)
    if not module.files or check is None:
        return BackendState("openvino", False, "cannot run: not installed")
    if check.status != OK:
        return BackendState("openvino", False, "cannot run: see openvino")
    return BackendState("openvino", True, "runs bundles: " + " or ".join(map(str, module.said.get("devices", ()))))


def _runs_rtx(f: Facts) -> BackendState:
    if f.jetson:
        return BackendState("tensorrt_rtx", False, "cannot run: it is made for RTX cards, not for Jetson")
    check = check_rtx(f)
    trouble = "" if check is not None and check.status == OK else "see tensorrt-rtx"
    if not trouble and f.gpus and not any(g.sm in RTX_SMS for g in f.gpus):
        trouble = f"it has no code for {', '.join(g.sm for g in f.gpus)}"
    state = _runs_trt(f, "tensorrt_rtx", f.tensorrt_rtx, trouble)
    return state if state.runs or not f.tensorrt_rtx.works else BackendState(state.name, False, f"builds; {state.text}")


def _runs_trt(f: Facts, name: str, module: Module, trouble: str) -> BackendState:
    if not module.files and name not in f.hidden:
        why = "not installed"
    elif trouble:
        why = trouble
    elif not f.gpus:
        why = "no GPU"
    elif not any(layer.works for layer in f.cuda_layers.values()):
        why = "see cuda layer"
    else:
        return BackendState(name, True, f"runs bundles that have engines for {', '.join(g.sm for g in f.gpus)}")
    return BackendState(name, False, f"cannot run: {why}")
