"""The site: built strictly and offline; its pages hold what the parser, the docstrings and the classes hold."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import logoformer
import pytest
from logoformer.cli.main import make_parser

from .conftest import ROOT, build

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]
OUTSIDE = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=["']?(?:https?:)?//""")


def page(site: Path, name: str) -> str:
    return (site / name / "index.html").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    article = page.split("<article", 1)[1].split("</article>")[0]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", article)))


def test_it_builds_strictly_without_a_network(site):
    pages = sorted(path.relative_to(site).as_posix() for path in site.rglob("index.html"))
    sources = list((ROOT / "docs").rglob("*.md"))
    assert len(pages) == len(sources) >= 15


def test_no_page_loads_anything_from_outside(site):
    for path in site.rglob("*.html"):
        assert OUTSIDE.findall(path.read_text(encoding="utf-8")) == [], path
    for path in [*site.rglob("*.css")]:
        assert not re.search(r"url\([\"']?(https?:)?//", path.read_text(encoding="utf-8")), path
    assert not list(site.rglob("*.py"))


@pytest.mark.parametrize(
    "breach", ["[dead](nowhere.md)", "[dead](install.md#nowhere)", "[dead](#nowhere)", "::: logoformer.nowhere"]
)
def test_a_dead_link_anchor_or_name_fails(tmp_path, site, breach):
    """The check itself, on a copy of the sources."""
    for name in ("mkdocs.yml", "docs"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    (tmp_path / "docs" / "tools" / "site.py").write_text("")
    config = (tmp_path / "mkdocs.yml").read_text().replace("build/docs-source", str(ROOT / "build/docs-source"))
    (tmp_path / "mkdocs.yml").write_text(config)
    index = tmp_path / "docs" / "index.md"
    index.write_text(f"{index.read_text()}\n{breach}\n")
    done = build(tmp_path / "out", tmp_path / "mkdocs.yml")
    assert done.returncode != 0 and "nowhere" in done.stdout + done.stderr


def test_links_that_are_right_stay_while_another_build_reads_them(site_tools, tmp_path):
    folder = tmp_path / "source" / "logoformer"
    site_tools.link_package(folder.parent)
    before = {path.name: (path.lstat().st_ino, path.readlink()) for path in folder.iterdir()}
    assert before["errors.py"][1] == ROOT / "errors.py" and before["engine"][1] == ROOT / "engine"
    (folder / "gone").symlink_to(tmp_path)
    (folder / "engine").unlink()
    (folder / "engine").symlink_to(tmp_path)
    site_tools.link_package(folder.parent)
    after = {path.name: (path.lstat().st_ino, path.readlink()) for path in folder.iterdir()}
    assert {name: target for name, (_, target) in after.items()} == {name: link for name, (_, link) in before.items()}
    assert [name for name in before if before[name] != after[name]] in ([], ["engine"])


def test_the_cli_page_is_the_parser(site, site_tools):
    shown, verbs = page(site, "cli"), site_tools.verbs(make_parser())
    headings = re.findall(r'<h2 id="([a-z-]+)"', shown)
    assert headings == list(verbs)
    parts = re.split(r'<h2 id="[a-z-]+"', shown.split("</article>")[0])[1:]
    for part, (verb, parser) in zip(parts, verbs.items(), strict=True):
        codes = {html.unescape(code) for code in re.findall(r"<code>([^<]+)</code>", part)}
        plain = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", part)))
        for action in parser._actions:
            positional = action.metavar or (
                f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest
            )
            names = action.option_strings or [positional]
            for name in names:
                assert any(code.strip("[]").split()[0] == name for code in codes), f"{verb}: {name}"
            help = re.sub(r"\s+", " ", (action.help or "") % {**vars(action), "prog": parser.prog})
            assert help in plain, f"{verb}: {help}"


def test_the_python_page_has_every_public_name(site):
    shown = page(site, "api")
    ids = set(re.findall(r'id="logoformer\.([A-Za-z_.]+)"', shown))
    classes = {*logoformer.__all__} - {"clips", "errors"}  # modules, of which the page shows members
    assert classes <= ids
    assert {"clips.Sampling", "errors.LogoformerError"} <= ids
    source = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name, members in re.findall(r"::: logoformer\.(\w+)\n(?:.*\n)*?      members: \[(.*)\]", source):
        for member in re.split(r", ", members):
            assert f"{name}.{member}" in ids or member in text_of(shown), f"{name}.{member}"
    assert "errors.DeviceLostError" in ids
