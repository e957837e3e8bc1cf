"""The command line: parses, calls one function, prints. No logic.

Every verb takes `--json`, `-v` and `-q`. Exit codes are those of `errors.py`. Nothing heavy is imported before a verb
is known, so `--help` answers at once; and nothing at all before Ctrl-C is noted, so that it never ends in a traceback.
Each group of verbs is a file: `model.py`, `bundle.py`, `device.py`, `watch.py`, `serving.py`, `completion.py`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from . import EXIT_INTERRUPTED

if TYPE_CHECKING:
    import argparse
    from types import FrameType

    from ..errors import LogoformerError, MachineError
    from .options import Handler
    from .terminal import Bar

# Which extra of pyproject brings what a verb imports. The other verbs run on numpy, Pillow and one backend.
EXTRAS = {
    "init": "train", "import": "train", "synth": "train", "train": "train", "evaluate": "train", "data-check": "train",
    "export": "export", "quantize": "export", "demo": "export,rtx", "completion": "completion",
    "triton-check": "triton",
}  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; the reference in docs/ is made from it."""
    from argparse import RawDescriptionHelpFormatter

    from .. import __version__
    from . import bundle, completion, device, importing, model, serving, watch
    from .parser import CommandParser

    parser = CommandParser(
        prog="logoformer",
        description="LOGO-Former from a PyTorch checkpoint to a camera on an edge GPU.",
        epilog="Exit codes: 0 success, 1 bench-compare found a regression, 2 wrong usage, 3 bad input, 4 artifact "
        "refused, 5 verification failed, 6 something is missing on this machine, 7 device lost, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"logoformer {__version__}")
    parser.set_defaults(root=parser)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, handler: Handler, help: str, example: str) -> argparse.ArgumentParser:
        p = verbs.add_parser(
            name,
            help=help,
            description=help[0].upper() + help[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=RawDescriptionHelpFormatter,
        )
        p.set_defaults(handler=handler)
        p.add_argument("--json", action="store_true", help="print one JSON object instead of text")
        loudness = p.add_mutually_exclusive_group()
        loudness.add_argument("-v", "--verbose", action="count", default=0, help="log what is done; -vv: every detail")
        loudness.add_argument(
            "-q", "--quiet", action="store_true", help="no progress, no warnings: the result alone, and errors"
        )
        return p

    for group in (model, importing, bundle, device, watch, serving, completion):
        group.add(verb)
    return parser


# ----------------------------------------------------------------------------------------------------------------- main
def main(argv: Sequence[str] | None = None) -> int:
    """The entry point. Returns the exit code.

    Args:
        argv: words after the program's name. None: those of this process, which ends when this returns.
    """
    interrupts = _Interrupts()
    with _noting(interrupts, ending=argv is None), _standard_streams(ending=argv is None):
        try:
            code = _call(sys.argv[1:] if argv is None else list(argv), interrupts)
        except KeyboardInterrupt:  # no verb was known yet, or it is the second one
            return interrupts.tell()
        return interrupts.tell() if interrupts.came and not interrupts.told else code


class _Interrupts:
    """The interrupts that came, also those whose KeyboardInterrupt foreign code swallowed.

    Raised inside a callback of C++ code or inside an import, the exception ends there, or comes out as another one.

    Attributes:
        came: how many.
        told: the program is about to end as interrupted, and further ones change nothing.
        over: nothing is left to do but to wait for threads; another one ends that too.
        verb: the verb that runs, if it is known.
        bar: its progress line.
    """

    def __init__(self) -> None:
        self.came = 0
        self.told = self.over = False
        self.verb = ""
        self.bar: Bar | None = None

    def note(self, number: int, frame: FrameType | None) -> None:
        """Handles SIGINT."""
        self.came += 1
        if self.over:
            os._exit(EXIT_INTERRUPTED)
        if not self.told:
            signal.default_int_handler(number, frame)

    def tell(self) -> int:
        """Prints the line, once, and returns the exit code."""
        self.told = True
        if self.bar is not None:
            self.bar.clear()
        name = f"logoformer {self.verb}".rstrip()
        with contextlib.suppress(OSError):
            print(f"{name}: interrupted" + ("; no output is half written" if self.verb else ""), file=sys.stderr)
        return EXIT_INTERRUPTED


@contextlib.contextmanager
def _noting(interrupts: _Interrupts, ending: bool) -> Iterator[None]:
    """Notes interrupts; afterwards the calling program has its handler back.

    Args:
        interrupts: takes them.
        ending: the process ends afterwards: once interrupted, it does not fall to another interrupt on its way out.
    """
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # and not the handler of a host program
    try:
        if ours:
            signal.signal(signal.SIGINT, interrupts.note)
    except ValueError:  # outside the main thread Python takes no handler
        ours = False
    try:
        yield
    finally:
        interrupts.told = True
        if ours and interrupts.came and ending:
            import atexit

            # Python's last steps set the signal back to the system's way, which is death, unless it is ignored.
            atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
            # `python -m` ends by the signal after all where the KeyboardInterrupt, long caught, passed through an
            # exec() of a text, as dataclasses use it: a flag of CPython's stays set until another exec() ends well.
            exec("")
            interrupts.over = True
        elif ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _standard_streams(ending: bool) -> Iterator[None]:
    """Opens closed standard streams on the null device; output escapes what its encoding lacks.

    The next file to be opened would get the free number, and what is printed would go into it. Unless the process ends
    afterwards, the calling program's streams escape as before again.
    """
    import io

    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))
    before = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            before.append((stream, stream.errors))
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        if not ending:
            for stream, errors in before:
                with contextlib.suppress(OSError, ValueError):  # it cannot be written, or was closed
                    stream.reconfigure(errors=errors)


def _call(words: Sequence[str], interrupts: _Interrupts) -> int:
    from .terminal import Bar, logging_to_stderr

    parser = make_parser()
    try:
        a = parser.parse_args(words or ["--help"])
    except SystemExit as end:  # --help, --version or a wrong call, which is printed already
        return int(end.code or 0) or _flushed()
    except OSError as error:
        return _unprinted(error)
    interrupts.verb = a.verb
    interrupts.bar = bar = Bar(quiet=a.json or a.quiet)
    with logging_to_stderr(bar, a.verbose, a.quiet):
        return _run(a, words, bar, interrupts)


def _flushed() -> int:
    """The exit code of what only printed: 0 where it could be written."""
    try:
        sys.stdout.flush()
    except OSError as error:
        return _unprinted(error)
    return 0


def _unprinted(error: OSError) -> int:
    _settle_output()
    if isinstance(error, BrokenPipeError):
        return 0
    failure = _unwritten(error)
    print(f"logoformer: {failure}", file=sys.stderr)
    return failure.exit_code


def _run(a: argparse.Namespace, words: Sequence[str], bar: Bar, interrupts: _Interrupts) -> int:
    from ..errors import LogoformerError, MachineError
    from .outputs import check_output

    handler: Handler = a.handler
    try:
        check_output(a, words)
        code = handler(a, bar)
        interrupts.told |= code == EXIT_INTERRUPTED  # by the verb itself
        return code
    except (LogoformerError, ModuleNotFoundError) as raised:
        if interrupts.came:  # what it is called is wrong: an import that an interrupt ended is no broken installation
            return interrupts.tell()
        return _fail(a, bar, raised if isinstance(raised, LogoformerError) else _missing(a.verb, raised))
    except KeyboardInterrupt:
        return interrupts.tell()
    except BrokenPipeError:
        _settle_output()
        return 0
    except MemoryError:
        return _fail(a, bar, MachineError("This machine ran out of memory.", next="end other programs, then run again"))
    except OSError as error:  # such as a full disk behind a redirected standard output
        return _fail(a, bar, _unwritten(error))
    except Exception:
        if interrupts.came:
            return interrupts.tell()
        raise


def _unwritten(error: OSError) -> MachineError:
    from ..errors import MachineError

    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return MachineError(f"The operating system reports: {error}.", next="df -h" if full else "logoformer doctor")


def _settle_output() -> None:
    """Discards output that cannot be written, so that the exit does not report it again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(a: argparse.Namespace, bar: Bar, error: LogoformerError) -> int:
    import json

    from ..errors import command

    bar.clear()
    _settle_output()
    error.next = error.next or command("logoformer", a.verb, "--help")
    with contextlib.suppress(OSError):  # the exit code says it all the same
        print(json.dumps(error.to_json()) if a.json else f"logoformer {a.verb}: {error}", file=sys.stderr, flush=True)
    return error.exit_code


def _missing(verb: str, error: ModuleNotFoundError) -> MachineError:
    from ..errors import missing_package

    module = (error.name or "").partition(".")[0]
    if verb not in EXTRAS or module in ("", "logoformer"):
        raise error  # a bug in this package, not in the installation
    return missing_package(module, EXTRAS[verb], f"The verb {verb}")
