"""Shared fixtures: checkpoints and bundles, each made once a session from the package's own functions."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from logoformer.demo import DemoReport


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained `tiny`, whose answers differ between clips."""
    from logoformer.model.init import init_checkpoint

    return init_checkpoint("tiny", tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def untrained_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of `tiny_checkpoint`, FP32 and FP16. Copy it before changing it."""
    return _export(tiny_checkpoint, tmp_path_factory.mktemp("untrained") / "tiny.bundle", clips=16)


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoReport, Path]:
    """One whole demo: minutes. What is trained in the tests is trained here; tests that ask for it are marked slow."""
    from logoformer.demo import demo

    folder = tmp_path_factory.mktemp("demo") / "demo"
    return demo(folder, progress=lambda *_: None, say=print), folder


@pytest.fixture(scope="session")
def trained_checkpoint(demo_run: tuple[DemoReport, Path]) -> Path:
    """`tiny` trained on synthetic faces."""
    return demo_run[1] / "checkpoint"


@pytest.fixture(scope="session")
def tiny_bundle(demo_run: tuple[DemoReport, Path]) -> Path:
    """The bundle of `trained_checkpoint`. Copy it before changing it."""
    return demo_run[1] / "face.bundle"


@pytest.fixture(scope="session")
def base_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of an untrained `base`, FP32 and FP16, judged on 32 clips: a minute. Copy it before changing it."""
    return _full_size("base", tmp_path_factory)


@pytest.fixture(scope="session")
def wide_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of an untrained `wide`."""
    return _full_size("wide", tmp_path_factory)


def _full_size(preset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from logoformer.model.init import init_checkpoint

    folder = tmp_path_factory.mktemp(preset)
    return _export(init_checkpoint(preset, folder / preset), folder / f"{preset}.bundle", clips=32)


def _export(checkpoint: Path, out: Path, clips: int) -> Path:
    from logoformer.export.export import ExportConfig
    from logoformer.verbs import export_checkpoint

    return export_checkpoint(checkpoint, out, ExportConfig(), clips=clips).path


@pytest.fixture(scope="session")
def rtx() -> object:
    """The real TensorRT-RTX, or a skip."""
    return pytest.importorskip("tensorrt_rtx", reason="the builder tests need the extra 'rtx'")


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`fails(code, *words, names=())`: the command line ends with that code, names the files and a next step.

    A next step that is a command of ours must be one that our own parser takes.
    """
    from logoformer import cli

    def check(code: int, *words: object, names: tuple[object, ...] = ()) -> str:
        capsys.readouterr()
        given = [str(word) for word in words]
        found = cli.main(given)
        text = capsys.readouterr().err
        assert found == code, text
        assert "Traceback" not in text
        following = re.search(r"^Next: (.+)$", text, re.MULTILINE)
        assert following is not None, text
        if following[1].startswith("logoformer ") and not following[1].endswith(" --help"):
            cli._parser().parse_args(shlex.split(following[1])[1:])
        for name in names:
            assert str(name) in text
        return text

    return check


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """`contents(folder)`: every file below it but locks, by relative name."""

    def read(folder: Path) -> dict[str, bytes]:
        found = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in found}

    return read


@pytest.fixture
def impatient() -> Iterator[None]:
    """Ends a test that waits for a pipe's other end, which would wait for ever."""

    def give_up(*_: object) -> None:
        raise TimeoutError("it waited")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
