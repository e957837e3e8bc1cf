"""Planted faults that the tests must find: `python tests/mutants.py [NAME ...]`.

Each fault of `data/mutants.toml` is a text in one file, another in its place, and the tests that must fail then. It is
planted in a copy of the tree; tests that pass all the same let it survive. The tests pass without a fault first, or
their failing would mean nothing.

What was found is in `benchmarks/results/mutants.json`; with names, only those faults are run and replaced there.
Exit code 1: a fault survived. 2: a fault or a name that is not as the table says.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import tomllib

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / "tests" / "data" / "mutants.toml"
RESULT = ROOT / "benchmarks" / "results" / "mutants.json"
LIMIT_S = 600
# What the tests' own conftest imports: here once, or each child would.
PRELOADED = ("torch", "torch.onnx._internal.exporter._registration", "hypothesis.strategies", "onnx", "PIL.Image")
OTHERS = 90  # exit code of a child that did not test the copy
KILLED, SURVIVED = "killed", "survived"


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        name: unique; `folder-what`.
        file: below the root.
        old: is in it exactly once.
        new: stands there instead.
        tests: as pytest takes them, without blanks; one of them at least must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def planted(self, source: str) -> str:
        """The file with the fault.

        Raises:
            ValueError: the text is not in it exactly once, or nothing would change.
        """
        found = source.count(self.old)
        if found != 1 or self.old == self.new:
            raise ValueError(f"{self.name}: {self.file} holds its text {found} times; mend tests/data/mutants.toml")
        return source.replace(self.old, self.new)


def read_table() -> tuple[Mutant, ...]:
    """The faults, in the table's order."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["mutant"]
    return tuple(Mutant(**{**row, "tests": tuple(row["tests"].split())}) for row in rows)


def copy_of_tree(folder: Path) -> Path:
    """Copies what a commit would hold into `folder/logoformer`."""
    words = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    tree = folder / "logoformer"
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    return tree


def tests_fail(tree: Path, tests: tuple[str, ...]) -> bool:
    """Runs tests in a tree until one fails, in a process that has the large packages already and nothing of ours.

    Raises:
        RuntimeError: they could not be run.
    """
    words = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            code = 3
            try:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                os.chdir(tree)
                for name in [name for name in sys.modules if name.partition(".")[0] == "logoformer"]:
                    del sys.modules[name]  # of this tree; `note` needs it
                sys.path.insert(0, str(tree.parent))
                os.environ["PYTHONPATH"] = str(tree.parent)
                signal.alarm(LIMIT_S)  # ends it, which counts as found
                code = int(pytest.main(words))
                ours = sys.modules.get("logoformer")
                if ours is not None and Path(str(ours.__file__)).parent != tree:
                    code = OTHERS
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said.seek(0)
        text = said.read().decode(errors="replace")
    if code not in (0, 1, -signal.SIGALRM):
        why = "the tests ran another logoformer than the copy" if code == OTHERS else f"pytest ended with {code}"
        raise RuntimeError(f"{why}:\n{text[-3000:]}")
    return code != 0


def run(mutants: tuple[Mutant, ...], told: Callable[[str, str], None]) -> dict[str, str]:
    """What became of each fault, by name; `told` hears of each at once.

    Raises:
        RuntimeError: the tests fail without a fault.
    """
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.dont_write_bytecode = True
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_of_tree(Path(folder))
        every = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
        if tests_fail(tree, every):
            raise RuntimeError(f"{' '.join(every)} fail without a fault")
        for mutant in mutants:
            path = tree / mutant.file
            whole = path.read_text(encoding="utf-8")
            path.write_text(mutant.planted(whole), encoding="utf-8")
            found[mutant.name] = KILLED if tests_fail(tree, mutant.tests) else SURVIVED
            path.write_text(whole, encoding="utf-8")
            told(mutant.name, found[mutant.name])
    return found


def note(table: tuple[Mutant, ...], name: str, outcome: str) -> None:
    """Puts what became of a fault into the results; a fault that left the table, or changed, goes."""
    from logoformer.bundle.files import dump_json, parse_json, write_atomic
    from logoformer.studies.results import measured

    print(f"{outcome:8} {name}", flush=True)
    before = parse_json(RESULT.read_bytes(), str(RESULT))["mutants"] if RESULT.exists() else []
    known = [{**row, "tests": tuple(row["tests"])} for row in before]
    rows = []
    for mutant in table:
        kept = [row for row in known if row == {**asdict(mutant), "outcome": row["outcome"]}]
        rows += [{**asdict(mutant), "outcome": outcome}] if mutant.name == name else kept
    counts = {kind: sum(row["outcome"] == kind for row in rows) for kind in (KILLED, SURVIVED)}
    write_atomic(RESULT, dump_json({**measured("python tests/mutants.py"), **counts, "mutants": rows}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="faults to plant; all without one")
    wanted = parser.parse_args().names
    table = read_table()
    if unknown := sorted(set(wanted) - {mutant.name for mutant in table}):
        parser.error(f"no fault is named {', '.join(unknown)}")
    mutants = tuple(m for m in table if not wanted or m.name in wanted)
    try:
        for mutant in mutants:
            mutant.planted((ROOT / mutant.file).read_text(encoding="utf-8"))
        found = run(mutants, functools.partial(note, table))
    except (ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    lived = [name for name, outcome in found.items() if outcome == SURVIVED]
    print(f"{len(found) - len(lived)} of {len(found)} faults were found{': not ' if lived else ''}{', '.join(lived)}")
    return 1 if lived else 0


if __name__ == "__main__":
    raise SystemExit(main())
