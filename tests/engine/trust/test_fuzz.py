"""Twenty thousand damaged files: each is refused with an error of ours, none is run.

Engines, the engine index, the manifest, graphs, golden clips, signatures and the trust store of one small bundle are
damaged in every way that a disk, a copy or a hand does it, and each time the whole way to a runtime is walked.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from logoformer.bundle import Bundle
from logoformer.engine.trust.admit import Running, admit_engine
from logoformer.engine.trust.index import EngineEntry, add_to_index, read_index, write_engine
from logoformer.engine.trust.store import TrustStore
from logoformer.errors import LogoformerError

ORIN = Running("tensorrt", "10.3.0", "sm87", "linux-aarch64")
MUTATIONS = {  # 20 000
    "engine": 6000, "engine index": 3000, "manifest": 2500, "graph": 4500, "golden": 3000, "trust store": 1000,
}  # fmt: skip


class Runtime:
    """Every deserialiser there is: what arrives here was believed."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def deserialize(self, data: bytes) -> None:
        self.given.append(data)


@dataclass
class Victim:
    """A file, and the way from it to a runtime."""

    path: Path
    use: Callable[[], object]


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Runtime()


@pytest.fixture
def quick() -> Iterator[Path]:
    """A folder in memory where there is one: forty thousand files are opened in it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def victims(write_bundle, quick: Path, runtime: Runtime) -> dict[str, Victim]:
    bundle = write_bundle(quick / "face.bundle", "fuzz").path
    folder, store = bundle / "engines", TrustStore(quick / "state")
    plan = random.Random(1).randbytes(1500)
    file, digest = write_engine(folder, "tensorrt10.3.0-sm87", "frame.fp16.b1", plan)
    entry = EngineEntry(
        graph="frame", precision="fp16", batch=1, target="tensorrt10.3.0-sm87", file=file, sha256=digest, size=1500,
        graph_sha256="0" * 64, tensorrt_version="10.3.0", compute_capabilities=("sm87",), platform="linux-aarch64",
        flags={"strongly_typed": True},
    )  # fmt: skip
    add_to_index(folder, [entry])
    store.record_engine(digest, "0" * 64, file)
    opened = Bundle(bundle)
    graph = opened.graph("frame", "fp16", 1)

    def run_engine() -> None:
        for found in read_index(folder):
            runtime.deserialize(admit_engine(folder, found, ORIN, trust=store))

    def run_admitted() -> None:
        runtime.deserialize(admit_engine(folder, entry, ORIN, trust=store))

    def run_graph() -> None:
        runtime.deserialize(opened.read_graph(graph))

    def run_all_of_bundle() -> None:
        runtime.deserialize(Bundle(bundle).read_graph(graph))

    def take_golden() -> None:
        runtime.deserialize(opened.golden().clips.tobytes())

    return {
        "engine": Victim(folder / file, run_admitted),
        "engine index": Victim(folder / "index.json", run_engine),
        "manifest": Victim(bundle / "manifest.json", run_all_of_bundle),
        "graph": Victim(bundle / graph.file, run_graph),
        "golden": Victim(bundle / str(opened.manifest["golden"]["file"]), take_golden),
        "trust store": Victim(store.path, run_admitted),
    }  # fmt: skip


def damage(data: bytes, dice: random.Random) -> bytes:
    """One way in which a file goes wrong; never the file itself."""
    where, kind = dice.randrange(len(data)), dice.randrange(8)
    changed = bytearray(data)
    if kind <= 2:  # a bit
        changed[where] ^= 1 << dice.randrange(8)
    elif kind == 3:  # some bits
        for _ in range(dice.randint(2, 9)):
            changed[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif kind == 4:  # an unfinished copy
        del changed[where:]
    elif kind == 5:  # a block of zeros, as a file system leaves after a crash
        changed[where : where + 64] = bytes(len(changed[where : where + 64]))
    elif kind == 6:  # bytes that slipped in, or were repeated
        changed[where:where] = changed[max(where - dice.randint(1, 40), 0) : where] or b"\0"
    else:  # another byte
        changed[where] = dice.randrange(256)
    return bytes(changed)


def test_the_way_is_open_while_nothing_is_damaged(victims, runtime):
    for name, victim in victims.items():
        before = len(runtime.given)
        victim.use()
        assert len(runtime.given) == before + 1, name
    runtime.given.clear()


@pytest.mark.parametrize("name", MUTATIONS)
def test_damaged_files_reach_no_runtime(victims, runtime, name):
    victim, dice = victims[name], random.Random(name)
    good, mode = victim.path.read_bytes(), victim.path.stat().st_mode
    outcomes: Counter[str] = Counter()
    while sum(outcomes.values()) < MUTATIONS[name]:
        bad = damage(good, dice)
        if bad == good:
            continue
        victim.path.write_bytes(bad)
        try:
            victim.use()
        except LogoformerError as error:  # anything else is a crash, and fails the test
            outcomes[type(error).__name__] += 1
        else:
            pytest.fail(f"a damaged {name} was accepted: {bad[:200]!r}")
    assert runtime.given == []
    assert outcomes == {"RefusedError": MUTATIONS[name]}
    victim.path.write_bytes(good)
    victim.path.chmod(mode)
    victim.use()
    runtime.given.clear()
    print(f"{name}: {dict(outcomes)}")


def test_there_are_twenty_thousand():
    assert sum(MUTATIONS.values()) == 20_000
