"""The documents' own commands run, in their order, each document in a folder of its own; their Python too.

A block that cannot run has a comment before it: `<!-- test: skip, REASON -->`. A block that needs files
which the document has not made yet says so: `<!-- test: needs face.bundle, clip.mp4 -->`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from logoformer.model.synthetic.layout import write_untrimmed

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if "```bash" in path.read_text(encoding="utf-8") or "```python" in path.read_text(encoding="utf-8")
)
LEAVES = {
    "README.md": ("answers.mp4", "report.json"),
    "docs/benchmarks.md": ("report/report.html",),
    "docs/complexity.md": ("complexity.svg",),
    "docs/embedding.md": ("face.bundle", "clip.ncdhw.onnx", "engines"),
    "docs/quickstarts/researcher.md": ("answers.mp4",),
}
BLOCK = re.compile(r"(?:<!-- test: (skip, |needs )([^>]*?) -->\n)?```(bash|python)\n(.*?)```", re.DOTALL)
QUICKSTARTS = ("A researcher with a checkpoint", "An engineer with a Jetson", "A team that embeds the runtime")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[tuple[str, str, str, str]]:
    """(reason to skip or '', files that it needs or '', language, text) of every fenced block that could run."""
    found = []
    for kind, words, language, text in BLOCK.findall(text_of(document)):
        found.append((words if kind == "skip, " else "", words if kind == "needs " else "", language, text))
    return found


def test_every_marker_has_a_block_and_a_reason():
    assert {"README.md", "docs/embedding.md", "docs/install.md"} <= set(DOCUMENTS)
    for document in DOCUMENTS:
        found = blocks(document)
        marked = [one for one in found if one[0] or one[1]]
        assert all(len(reason.split()) >= 3 for reason, _, _, _ in found if reason), document
        assert all(set(needs.split(", ")) <= {"", "face.bundle", "clip.mp4"} for _, needs, _, _ in found), document
        assert text_of(document).count("<!-- test:") == len(marked), f"{document}: a marker before no block"


def test_most_blocks_of_readme_and_embedding_run():
    for document in ("README.md", "docs/embedding.md"):
        found = blocks(document)
        assert len(found) >= 5 and 3 * sum(bool(reason) for reason, *_ in found) <= len(found)


def test_readme_is_short_and_begins_with_what_it_must():
    text = text_of("README.md")
    assert len(text.splitlines()) <= 160
    first = text.split("## ")[0]
    for wanted in ("![", "make demo", "logoformer.load(", "claim:begin", "No weights for real faces", "Alpha"):
        assert wanted in first, wanted
    assert len(first.splitlines()) <= 36
    for heading in QUICKSTARTS:
        part = text.split(f"## {heading}\n")[1].split("\n## ")[0]
        lines = re.findall(r"```(?:bash|python)\n(.*?)```", part, re.DOTALL)
        assert len(lines) == 1 and len(lines[0].splitlines()) <= 12, heading


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the bundle of the first document that exports `ckpt` is kept for the others, which say the same words."""
    return tmp_path_factory.mktemp("exported") / "face.bundle"


@pytest.fixture
def folder(tmp_path: Path, exported: Path) -> Path:
    """An empty folder beside the examples, where `logoformer` and `python` are ours."""
    (tmp_path / "bin").mkdir()
    for name, words in (("logoformer", "-m logoformer"), ("python", "")):
        shim = tmp_path / "bin" / name
        run = f'"{sys.executable}" {words} "$@"'
        lines = ["#!/bin/sh", f"exec {run}"]
        if name == "logoformer":
            lines[1:1] = [
                'if [ "$*" = "export ckpt -o face.bundle" ]; then',
                f'  if [ -d "{exported}" ]; then cp -R "{exported}" face.bundle; exit; fi',
                f'  {run} && cp -R face.bundle "{exported}"; exit',
                "fi",
            ]
        shim.write_text("\n".join(lines) + "\n")
        shim.chmod(0o755)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "examples").symlink_to(ROOT / "examples")
    return tmp_path / "work"


@pytest.mark.slow
@pytest.mark.parametrize("document", [name for name in DOCUMENTS if any(not reason for reason, *_ in blocks(name))])
def test_every_block_runs(document: str, folder: Path, untrained_bundle: Path):
    # torch.compile takes more than a minute here and has a test of its own: tests/benchmarks/test_bench_bundle.py.
    env = {**os.environ, "PATH": f"{folder.parent / 'bin'}:{os.environ['PATH']}", "TORCHDYNAMO_DISABLE": "1"}
    for skip, needs, language, text in blocks(document):
        if skip or text.startswith("make "):  # `make` itself runs this test
            continue
        if "face.bundle" in needs and not (folder / "face.bundle").exists():
            shutil.copytree(untrained_bundle, folder / "face.bundle")
        if "clip.mp4" in needs:
            write_untrimmed(folder / "clip.mp4", side=64)
        words = ["bash", "-euo", "pipefail", "-c", text] if language == "bash" else [sys.executable, "-c", text]
        done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=500)
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    for name in LEAVES.get(document, ()):
        assert (folder / name).is_dir() or (folder / name).stat().st_size > 1000


def test_make_targets_named_in_the_docs_exist():
    makefile = text_of("Makefile")
    for document in (*DOCUMENTS, "CONTRIBUTING.md"):
        for target in re.findall(r"`make ([a-z-]+)`", text_of(document)):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
