"""Options, output and signals that several verbs share."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, Protocol

from ..errors import printable
from . import choices
from .parser import whole_between
from .terminal import Bar

Handler = Callable[[argparse.Namespace, Bar], int]
SignalHandler = Callable[[int, FrameType | None], Any]
MAX_SEED = 2**63 - 1  # what torch takes; numpy takes more


class AddVerb(Protocol):
    """Adds a verb: its name, what runs it, one line of help, an example."""

    def __call__(self, name: str, handler: Handler, help: str, example: str) -> argparse.ArgumentParser: ...


def show(a: argparse.Namespace, bar: Bar, data: Any, text: str, brief: str | None = None) -> int:
    """Prints an answer: `data` with `--json`, `brief` with `--quiet`, else `text`. Returns 0."""
    bar.clear()
    text = brief if a.quiet and brief is not None else text
    # Labels, verdicts and names come from files: escape what would move the cursor.
    shown = "\n".join(printable(line, 1 << 20) for line in text.split("\n"))
    # Flushed here, where a full disk can still be reported.
    print(json.dumps(data, allow_nan=False) if a.json else shown, flush=True)
    return 0


def say(a: argparse.Namespace, bar: Bar) -> Callable[[str], None]:
    """A function that prints a line of progress; silent with `--json` or `--quiet`."""

    def line(text: str) -> None:
        if not (a.json or a.quiet):
            bar.clear()
            print(text, flush=True)

    return line


@contextlib.contextmanager
def handling(number: signal.Signals, handler: SignalHandler) -> Iterator[None]:
    """Handles a signal while a verb runs, then puts back what the calling program had.

    It is left as it was outside the main thread, where Python takes no handler, and where the handler is not Python's,
    which could not be put back.
    """
    before = signal.getsignal(number)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


# -------------------------------------------------------------------------------------------------------------- options
def choice_option(
    p: argparse._ActionsContainer,
    option: str,
    names: Sequence[str],
    metavar: str,
    help: str,
    default: str | None = None,
) -> None:
    """An option that takes one of some names."""
    p.add_argument(option, default=default, choices=names, metavar=metavar, help=help)


def several_option(
    p: argparse.ArgumentParser, option: str, names: Sequence[str], metavar: str, help: str, default: Sequence[str] = ()
) -> None:
    """An option that takes several of some names."""
    p.add_argument(option, nargs="+", default=list(default), choices=names, metavar=metavar, help=help)


def data_option(p: argparse.ArgumentParser, *, required: bool, fold: int | None = 1, together: bool = False) -> None:
    """`--data`, `--fold`; with `together` it takes 'all' as well."""
    p.add_argument(
        "--data",
        required=required,
        metavar="DIR",
        help="DFEW, FERV39k, MAFW, plain lists, or folders of videos",
    )
    shown = "default 1" if fold else "default: the one that the checkpoint was trained on, else 1"
    if together:
        shown += "; all: of five bundles, one of each fold, as one"
    folds = (*range(1, 6), *((choices.ALL_FOLDS,) if together else ()))
    p.add_argument("--fold", type=_fold, default=fold, choices=folds, help=shown)


def _fold(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def overwrite_option(p: argparse._ActionsContainer) -> None:
    """`--overwrite`; what it allows is in `outputs.py`."""
    p.add_argument("--overwrite", action="store_true", help="replace what is there, also what no such call made")


def seed_option(p: argparse.ArgumentParser) -> None:
    """`--seed`."""
    p.add_argument("--seed", type=whole_between(0, MAX_SEED), default=0, help="default 0")


def threads_option(p: argparse.ArgumentParser) -> None:
    """`--threads`."""
    p.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: the backend's choice")


def precision_option(p: argparse.ArgumentParser) -> None:
    """`--precision`."""
    names = (choices.VERDICT, *choices.PRECISIONS, choices.MIXED)
    choice_option(p, "--precision", names, "P", "verdict (default), fp32, fp16, int8 or mixed", choices.VERDICT)


def engines_dir_option(p: argparse.ArgumentParser) -> None:
    """`--engines-dir`."""
    p.add_argument("--engines-dir", metavar="DIR", help="folder of the engines, if not inside the bundle")


def backend_option(p: argparse.ArgumentParser, default: str) -> None:
    """`--backend`."""
    names = [f"{name} (default)" if name == default else name for name in choices.BACKENDS]
    choice_option(p, "--backend", choices.BACKENDS, "B", ", ".join(names), default)


def device_option(p: argparse.ArgumentParser, shown: str = "which GPU; default 0") -> None:
    """`--device`."""
    p.add_argument("--device", type=whole_between(0, 1023), default=0, metavar="N", help=shown)


def strict_option(p: argparse.ArgumentParser) -> None:
    """`--strict`."""
    p.add_argument("--strict", action="store_true", help="refuse engines of another model of GPU or power mode")


def runtime_options(p: argparse.ArgumentParser) -> None:
    """The options of `logoformer.load`; read back by `runtime_arguments`."""
    backend_option(p, "auto")
    precision_option(p)
    device_option(p)
    strict_option(p)
    engines_dir_option(p)
    threads_option(p)


RUNTIME_DEFAULTS: dict[str, Any] = {
    "backend": "auto", "precision": choices.VERDICT, "device": 0, "engines_dir": None, "threads": None, "strict": False,
}  # fmt: skip


def runtime_arguments(a: argparse.Namespace) -> dict[str, Any]:
    """The options of `runtime_options`, as keywords of `logoformer.load`."""
    return {name: getattr(a, name) for name in RUNTIME_DEFAULTS}
