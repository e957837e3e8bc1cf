"""The command line: parses, calls one function, prints. No logic.

Every verb takes `--json`, `-v` and `-q`. Exit codes are those of `errors.py`. Nothing heavy is imported before a verb
is known, so `--help` answers at once. Each group of verbs is a file: `model.py`, `bundle.py`, `device.py`,
`watch.py`, `serving.py`, `completion.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

from .. import __version__
from ..errors import EXIT_OK, LogoformerError, MachineError, command, missing_package
from . import bundle as cli_bundle
from . import completion as cli_completion
from . import device as cli_device
from . import importing as cli_importing
from . import model as cli_model
from . import serving as cli_serving
from . import watch as cli_watch
from .options import EXIT_INTERRUPTED, Handler, handling
from .outputs import check_output
from .parser import CommandParser
from .terminal import Bar, logging_to_stderr

# Which extra of pyproject brings what a verb imports. The other verbs run on numpy, Pillow and one backend.
EXTRAS = {
    "init": "train", "import": "train", "synth": "train", "train": "train", "evaluate": "train", "data-check": "train",
    "export": "export", "quantize": "export", "demo": "export,rtx", "completion": "completion",
    "triton-check": "triton",
}  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; the reference in docs/ is made from it."""
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
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        p.set_defaults(handler=handler)
        p.add_argument("--json", action="store_true", help="print one JSON object instead of text")
        loudness = p.add_mutually_exclusive_group()
        loudness.add_argument("-v", "--verbose", action="count", default=0, help="log what is done; -vv: every detail")
        loudness.add_argument(
            "-q", "--quiet", action="store_true", help="no progress, no warnings: the result alone, and errors"
        )
        return p

    for group in (cli_model, cli_importing, cli_bundle, cli_device, cli_watch, cli_serving, cli_completion):
        group.add(verb)
    return parser


# ----------------------------------------------------------------------------------------------------------------- main
def main(argv: Sequence[str] | None = None) -> int:
    """The entry point. Returns the exit code."""
    _escape_what_cannot_be_encoded()
    parser = make_parser()
    words = sys.argv[1:] if argv is None else list(argv)
    if not words:
        parser.print_help()
        return EXIT_OK
    try:
        a = parser.parse_args(words)
    except SystemExit as end:  # --help, --version or a wrong call, which is printed already
        return int(end.code or 0)
    bar = Bar(quiet=a.json or a.quiet)
    with logging_to_stderr(bar, a.verbose, a.quiet), _noting_interrupts() as interrupts:
        code = _run(a, words, bar, interrupts)
        return _interrupted(a, bar) if interrupts and code != EXIT_INTERRUPTED else code


@contextlib.contextmanager
def _noting_interrupts() -> Iterator[list[int]]:
    """Gives the interrupts that came, also those whose KeyboardInterrupt foreign code swallowed.

    Raised inside a callback of C++ code or inside an import, the exception ends there, or comes out as another one.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.default_int_handler(number, frame)

    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # and not the handler of a host program
    with handling(signal.SIGINT, note) if ours else contextlib.nullcontext():
        yield came


def _interrupted(a: argparse.Namespace, bar: Bar) -> int:
    bar.clear()
    print(f"logoformer {a.verb}: interrupted; files already on disk are unchanged", file=sys.stderr)
    return EXIT_INTERRUPTED


def _run(a: argparse.Namespace, words: Sequence[str], bar: Bar, interrupts: Sequence[int]) -> int:
    handler: Handler = a.handler
    try:
        check_output(a, words)
        return handler(a, bar)
    except (LogoformerError, ModuleNotFoundError) as raised:
        if interrupts:  # what it is called is wrong: an import that an interrupt ended is no broken installation
            return _interrupted(a, bar)
        return _fail(a, bar, raised if isinstance(raised, LogoformerError) else _missing(a.verb, raised))
    except KeyboardInterrupt:
        return _interrupted(a, bar)
    except BrokenPipeError:
        _settle_output()
        return 0
    except MemoryError:
        return _fail(a, bar, MachineError("This machine ran out of memory.", next="end other programs, then run again"))
    except OSError as error:  # such as a full disk behind a redirected standard output
        return _fail(a, bar, MachineError(f"The operating system reports: {error}.", next="df -h"))
    except Exception:
        if interrupts:
            return _interrupted(a, bar)
        raise


def _escape_what_cannot_be_encoded() -> None:
    """Makes output escape the characters that its encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _settle_output() -> None:
    """Discards output that cannot be written, so that the exit does not report it again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(a: argparse.Namespace, bar: Bar, error: LogoformerError) -> int:
    bar.clear()
    _settle_output()
    error.next = error.next or command("logoformer", a.verb, "--help")
    print(json.dumps(error.to_json()) if a.json else f"logoformer {a.verb}: {error}", file=sys.stderr)
    return error.exit_code


def _missing(verb: str, error: ModuleNotFoundError) -> MachineError:
    module = (error.name or "").partition(".")[0]
    if verb not in EXTRAS or module in ("", "logoformer"):
        raise error  # a bug in this package, not in the installation
    return missing_package(module, EXTRAS[verb], f"The verb {verb}")
