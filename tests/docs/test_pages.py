"""Pages that are written by hand are compared with what they describe."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from logoformer import errors
from logoformer.cli import EXIT_INTERRUPTED
from logoformer.errors import LogoformerError
from logoformer.media.opencv import QUIET
from logoformer.model.networks.configs import complexity, preset
from logoformer.workflows.label.on_ray import RAY_ENVIRONMENT

ROOT = Path(__file__).parents[2]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def subclasses(cls: type) -> set[type]:
    return {cls}.union(*map(subclasses, cls.__subclasses__()))


def own_files() -> list[Path]:
    words = ["git", "ls-files", "*.py", ":!tests", ":!docs", ":!examples"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split() if (ROOT / name).is_file()]


# ------------------------------------------------------------------------------------------------------ troubleshooting
def error_classes() -> set[str]:
    """Every class of the package whose bases lead to LogoformerError, found in the source: none has to be imported."""
    bases: dict[str, list[str]] = {}
    for path in own_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = [ast.unparse(base).split(".")[-1] for base in node.bases]
    found = {"LogoformerError"}
    while more := {name for name, parents in bases.items() if found & set(parents)} - found:
        found |= more
    return found


def test_every_error_class_has_a_paragraph_with_its_code():
    text = page("troubleshooting.md")
    assert set(re.findall(r"^### (\w+)$", text, re.MULTILINE)) == error_classes()
    for cls in subclasses(LogoformerError) - {LogoformerError}:
        if cls.__module__ == "logoformer.errors":
            part = text.split(f"### {cls.__name__}\n")[1]
            assert part.lstrip().startswith(f"Exit code {cls.exit_code}."), cls


def test_every_exit_code_has_a_row():
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")} | {1, EXIT_INTERRUPTED}
    rows = re.findall(r"^\| (\d+) \|", page("troubleshooting.md"), re.MULTILINE)
    assert [int(code) for code in rows] == sorted(codes)


def test_the_service_follows_the_exit_codes():
    codes = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    lost = codes.pop("EXIT_DEVICE_LOST")
    wanted = {value for name, value in codes.items() if name != "EXIT_OK"}
    found = re.search(r"^RestartPreventExitStatus=([\d ]+)$", page("embedding.md"), re.MULTILINE)
    assert found is not None and {int(code) for code in found[1].split()} == wanted and lost not in wanted


def test_both_pages_say_on_which_codes_watch_is_restarted():
    rows = re.findall(r"^\| (\d+) \|.*\| (yes|no)[^|]*\|$", page("supervision.md"), re.MULTILINE)
    restarted = [code for code, answer in rows if answer == "yes"]
    assert len(rows) >= 8 and f"`watch` on {' and '.join(restarted)}," in page("troubleshooting.md")
    prevented = re.search(r"^RestartPreventExitStatus=([\d ]+)$", page("supervision.md"), re.MULTILINE)
    assert prevented is not None and not set(restarted) & set(prevented[1].split())


# --------------------------------------------------------------------------------------------------------- environment
def variables() -> set[str]:
    """Names of environment variables in the package's source."""
    found = {*QUIET, *RAY_ENVIRONMENT, "PYTHONPATH"}  # these are not written beside `os.environ`
    for path in own_files():
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"os\.(?:environ(?:\.\w+)?|getenv)[(\[]\s*\"([A-Z_0-9]+)\"", text))
        found |= set(re.findall(r"\"((?:OMP|OPENBLAS|MKL)_NUM_THREADS)\"", text))
    return found


def test_every_environment_variable_has_a_row():
    rows = re.findall(r"^\| (`[^|]+) \|", page("environment.md"), re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([A-Z_0-9]+)`", row)} == variables()


# ------------------------------------------------------------------------------------------------------------- figures
def between(text: str, begin: str, end: str) -> str:
    return text.split(begin)[1].split(end)[0].lstrip("\n")


def test_readme_shows_the_committed_figures(figures):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = between(text, *figures.TABLE)
    assert table == figures.figures_table()
    assert len(table.splitlines()) - 2 <= 8
    assert between(text, *figures.CLAIM) == figures.claim()


UNIT = re.compile(r"\d(?:[.\d]*)(?: ?%| ms\b| µs\b| kernels\b| MB\b| GB\b| times\b| points\b)|\b0\.\d\d+\b")
BOUNDS = {  # what is no measurement
    "99 %",  # confidence
    "75 kernels",  # held by tests/test_full_size.py
}


@pytest.mark.parametrize("name", ["../README.md", "benchmarks.md", "index.md"])
def test_no_figure_is_written_by_hand(name):
    """Outside of what is printed from benchmarks/results/, pages with figures have none."""
    text = re.sub(r"<!-- ([\w-]+):begin -->.*?<!-- \1:end -->", "", page(name), flags=re.DOTALL)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert {found[0] for found in UNIT.finditer(text)} <= BOUNDS
    assert UNIT.search("it costs 0.35 of it") and UNIT.search("by 15 % at most") and UNIT.search("106 kernels")


def test_the_presets_are_those_of_the_code():
    for name in ("base", "wide", "tiny"):
        c = preset(name)
        count = complexity(c)
        macs = (count.clip_frames_macs + count.temporal_macs) / 1e9
        sizes = f"{c.frames} x {c.image_size} x {c.image_size} | {count.tokens} x {count.token_channels}"
        millions = f"{count.parameters / 1e6:.{2 if count.parameters < 1e6 else 1}f}"
        assert f"| `{name}` | {sizes} | {millions} M | {macs:.2f} G | " in page("architecture.md")


def test_the_drawings_are_those_of_the_script(drawings):
    for name, svg in drawings.PICTURES.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == svg, "run: make picture"
    picture = (ROOT / "docs" / "watch.png").stat()
    assert 10_000 < picture.st_size <= 200_000


def test_the_drawing_of_the_tree_has_every_folder(drawings):
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    for folder in folders:
        assert f">{folder}/</text>" in drawings.PICTURES["tree.svg"], folder
        assert f"| `{folder}/` |" in page("architecture.md"), folder


def test_files_that_the_way_of_a_frame_names_are_there():
    named = re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.py)?)`", page("architecture.md"))
    assert {"engine/stream.py", "camera/pipeline/feeder.py"} <= set(named)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_linux_is_said_where_rtx_is_installed():
    for name in ("../README.md", "install.md"):
        lines = [line for line in page(name).splitlines() if "[rtx," in line or "RTX card" in line]
        assert lines and "Linux only" in page(name)


def test_the_citation_names_the_paper_and_the_version():
    import logoformer

    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {logoformer.__version__}\n" in text and "https://arxiv.org/abs/2305.03343" in text
