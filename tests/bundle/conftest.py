from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from logoformer.bundle import Bundle, Golden
from logoformer.bundle.sealed import seal
from logoformer.errors import LogoformerError, RefusedError


@pytest.fixture
def descriptors():
    """Fails the test when it leaves a file descriptor open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.fixture
def reseal() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    """`reseal(bundle, change)`: changes the index as somebody would who knows how to seal one."""

    def change_index(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
        manifest = json.loads((bundle / "manifest.json").read_bytes())
        change(manifest)
        (bundle / "manifest.json").write_bytes(seal(manifest))

    return change_index


@pytest.fixture
def read_everything() -> Callable[[Path], list[bytes | Golden]]:
    """`read_everything(bundle)`: every graph, then the golden clips."""
    return _read_everything


def _read_everything(bundle: Path) -> list[bytes | Golden]:
    opened = Bundle(bundle)
    return [*(opened.read_graph(entry) for entry in opened.graphs), opened.golden()]


@pytest.fixture
def refused() -> Callable[..., LogoformerError]:
    """`refused(bundle)`: reads everything and gives the one error, which names the bundle and a next step."""

    def expect(bundle: Path, kind: type[LogoformerError] = RefusedError) -> LogoformerError:
        with pytest.raises(LogoformerError) as caught:
            _read_everything(bundle)
        assert type(caught.value) is kind, caught.value
        assert caught.value.next
        assert str(bundle) in caught.value.what
        return caught.value

    return expect
