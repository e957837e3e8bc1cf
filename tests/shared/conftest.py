from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from logoformer.bundle import Bundle, BundleWriter, Golden, TensorSpec
from logoformer.errors import LogoformerError, RefusedError
from logoformer.sealed import seal


@pytest.fixture
def descriptors():
    """Fails the test when it leaves a file descriptor open."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Two frames of 4 x 4 pixels, 2 x 2 tokens of 3 channels each; a ring of 5 slots for 2 faces; 3 classes.
_ANSWER = TensorSpec("probabilities", "float32", (1, 3))
_TENSORS = {
    "clip": ((TensorSpec("clip", "uint8", (1, 2, 4, 4, 3)),), (_ANSWER,)),
    "frame": ((TensorSpec("frame", "uint8", (1, 4, 4, 3)),), (TensorSpec("tokens", "float32", (1, 4, 3)),)),
    "temporal": ((TensorSpec("ring", "float32", (40, 3)), TensorSpec("order", "int32", (8,))), (_ANSWER,)),
}


def _golden(salt: str) -> Golden:
    random = np.random.default_rng(len(salt))
    return Golden(random.integers(0, 256, (4, 2, 4, 4, 3), np.uint8), random.dirichlet([1, 1, 1], 4).astype(np.float32))


def _write(path: Path, salt: str, **changes: Any) -> Bundle:
    writer = BundleWriter(path)
    graphs = [
        writer.add_graph(
            f"{graph} {precision} {salt} ".encode() * 40,
            graph=graph, precision=precision, batch=1, opset=20, inputs=ins, outputs=outs, macs={precision: 1000},
        )
        for precision in ("fp32", "fp16")
        for graph, (ins, outs) in _TENSORS.items()
    ]  # fmt: skip
    manifest = {
        "model": {"preset": "small"},
        "labels": ["calm", "glad", "Zürich"],
        "preprocessing": {"size": 4},
        "sampling": {"segments": 2, "frames_per_segment": 1, "span_s": 1.0, "fps": 10.0},
        "stream": {"slots": 5, "faces": 2, "frames": 2, "grid": 2, "window": [2, 1, 2], "embed_dim": 3},
        "graphs": graphs,
        "precisions": {name: {"verdict": "accept", "reason": "said so"} for name in ("fp32", "fp16")},
        "golden": writer.add_golden(_golden(salt), "noise"),
        "provenance": {"salt": salt},
    }
    return writer.commit({**manifest, **changes})


@pytest.fixture
def write_bundle() -> Callable[..., Bundle]:
    """`write_bundle(path, salt)`: a whole bundle but for its graphs, which are some bytes that the salt decides."""
    return _write


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A bundle of some kilobytes."""
    return _write(tmp_path / "face.bundle", "one").path


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
