"""The command line: parses, calls one function, prints. No logic.

Every verb takes `--json`. Exit codes are those of `errors.py`. Nothing heavy is imported before a verb is known, so
`--help` answers at once. The verbs stand in `cli/model.py`, `cli/bundle.py`, `cli/device.py`, `cli/bench.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..errors import LogoformerError, MachineError, command, missing_package
from . import bench as cli_bench
from . import bundle as cli_bundle
from . import device as cli_device
from . import model as cli_model
from .options import EXIT_INTERRUPTED, Handler
from .terminal import Bar

# Which extra of pyproject brings what a verb imports. The other verbs run on numpy, Pillow and one backend.
EXTRAS = {
    "init": "train", "synth": "train", "train": "train", "evaluate": "train", "data-check": "train",
    "export": "export", "quantize": "export", "demo": "export,rtx",
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="logoformer",
        description="LOGO-Former from a PyTorch checkpoint to a camera on an edge GPU.",
        epilog="Exit codes: 1 bench-compare found a regression, 2 usage, 3 bad input, 4 refused, 5 verification "
        "failed, 6 environment, 7 device lost.",
    )
    parser.add_argument("--version", action="version", version=f"logoformer {__version__}")
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
        return p

    for group in (cli_model, cli_bundle, cli_device, cli_bench):
        group.add(verb)
    return parser


# ----------------------------------------------------------------------------------------------------------------- main
def main(argv: Sequence[str] | None = None) -> int:
    """The entry point. Returns the exit code."""
    a = _parser().parse_args(argv)
    bar = Bar(quiet=a.json)
    handler: Handler = a.handler
    try:
        return handler(a, bar)
    except (LogoformerError, ModuleNotFoundError) as raised:
        return _fail(a, bar, raised if isinstance(raised, LogoformerError) else _missing(a.verb, raised))
    except KeyboardInterrupt:
        bar.clear()
        print(f"logoformer {a.verb}: interrupted; what stood on the disk before is unchanged", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _settle_output()
        return 0
    except MemoryError:
        return _fail(a, bar, MachineError("This machine ran out of memory.", next="end other programs, then run again"))
    except OSError as error:  # such as a full disk behind a redirected standard output
        return _fail(a, bar, MachineError(f"The operating system reports: {error}.", next="df -h"))


def _settle_output() -> None:
    """Lets go of output that cannot be written; the interpreter would complain of it once more at its end."""
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
        raise error  # a fault of ours, not of the installation
    return missing_package(module, EXTRAS[verb], f"The verb {verb}")
