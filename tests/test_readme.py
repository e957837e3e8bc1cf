"""The documents' own commands run, in their order, each document in a folder of its own; their Python too."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from logoformer import errors

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "docs/embedding.md")
LEAVES = {
    "README.md": ("answers.mp4", "report.json"),
    "docs/embedding.md": ("face.bundle", "clip.ncdhw.onnx", "engines"),
}
BLOCK = re.compile(r"(?:<!-- readme-test: skip, ([^>]*?) -->\n)?```(bash|python)\n(.*?)```", re.DOTALL)


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[tuple[str, str, str]]:
    """(reason to skip or '', language, text) of every fenced block that could run."""
    return [(found[1] or "", found[2], found[3]) for found in BLOCK.finditer(text_of(document))]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_blocks_are_found_and_few_are_skipped(document: str):
    found = blocks(document)
    skipped = [skip for skip, _, _ in found if skip]
    assert len(found) >= 5 and len(skipped) * 3 <= len(found)
    assert all(len(reason.split()) >= 3 for reason in skipped)
    assert {language for _, language, _ in found} == {"bash", "python"}
    assert text_of(document).count("readme-test: skip") == len(skipped), "a marker before no block"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder beside the examples, where `logoformer` and `python` are ours."""
    (tmp_path / "bin").mkdir()
    for name, words in (("logoformer", "-m logoformer"), ("python", "")):
        shim = tmp_path / "bin" / name
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        shim.chmod(0o755)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "examples").symlink_to(ROOT / "examples")
    return tmp_path / "work"


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_runs(document: str, folder: Path):
    env = {**os.environ, "PATH": f"{folder.parent / 'bin'}:{os.environ['PATH']}"}
    ran = 0
    for skip, language, text in blocks(document):
        if skip or text.startswith("make "):  # `make` itself runs this test
            continue
        words = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=500)
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        ran += 1
    assert ran >= 3
    for name in LEAVES[document]:
        assert (folder / name).is_dir() or (folder / name).stat().st_size > 1000


def test_make_targets_named_in_the_docs_exist():
    makefile = text_of("Makefile")
    for document in (*DOCUMENTS, "CONTRIBUTING.md"):
        for target in re.findall(r"`make ([a-z-]+)`", text_of(document)):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_service_of_the_docs_follows_the_exit_codes():
    codes = {name: value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    lost = codes.pop("EXIT_DEVICE_LOST")
    wanted = {value for name, value in codes.items() if name != "EXIT_OK"}
    found = re.search(r"^RestartPreventExitStatus=([\d ]+)$", text_of("docs/embedding.md"), re.MULTILINE)
    assert found is not None and {int(code) for code in found[1].split()} == wanted and lost not in wanted
