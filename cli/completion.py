"""The verb `completion`: a script that completes verbs, options and paths in a shell."""

from __future__ import annotations

import argparse

from . import choices
from .options import AddVerb, show
from .terminal import Bar

# Options that take a path, by what their help shows. Positional arguments are paths too, where no choice is listed.
PATHS = {"BUNDLE", "CHECKPOINT", "DIR", "FILE", "JSON", "MD", "MP4", "OUT", "PATH", "PRIVATE", "PUBKEY", "VIDEO", "ZIP"}


def _completion(a: argparse.Namespace, bar: Bar) -> int:
    import shtab

    for parser in (a.root, *a.root.verbs.choices.values()):
        for action in parser._actions:
            if takes_path(action):
                action.complete = shtab.FILE
    script = shtab.complete(a.root, a.shell)
    if a.json:
        return show(a, bar, {"shell": a.shell, "script": script}, "")
    print(script, flush=True)  # not by `show`: a script's tabs are meant
    return 0


def takes_path(action: argparse.Action) -> bool:
    """Whether an argument is the name of a file or a folder."""
    if isinstance(action, argparse._SubParsersAction) or action.choices is not None or action.nargs == 0:
        return False
    return action.metavar in PATHS or not action.option_strings


def add(verb: AddVerb) -> None:
    """Adds the verb to the parser."""
    p = verb("completion", _completion, "print a script for tab completion", "logoformer completion bash")
    p.add_argument("shell", choices=choices.SHELLS, help="bash, zsh or tcsh")
