"""The README's own commands run, in their order, in one folder; its Python too."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"(?:<!-- readme-test: skip, ([^>]*?) -->\n)?```(bash|python)\n(.*?)```", re.DOTALL)


def blocks() -> list[tuple[str, str, str]]:
    """(reason to skip or '', language, text) of every fenced block that could run."""
    return [(found[1] or "", found[2], found[3]) for found in BLOCK.finditer(README.read_text(encoding="utf-8"))]


def test_blocks_are_found_and_skips_give_reasons():
    found = blocks()
    assert len(found) >= 5 and sum(bool(skip) for skip, _, _ in found) == 1
    assert {language for _, language, _ in found} == {"bash", "python"}


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path):
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "logoformer"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m logoformer.cli "$@"\n')
    shim.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    ran = 0
    for skip, language, text in blocks():
        if skip or text.startswith("make "):  # `make` itself runs this test
            continue
        words = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=500)
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        ran += 1
    assert ran >= 3
    assert (tmp_path / "answers.mp4").stat().st_size > 1000 and (tmp_path / "report.json").is_file()


def test_make_targets_named_in_the_docs_exist():
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for document in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"`make ([a-z-]+)`", (README.parent / document).read_text(encoding="utf-8")):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
