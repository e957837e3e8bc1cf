"""`watch --triton`: the answers of a local watch, bit by bit, also when the server is started again meanwhile."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer.bundle import Bundle
from logoformer.camera import Watch
from logoformer.cli import main as cli
from logoformer.errors import MachineError, RefusedError, UsageError
from logoformer.serving.remote import TritonRuntime
from logoformer.studies.serving.server import TritonServer
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("triton")]
ROOT = Path(__file__).parents[2]
HOP, SERVED_HOP, FRAMES = 3, 5, 100
Told = list[tuple[str, int, int, int, bytes, str]]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders of pictures."""
    folders = [tmp_path_factory.mktemp("recording") / name for name in ("door", "hall")]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        rng = np.random.default_rng(seed)
        for index in range(FRAMES):
            Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(folder / f"{index}.png")
    return folders


@pytest.fixture(scope="module")
def server(
    serve: Callable[..., TritonServer], make_models: Callable[..., Path], untrained_bundle: Path
) -> TritonServer:
    return serve(make_models(untrained_bundle, hop=SERVED_HOP, name="shop"))


@pytest.fixture
def remote(server: TritonServer, untrained_bundle: Path) -> Iterator[TritonRuntime]:
    with TritonRuntime(Bundle(untrained_bundle), server.url, name="shop") as runtime:
        yield runtime


@pytest.fixture
def local(untrained_bundle: Path) -> Iterator[logoformer.Runtime]:
    with logoformer.load(untrained_bundle, backend="onnxruntime", precision="fp32", threads=1) as runtime:
        yield runtime


def watched(runtime, sources: list[Path], between: Callable[[int], None] = lambda number: None, **more) -> Told:
    found: Told = []
    with Watch(runtime, sources, face="center", fps=25, hop=HOP, **more) as watch:
        for answer in watch:
            result = answer.result
            told = (answer.source, answer.face, answer.index, result.sequence, result.probabilities.tobytes())
            found.append((*told, answer.label))
            between(len(found))
    return sorted(found)


def test_two_sources_are_answered_as_by_a_local_watch(remote, local, recordings):
    """With another hop than the server was told; the faces of a round go together."""
    found = watched(remote, recordings)
    assert found == watched(local, recordings) and len(found) > 20
    assert {one[0] for one in found} == {"door", "hall"}
    assert remote.reopened == 0 and "0 streams" in repr(remote)


def test_a_server_that_is_started_again_is_survived(remote, local, recordings, server):
    reopened: list[int] = []

    def restart(number: int) -> None:
        if number == 8:
            server.stop(signal.SIGKILL)
            threading.Thread(target=server.start).start()
        reopened.append(remote.reopened)

    assert watched(remote, recordings, restart) == watched(local, recordings)
    assert max(reopened) == 2  # both streams, once


def test_a_recording_shorter_than_a_span_is_answered_at_its_end(remote, local, recordings, tmp_path):
    short = tmp_path / "short"
    short.mkdir()
    for index in range(7):
        shutil.copy(recordings[0] / f"{index}.png", short)
    found = watched(remote, [short])
    assert found == watched(local, [short]) and len(found) == 1


def test_hop_flush_reset_and_gaps_are_those_of_a_stream(remote, local, recording):
    """Everything that a watch does to a stream, in one long story; and what is counted."""
    once, first = recording(0)
    frames = np.concatenate([once] * 4)
    times = [time_s + play * (first[-1] - first[0] + 0.04) for play in range(4) for time_s in first]
    times[300:] = [time_s + 5.0 for time_s in times[300:]]
    found, wanted = [], []
    with remote.stream(4, color="bgr") as one, local.stream(4, color="bgr") as other:
        for stream, told in ((one, found), (other, wanted)):
            for number, (frame, time_s) in enumerate(zip(frames, times, strict=True)):
                if number == 90:
                    stream.hop = 1
                if number == 130:
                    stream.hop = 7
                if number == 200:
                    stream.reset()
                told.append(stream.push(frame, time_s))
                if number in (3, 95, 140, 141, 150, 210, 299, 305):
                    told.append(stream.flush())
        assert [one.skipped, one.resets] == [other.skipped, other.resets] and other.resets == 1 and other.skipped
    bits = [
        [answer and (answer.sequence, answer.probabilities.tobytes()) for answer in told] for told in (found, wanted)
    ]
    assert bits[0] == bits[1] and sum(answer is not None for answer in found) > 50
    with remote.stream(color="rgb") as stream:
        assert stream.flush() is None
        with pytest.raises(UsageError, match="hop"):
            stream.hop = 0


def test_watch_on_the_command_line(server, untrained_bundle, recordings, capsys, fails):
    words = ["watch", str(untrained_bundle), str(recordings[0]), "--face", "whole", "--no-page", "--fps", "25", "-q"]
    told = []
    for more in (["--triton", f"{server.url}/shop", "--selftest"], ["--backend", "onnxruntime", "--precision", "fp32"]):
        assert cli.main([*words, *more]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        told.append([(line["frame"], line["probabilities"], line["label"]) for line in lines])
    assert told[0] == told[1] and len(told[0]) > 5
    text = fails(2, *words, "--triton", f"{server.url}/shop", "--threads", "2", "--backend", "onnxruntime")
    assert "--backend, --threads has no use" in text
    assert "--warmup wait" in fails(2, *words, "--triton", f"{server.url}/shop", "--warmup", "repeat")
    fails(2, *words, "--triton", "nowhere")


def test_what_does_not_fit_is_refused(server, untrained_bundle, tmp_path):
    with pytest.raises(MachineError, match=r"gave no answer within 0\.5 s"):
        TritonRuntime(Bundle(untrained_bundle), server.url, timeout_s=0.5)  # there is no model of that name
    other = Bundle(untrained_bundle)
    other.manifest = {**other.manifest, "digest": "another"}
    with pytest.raises(RefusedError, match="serves another bundle"):
        TritonRuntime(other, server.url, name="shop")


def test_every_series_of_triton_in_the_deployed_files_is_one_that_it_exports(server):
    with urllib.request.urlopen(server.metrics, timeout=5) as page:
        known = set(re.findall(r"^(nv_\w+)", page.read().decode(), re.MULTILINE))
    files = [(ROOT / "deploy" / name).read_text(encoding="utf-8") for name in ("alerts.yaml", "grafana.json")]
    used = [set(re.findall(r"\bnv_\w+", text)) for text in files]
    assert all(used) and len(used[1]) >= 5 and (used[0] | used[1]) - known == set()


def test_a_server_that_hangs_does_not_hold_who_ends(remote, server, recording):
    frames, times = recording(0)
    stream = remote.stream(color="bgr")
    stream.push(frames[0], times[0])
    os.kill(server.pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{server.pid}/task")
    while not all(") T " in (task / "stat").read_text() for task in tasks.iterdir()):
        time.sleep(0.01)  # a thread that runs ends its turn first
    try:
        waiting = remote._pool.submit(stream.push, frames[1], times[1])
        with pytest.raises(concurrent.futures.TimeoutError):
            waiting.result(0.3)
        remote.close()
        with pytest.raises(MachineError):
            waiting.result(30)
    finally:
        os.kill(server.pid, signal.SIGCONT)
