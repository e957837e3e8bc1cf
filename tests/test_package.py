"""What is packed, what a plain import costs, what a device needs, what no file in git says."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import logoformer
import numpy as np
import pytest
import tomllib
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]

RUNTIME = {"numpy", "PIL"}  # what a device has, beside one backend
LATE = ("benchmarks", "bundle", "calibration", "camera", "engine", "media", "serving", "cli", "clips", "errors")
HEAVY = (
    "torch", "torchvision", "onnx", "onnxscript", "modelopt", "av", "cv2", "matplotlib", "safetensors", "tensorrt_rtx",
)  # fmt: skip


@cache
def in_git() -> tuple[PurePosixPath, ...]:
    """Every file that a commit of this tree would hold."""
    words = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = listed.stdout.decode().split("\0")
    return tuple(PurePosixPath(name) for name in names if name and (ROOT / name).is_file())


@cache
def modules() -> tuple[PurePosixPath, ...]:
    """The package's own files, such as `engine/stream.py`."""
    return tuple(p for p in in_git() if p.suffix == ".py" and p.parts[0] not in ("tests", "docs", "examples"))


@cache
def parsed(module: PurePosixPath) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), str(module))


def imported(node: ast.AST) -> list[str]:
    """Top-level names of the foreign packages that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name.split(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [(node.module or "").split(".")[0]]
    return []


def at_import(tree: ast.Module) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: no function bodies, nothing under TYPE_CHECKING."""
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
            continue
        yield node
        waiting += ast.iter_child_nodes(node)


# -------------------------------------------------------------------------------------------------------------- imports
def test_the_package_never_imports_itself_by_name():
    nodes = [(module, node) for module in modules() for node in ast.walk(parsed(module))]
    assert [f"{module}:{node.lineno}" for module, node in nodes if "logoformer" in imported(node)] == []


def test_folders_that_run_on_a_device_import_only_what_a_device_has():
    allowed = RUNTIME | set(sys.stdlib_module_names)
    wrong = []
    for module in modules():
        if module.parts[0].removesuffix(".py") in (*LATE, "__init__"):
            found = {name for node in at_import(parsed(module)) for name in imported(node)}
            wrong += [f"{module} imports {name}" for name in sorted(found - allowed)]
    assert wrong == []


def test_library_code_raises_errors_that_python_cannot_strip():
    found = [f"{m}:{n.lineno}" for m in modules() for n in ast.walk(parsed(m)) if isinstance(n, ast.Assert)]
    assert found == []


def test_only_what_a_person_calls_prints():
    calls = [
        f"{module}:{node.lineno}"
        for module in modules()
        if module.parts[0] not in ("cli", "studies")
        for node in ast.walk(parsed(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert calls == []


# ---------------------------------------------------------------------------------------------------------------- files
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_packages_list_equals_the_folders_on_disk():
    folders = {module.parent for module in modules()}
    on_disk = {".".join(("logoformer", *folder.parts)) for folder in folders}
    assert set(project()["tool"]["setuptools"]["packages"]) == on_disk
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders)


SPARK, JETSON, DESKTOP = ("aarch64", "6.14.0-1013-nvidia"), ("aarch64", "6.8.12-tegra"), ("x86_64", "6.8.0-60-generic")


@pytest.mark.parametrize(
    ("extra", "machine", "installs"),
    [("rtx", DESKTOP, True), ("rtx", SPARK, True), ("rtx", JETSON, False), ("rtx12", DESKTOP, True),
     ("rtx12", SPARK, False), ("tensorrt", SPARK, True), ("tensorrt", JETSON, False), ("tensorrt12", JETSON, False)],
)  # fmt: skip
def test_no_wheel_of_tensorrt_comes_to_a_jetson(extra, machine, installs):
    """There it would hide JetPack's. A DGX Spark is aarch64 too, and has none of its own."""
    requirements = pytest.importorskip("packaging.requirements", reason="packaging is not installed")
    (wanted,) = map(requirements.Requirement, project()["project"]["optional-dependencies"][extra])
    here = {"platform_machine": machine[0], "platform_release": machine[1]}
    assert wanted.marker.evaluate(here) is installs
    assert wanted.name == f"tensorrt{'-rtx' if 'rtx' in extra else ''}-cu{'12' if extra.endswith('12') else '13'}"


def test_tests_mirror_the_folders():
    folders = {path.parts[1] for path in in_git() if path.parts[0] == "tests" and len(path.parts) > 2}
    packages = {module.parts[0] for module in modules() if len(module.parts) > 1}
    assert folders - {"data", "docs", "helpers"} == packages


# Written so that no pattern finds itself.
FORBIDDEN = {
    "a path of one machine": r"/wor[k]/|/roo[t]/|/tm[p]/(bash_jobs|hx|devvenv)|/op[t]/(wheels|pypi)",
    "a registry's host": r"[p]ypi\.|[p]ythonhosted\.|[n]pmjs\.|deb\.[d]ebian\.|[p]roxy\.golang\.",
    "unfinished work": r"\bTOD[O]\b|\bFIXM[E]\b|\bXX[X]\b|NotImplementedErro[r]|raise NotImplemente[d]",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_in_git_holds(what):
    pattern = re.compile(FORBIDDEN[what].encode())
    found = []
    for path in in_git():
        data = (ROOT / path).read_bytes()
        if b"\0" not in data[:8000]:
            found += [f"{path}: {hit.group()!r}" for hit in pattern.finditer(data)]
    assert found == []


# ---------------------------------------------------------------------------------------------------------------- links
def without_code(text: str) -> str:
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def anchors(text: str) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ +(.+?) *$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_of_the_docs_leads_somewhere():
    pages = [path for path in in_git() if path.suffix == ".md"]
    assert PurePosixPath("README.md") in pages
    kept = set(in_git())
    broken = []
    for page in pages:
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(<?([^)>\s]+)", without_code(text)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            there = PurePosixPath(os.path.normpath(page.parent / name)) if name else page
            folder = any(there in path.parents for path in kept)
            if there not in kept and not folder:
                broken.append(f"{page}: {target}: no such file in git")
            elif anchor and anchor not in anchors((ROOT / there).read_text(encoding="utf-8")):
                broken.append(f"{page}: {target}: no such heading")
    assert broken == []


# ---------------------------------------------------------------------------------------------------------------- names
def test_the_root_names_are_lazy_and_complete():
    assert sorted([*logoformer._HOMES, *logoformer._MODULES]) == sorted(logoformer.__all__)
    for name, home in logoformer._HOMES.items():
        value = getattr(logoformer, name)
        assert value is getattr(sys.modules["logoformer" + home], name)
        assert name in dir(logoformer)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        logoformer.nothing  # noqa: B018


def test_type_checkers_see_the_root_names():
    tree = parsed(PurePosixPath("__init__.py"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    seen = {alias.asname for block in blocks for node in block.body for alias in node.names}  # `X as X` is an export
    assert seen == set(logoformer.__all__)
    assert PurePosixPath("py.typed") in in_git()


def test_the_version_is_the_same_in_both_places():
    assert project()["project"]["version"] == logoformer.__version__


# -------------------------------------------------------------------------------------------------------------- imports
def modules_after(code: str, *words: object, cwd: Path) -> set[str]:
    """Runs code in a new interpreter and gives the names of all modules that it had imported at the end."""
    script = f"import sys\n{code}\nopen('modules.txt', 'w').write(' '.join(sys.modules))"
    subprocess.run([sys.executable, "-c", script, *map(str, words)], cwd=cwd, check=True, stdout=subprocess.DEVNULL)
    return set((cwd / "modules.txt").read_text().split())


def foreign(names: set[str], bare: set[str]) -> set[str]:
    """Packages beyond the standard library, and beyond what any interpreter here starts with (`site` hooks)."""
    top = {name.split(".")[0] for name in names - bare}
    return {name for name in top if name not in sys.stdlib_module_names and not name.startswith("__")}


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> set[str]:
    return modules_after("", cwd=tmp_path_factory.mktemp("bare"))


def test_importing_the_package_imports_nothing_else(tmp_path, bare):
    names = modules_after("import logoformer", cwd=tmp_path)
    assert foreign(names, bare) == {"logoformer"}
    assert {name for name in names if name.startswith("logoformer.")} == set()


def test_help_of_every_verb_imports_no_other_package(tmp_path, bare):
    code = """
import contextlib
from logoformer.cli.main import main
for words in (["--help"], ["--version"], *([verb, "--help"] for verb in sys.argv[1].split())):
    with contextlib.suppress(SystemExit):
        main(words)
"""
    text = subprocess.run(
        [sys.executable, "-m", "logoformer", "--help"], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    verbs = re.findall(r"^    ([a-z-]+) ", text, re.MULTILINE)
    assert {"init", "export", "build", "verify", "run", "bench", "inspect", "demo"} <= set(verbs)
    names = modules_after(code, " ".join(verbs), cwd=tmp_path)
    assert foreign(names, bare) == {"logoformer"}
    own = {name.split(".")[1] for name in names if name.startswith("logoformer.")}
    assert own <= {"cli", "errors", "benchmarks"}


def test_answering_imports_neither_torch_nor_what_only_training_and_export_need(untrained_bundle, tmp_path):
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed (the extra 'cpu' or 'gpu')")
    frames = tmp_path / "frames"
    frames.mkdir()
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(frames / f"{index}.png")
    code = """
import logoformer
from logoformer.cli.main import main
with logoformer.load(sys.argv[1], threads=1) as engine:
    clip = engine.bundle.golden().clips[0]
    assert engine(clip, color="rgb").label in engine.labels
    with engine.stream(hop=1, color="bgr", warmup="repeat") as stream:
        assert stream.push(clip[0], 0.0).probabilities.shape == (len(engine.labels),)
assert main(["run", sys.argv[1], sys.argv[2], "--warmup", "repeat", "--hop", "2"]) == 0
assert main(["inspect", sys.argv[1]]) == 0
assert main(["verify", sys.argv[1], "--no-write"]) == 0
"""
    names = modules_after(code, untrained_bundle, frames, cwd=tmp_path)
    assert {name.split(".")[0] for name in names} & set(HEAVY) == set()


def test_groups_of_tests_reach_the_scheduler(request: pytest.FixtureRequest):
    """Without them each worker makes what is costly; pytest-xdist 3.8 forgets them, without a word, on pytest 9.2."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("runs with --dist loadgroup")
    assert "@" in request.node.nodeid
