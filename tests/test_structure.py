"""Rules of the source tree: sizes, directions of imports, names, docstrings; each finds a planted breach."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
Tree = Mapping[str, str]  # {path below the root: source}

# An arrow (an import, late ones and those for type checkers included) runs from a higher floor to a lower one, or stays
# inside one place. The longest prefix of a module's path counts.
FLOORS = {
    "errors": 0,
    "clips": 1,
    "bundle": 2,
    "media": 2.1,
    "engine/machine": 3.0,
    "engine/cuda": 3.1,
    "engine/plan": 3.2,
    "engine/trust": 3.2,
    "engine/builder": 3.3,
    "engine/sessions": 3.4,
    "engine/doctor": 3.4,
    "engine": 3.5,
    "model/networks": 4.0,
    "model/foreign": 3.9,
    "model/checkpoint": 4.1,
    "model/importing": 4.1,
    "model/data": 4.1,
    "model/synthetic": 4.2,
    "model/training": 4.3,
    "model": 4.4,
    "export": 5,
    "calibration": 5,
    "camera/faces": 4.9,
    "camera/sources": 5,
    "camera/answers": 5,
    "camera/pipeline": 5.2,
    "camera/web": 5.3,
    "camera": 5.4,
    "serving": 5,
    "benchmarks": 6,
    "workflows": 7,
    "cli": 8,
    "studies": 9,
    "__main__": 9,
    "__init__": 9,  # offers names of all floors
}
# With all below them: what runs on a device or a server needs no torch.
FORBIDDEN = {
    "camera": ("model", "export", "calibration"),
    "serving": ("model", "export", "calibration"),
}

MOST_AT_THE_ROOT, MOST_IN_A_FOLDER, MOST_LINES, MOST_OF_A_DOCSTRING_LINE = 4, 15, 400, 90
TABLES: dict[str, str] = {}  # files that may be longer, with a reason

# Functions of one documented contract, which every module of its kind offers under the same name.
CONTRACTS = {
    "add": "a group of verbs (cli/main.py)",
    "open_session": "a backend's entry point (engine/sessions/contract.py)",
    "runtime_name": "a backend's name with its version",
}
# Names that are defined more than once for another reason; at most eight.
SHARED_NAMES = {
    "main": "what a module does as a program",
}


# ---------------------------------------------------------------------------------------------------------------- trees
@cache
def here() -> Tree:
    """The package's own files that a commit would hold."""
    words = ["git", "ls-files", "-co", "--exclude-standard", "-z", "*.py"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    own = [name for name in names if name.split("/")[0] not in ("tests", "docs", "examples")]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in own}


@cache
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


def module_of(path: str) -> str:
    """'engine/stream.py' -> 'engine/stream', 'engine/__init__.py' -> 'engine', '__init__.py' -> '__init__'."""
    name = path.removesuffix(".py")
    return name.removesuffix("/__init__")


def imports(tree: Tree) -> Iterator[tuple[str, int, str]]:
    """(path, line, path of the file that is imported) of every import inside the package, wherever it stands."""
    files = {module_of(path): path for path in tree}
    for path, source in tree.items():
        parts = PurePosixPath(path).parent.parts
        for node in ast.walk(parsed(source)):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = [*parts[: len(parts) - node.level + 1], *(node.module.split(".") if node.module else [])]
            for alias in node.names:
                if alias.name == "__version__":  # a constant of the root, no dependency on what the root offers
                    continue
                found = files.get("/".join([*base, alias.name])) or files.get("/".join(base) or "__init__")
                if found is not None and found != path:
                    yield path, node.lineno, found


def place_of(path: str) -> str:
    """The entry of FLOORS that decides for a file; '' where none does."""
    module = module_of(path)
    found = [place for place in FLOORS if module == place or module.startswith(f"{place}/")]
    return max(found, key=len, default="")


# ---------------------------------------------------------------------------------------------------------------- rules
def few_files_at_the_root(tree: Tree) -> list[str]:
    found = sorted(path for path in tree if "/" not in path)
    return [f"{len(found)} files at the root: {found}"] if len(found) > MOST_AT_THE_ROOT else []


def few_files_in_a_folder(tree: Tree) -> list[str]:
    counts = Counter(str(PurePosixPath(path).parent) for path in tree if "/" in path)
    return [f"{folder}: {count} files" for folder, count in counts.items() if count > MOST_IN_A_FOLDER]


def no_file_is_long(tree: Tree) -> list[str]:
    lengths = {path: len(source.splitlines()) for path, source in tree.items() if path not in TABLES}
    return [f"{path}: {lines} lines" for path, lines in lengths.items() if lines > MOST_LINES]


def every_file_has_a_floor(tree: Tree) -> list[str]:
    return [f"{path}: name its place in FLOORS" for path in tree if not place_of(path)]


def arrows_run_down(tree: Tree) -> list[str]:
    wrong = []
    for path, line, target in imports(tree):
        own, other = place_of(path), place_of(target)
        barred = any(target.startswith(f"{folder}/") for folder in FORBIDDEN.get(path.split("/")[0], ()))
        if own != other and (FLOORS.get(other, 99) >= FLOORS.get(own, -1) or barred):
            wrong.append(f"{path}:{line} imports {target}")
    return wrong


def no_circle(tree: Tree) -> list[str]:
    """Tarjan's strongly connected components of more than one file."""
    arrows = defaultdict(set)
    for path, _, target in imports(tree):
        arrows[path].add(target)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles: list[str] = []

    def visit(path: str) -> None:
        index[path] = low[path] = len(index)
        stack.append(path)
        for target in sorted(arrows[path]):
            if target not in index:
                visit(target)
                low[path] = min(low[path], low[target])
            elif target in stack:
                low[path] = min(low[path], index[target])
        if low[path] == index[path]:
            group = [stack.pop()]
            while group[-1] != path:
                group.append(stack.pop())
            if len(group) > 1:
                circles.append(" <-> ".join(sorted(group)))

    for path in sorted(tree):
        if path not in index:
            visit(path)
    return circles


def names_are_unique(tree: Tree) -> list[str]:
    homes = defaultdict(list)
    for path, source in tree.items():
        for node in parsed(source).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.name[0] != "_":
                homes[node.name].append(path)
    shared = {name: paths for name, paths in homes.items() if len(paths) > 1}
    return [f"{name}: {paths}" for name, paths in sorted(shared.items()) if name not in {**CONTRACTS, **SHARED_NAMES}]


def first_docstring_lines_are_plain(tree: Tree) -> list[str]:
    wrong = []
    for path, source in tree.items():
        for node in ast.walk(parsed(source)):
            if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            first = (ast.get_docstring(node) or "").split("\n")[0]
            if len(first) > MOST_OF_A_DOCSTRING_LINE or "?" in first:
                wrong.append(f"{path}:{getattr(node, 'lineno', 1)} {first}")
    return wrong


def no_file_repeats_its_folder(tree: Tree) -> list[str]:
    paths = [PurePosixPath(path) for path in tree if "/" in path]
    return [str(path) for path in paths if path.stem.startswith((f"{path.parent.name}_", f"{path.parent.name}."))]


RULES: dict[Callable[[Tree], list[str]], Tree] = {  # each with a breach
    few_files_at_the_root: {f"m{i}.py": "" for i in range(5)},
    few_files_in_a_folder: {f"engine/plan/m{i}.py": "" for i in range(16)},
    no_file_is_long: {"clips.py": "x = 1\n" * 401},
    every_file_has_a_floor: {"novelty/x.py": ""},
    arrows_run_down: {"clips.py": "def f():\n    from .bundle import files", "bundle/files.py": ""},
    no_circle: {"engine/a.py": "from .b import x", "engine/b.py": "from . import c", "engine/c.py": "from .a import y"},
    names_are_unique: {"clips.py": "class Gpu: pass", "errors.py": "def Gpu(): pass"},
    first_docstring_lines_are_plain: {"clips.py": '"""Which clip is it?"""', "errors.py": f'"""{"x" * 91}"""'},
    no_file_repeats_its_folder: {"engine/plan/plan_text.py": ""},
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule):
    assert rule(here()) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_rule_finds_a_planted_breach(rule):
    assert rule(RULES[rule]) != []


@pytest.mark.parametrize(
    "breach",
    [
        {"engine/stream.py": "from ..benchmarks import bench", "benchmarks/bench.py": ""},
        {"engine/cuda/a.py": "if TYPE_CHECKING:\n    from ..sessions.b import C", "engine/sessions/b.py": ""},
        {"engine/plan/a.py": "from ..trust.b import c", "engine/trust/b.py": ""},  # of one floor
        {"camera/run.py": "from ..model.data import x", "model/data/__init__.py": ""},  # no torch on a device
        {"camera/faces/a.py": "from ...model.data import x", "model/data/__init__.py": ""},
        {"serving/a.py": "from ..model.data import x", "model/data/__init__.py": ""},
        {"camera/web/a.py": "from ...export import b", "export/b.py": "", "export/__init__.py": ""},
        {"export/a.py": "from .. import studies", "studies/__init__.py": ""},
    ],
)
def test_arrows_that_run_up_are_found(breach):
    assert len(arrows_run_down(breach)) == 1


def test_lists_of_exceptions_are_short_and_needed():
    assert len(SHARED_NAMES) <= 8
    defined = Counter(
        node.name
        for source in here().values()
        for node in parsed(source).body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
    )
    assert [name for name in {**CONTRACTS, **SHARED_NAMES} if defined[name] < 2] == []
    assert [path for path in TABLES if path not in here()] == []
