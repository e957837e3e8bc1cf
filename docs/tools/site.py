"""Hooks of MkDocs: fill docs/cli.md from the parser, and show the package to mkdocstrings.

The clone is the package `logoformer`, so it holds more than the package. `build/docs-source/logoformer` is a folder of
links to the package's own files and folders; mkdocstrings reads them without importing them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "build" / "docs-source"
MARKER = "<!-- cli:here -->"


def link_package(source: Path = SOURCE) -> None:
    """Makes `source/logoformer`, a folder of links to every module and package folder of the clone's root.

    What is right stays as it is: another build may be reading it.
    """
    folder = source / "logoformer"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [*ROOT.glob("*.py"), *(found.parent for found in ROOT.glob("*/__init__.py"))]
    for path in set(folder.iterdir()) - {folder / path.name for path in wanted}:
        path.unlink(missing_ok=True)
    for path in wanted:
        link = folder / path.name
        if not (link.is_symlink() and link.readlink() == path):
            link.unlink(missing_ok=True)
            with contextlib.suppress(FileExistsError):  # another build was faster
                link.symlink_to(path)


def parser() -> argparse.ArgumentParser:
    """The command line's own parser, of this clone."""
    link_package()
    sys.path.insert(0, os.fspath(SOURCE))
    try:
        from logoformer.cli.main import make_parser
    finally:
        sys.path.remove(os.fspath(SOURCE))
    return make_parser()


def verbs(root: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of the verbs, by name."""
    found = next(action for action in root._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def cli_reference(root: argparse.ArgumentParser) -> str:
    """The reference as Markdown: every verb, argument, option, default and choice that the parser knows."""
    lines = [str(root.epilog), "", *_arguments(root)]
    for name, verb in verbs(root).items():
        example = str(verb.epilog or "").replace("example:", "").strip()
        lines += ["", f"## {name}", "", str(verb.description), "", "```text", _usage(verb), "```", ""]
        lines += [*_arguments(verb), "", "Example:", "", "```text", example, "```"]
    return "\n".join(lines) + "\n"


def _usage(verb: argparse.ArgumentParser) -> str:
    formatter = argparse.HelpFormatter(verb.prog, width=88)
    formatter.add_usage(verb.usage, verb._actions, verb._mutually_exclusive_groups, prefix="")
    return formatter.format_help().strip()


def _arguments(p: argparse.ArgumentParser) -> Iterator[str]:
    yield "| argument | meaning |"
    yield "| --- | --- |"
    for action in p._actions:
        if isinstance(action, argparse._SubParsersAction) or action.help == argparse.SUPPRESS:
            continue
        value = "" if action.nargs == 0 else f" {_value(p, action)}"
        name = ", ".join(f"`{option}`" for option in action.option_strings) or f"`{_value(p, action)}`"
        name += f" `{value.strip()}`" if value and action.option_strings else ""
        help = (action.help or "") % {**vars(action), "prog": p.prog}
        yield f"| {name} | {_escape(help)}{' **Required.**' if action.required and action.option_strings else ''} |"


def _value(p: argparse.ArgumentParser, action: argparse.Action) -> str:
    return " ".join(argparse.HelpFormatter(p.prog)._format_args(action, action.metavar or action.dest).split())


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


# ---------------------------------------------------------------------------------------------------------------- hooks
def on_config(config: Any) -> Any:
    """Before mkdocstrings looks for the package."""
    link_package()
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Fills the page of the command line."""
    if page.file.src_uri != "cli.md":
        return markdown
    before, _, after = markdown.partition(MARKER)
    return before + cli_reference(parser()) + after
