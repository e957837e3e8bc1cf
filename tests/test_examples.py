"""Every program in `examples/` runs, whole, as a person would run it, and its answers are the engine's."""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import re
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import logoformer
import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
FRAMES, RATE, HOP = 130, 25, 8
DEBIAN = "Debian's python3-gi, gir1.2-gstreamer-1.0 and gstreamer1.0-plugins-base (tests/install-system.sh)"


def run(name: str, *words: object, **environment: str) -> str:
    """Runs an example; gives what it printed."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, words)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=env)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def answers(text: str, pattern: str = r"^([\d.]+) s  (\w+)  ([\d.]+)  age [\d.]+ ms$") -> list[tuple[str, ...]]:
    return [found.groups() for found in re.finditer(pattern, text, re.MULTILINE)]


@pytest.fixture(scope="module")
def cv2():
    return pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'camera')")


@pytest.fixture(scope="module")
def video(cv2, tmp_path_factory) -> Path:
    """A moving pattern, at the frame rate that the model was trained for."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), RATE, (128, 96))
    rows, columns = np.mgrid[:96, :128]
    for number in range(FRAMES):
        wave = 127 + 120 * np.sin((columns + 3 * number) / 9) * np.cos(rows / (5 + number / 20))
        writer.write(np.stack([wave, wave[::-1], 255 - wave], axis=2).astype(np.uint8))
    writer.release()
    return path


def frames_of(cv2, video: Path) -> list[np.ndarray]:
    reader, frames = cv2.VideoCapture(str(video)), []
    while (read := reader.read())[0]:
        frames.append(read[1])
    reader.release()
    return frames


def direct(bundle: Path, frames: list[np.ndarray], first: int = 0) -> list[tuple[str, str, str]]:
    """(seconds, label, confidence) of the answers that a plain stream gives."""
    with logoformer.load(bundle) as engine, engine.stream(hop=HOP, color="bgr") as stream:
        pushed = [stream.push(frame, (first + number) / RATE) for number, frame in enumerate(frames)]
    return [(f"{r.time_s:.2f}", r.label, f"{r.confidence:.2f}") for r in pushed if r is not None]


def test_every_example_has_a_test():
    source = Path(__file__).read_text(encoding="utf-8")
    programs = sorted(path.name for path in EXAMPLES.glob("*.py"))
    assert len(programs) == 6
    assert [name for name in programs if f'run("{name}"' not in source] == []


def test_opencv_loop(cv2, untrained_bundle, video):
    found = answers(run("opencv_loop.py", untrained_bundle, video))
    assert len(found) >= 5
    assert found == direct(untrained_bundle, frames_of(cv2, video))


def test_threads_lose_no_frame_of_a_file(cv2, untrained_bundle, video, tmp_path):
    other = tmp_path / "other.mp4"
    other.write_bytes(video.read_bytes())
    text = run("threads.py", untrained_bundle, video, other)
    wanted = direct(untrained_bundle, frames_of(cv2, video))
    for source in (video, other):
        lines = answers(text, rf"^{re.escape(str(source))}: ([\d.]+) s  (\w+)  ([\d.]+)  number (\d+)$")
        assert [line[:3] for line in lines] == wanted
        assert [int(line[3]) for line in lines] == list(range(len(wanted)))
    assert text.splitlines()[-1] == f"{2 * FRAMES} frames, {2 * FRAMES} computed, 0 dropped, 0 failed"


def test_several_faces(cv2, untrained_bundle, video):
    text = run("several_faces.py", untrained_bundle, video)
    frames = frames_of(cv2, video)
    left = answers(text, r"^left: ([\d.]+) s  (\w+)  ([\d.]+)$")
    right = answers(text, r"^right: ([\d.]+) s  (\w+)  ([\d.]+)$")
    assert left == direct(untrained_bundle, [frame[:, :64] for frame in frames])
    assert right == direct(untrained_bundle, [frame[:, 64:] for frame in frames[:100]])  # gone at 100, warm again never


DEEPSTREAM = Path(__file__).parent / "data" / "deepstream"


def test_deepstream_probe(cv2, untrained_bundle, video):
    """With batch metadata made by hand: two sources of two faces, which are the four places of the bundle."""
    text = run("deepstream_probe.py", untrained_bundle, video, "block", PYTHONPATH=str(DEEPSTREAM))
    frames = frames_of(cv2, video)
    lines = r"^source {} face {}: ([\d.]+) s  (\w+)  ([\d.]+)$"
    for source in (0, 3):
        left = answers(text, lines.format(source, 7))
        right = answers(text, lines.format(source, 8))
        assert left == direct(untrained_bundle, [frame[:64, :64] for frame in frames])
        assert right == direct(untrained_bundle, [frame[:64, 64:] for frame in frames[:100]])
    count = 2 * (FRAMES + 100)
    assert text.splitlines()[-1] == f"{count} crops, {count} computed, 0 dropped, 0 unserved"


def test_the_probe_of_deepstream_gives_places_back_and_counts_who_has_none(untrained_bundle, monkeypatch):
    monkeypatch.syspath_prepend(DEEPSTREAM)
    pyds = importlib.import_module("pyds")
    names = runpy.run_path(str(EXAMPLES / "deepstream_probe.py"))
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 4), np.uint8)
    told: list[tuple[int, int]] = []
    with logoformer.load(untrained_bundle) as runtime, runtime.worker(queue=64, drop="block") as worker:
        probe = names["FaceProbe"](worker, pyds, lambda source, face, result: told.append((source, face)))

        def play(first: int, last: int, faces: list[int], source: int = 0) -> None:
            for number in range(first, last):
                found = [pyds.detected(face, (60.0, -8.0, 40.0, 30.0)) for face in (*faces, *faces[:1])]  # one twice
                buffer = pyds.Buffer([(source, number / RATE, pixels, found)])
                probe.take(hash(buffer))

        play(0, 90, [1, 2, 3, 4, 5])
        assert probe.unserved == 90  # the fifth
        play(90, 145, [1])  # more than two seconds: three places are free
        play(145, 260, [1, 5, 6])
        assert probe.unserved == 90
        probe.take(12345)  # a buffer without metadata
        probe.close()
        worker.close()
        assert (worker.failed, worker.dropped) == (0, 0)
    assert {face for _, face in told} == {1, 2, 3, 4, 5, 6}
    monkeypatch.delitem(sys.modules, "pyds")


def test_the_square_of_a_box_stays_in_the_frame():
    square = runpy.run_path(str(EXAMPLES / "deepstream_probe.py"))["square"]
    frame = np.arange(96 * 128 * 4, dtype=np.int64).reshape(96, 128, 4).astype(np.uint8)

    def cut(left, top, width, height):
        return square(frame, SimpleNamespace(left=left, top=top, width=width, height=height))

    np.testing.assert_array_equal(cut(20, 30, 40, 20), frame[20:60, 20:60, :3])
    np.testing.assert_array_equal(cut(-10, -10, 30, 30), frame[:30, :30, :3])  # moved in, not stretched
    np.testing.assert_array_equal(cut(100, 80, 40, 40), frame[56:96, 88:128, :3])
    assert cut(0, 0, 500, 500).shape == (96, 96, 3)
    assert cut(5, 5, 0.2, 0.2) is None


def test_torch_tensors(cv2, untrained_bundle, video):
    pytest.importorskip("torch", reason="torch is not installed (the extra 'train')")
    text = run("torch_gpu.py", untrained_bundle, video)
    label, confidence = answers(text, r", clip on (?:cpu|cuda): (\w+)  ([\d.]+)$")[0]
    with logoformer.load(untrained_bundle) as engine:
        frames = frames_of(cv2, video)
        picked = logoformer.clips.centre_indices(len(frames), engine.bundle.sampling)
        result = engine(np.stack([frames[index] for index in picked]), color="bgr")
        index = engine.labels.index(label)
        assert float(confidence) == pytest.approx(float(result.probabilities[index]), abs=0.02)  # two ways to resize


class CardTensor:
    """What the example needs of a torch tensor on a card: that it says so, and CUDA's array interface."""

    is_cuda = True

    def __init__(self, gpu, clip: np.ndarray) -> None:
        pointer = gpu.malloc(clip.nbytes, "torch's")
        gpu.view(pointer, clip.nbytes)[0][:] = clip.reshape(-1)
        self.__cuda_array_interface__ = {"shape": clip.shape, "typestr": "|u1", "data": (pointer, False), "version": 2}
        self.pointer = pointer


@pytest.mark.parametrize(("version", "layer"), [("10.3", "pycuda"), ("10.16", "cuda-python")])
def test_torch_tensors_on_a_card_stay_there(version, layer, untrained_bundle, tmp_path):
    """On the doubles: the program's own function, a tensor on the card, an engine of TensorRT."""
    pytest.importorskip("torch", reason="torch is not installed (the extra 'train')")
    from doubles.machine import machine

    bundle = Path(shutil.copytree(untrained_bundle, tmp_path / "face.bundle"))
    classify = runpy.run_path(str(EXAMPLES / "torch_gpu.py"))["classify"]
    with machine(version, layer) as card, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "pycuda has no CUDA graphs|.*no CUDA graphs", RuntimeWarning)
        card.plant_engines(logoformer.Bundle(bundle))
        with logoformer.load(bundle, backend=card.backend, precision="fp32") as engine:
            golden = engine.bundle.golden()
            session = engine.session("clip")
            with session.cuda:
                tensor = CardTensor(card.gpu, golden.clips[0])
            classify(engine, tensor)  # the first one captures a CUDA graph, and tries it
            copied = []
            card.gpu.to_device = lambda *words, inner=card.gpu.to_device: copied.append(words) or inner(*words)
            np.testing.assert_allclose(classify(engine, tensor), golden.probabilities[0], atol=1e-4)
            assert copied == [], "the clip went through the host"
            with session.cuda:
                card.gpu.release("free", tensor.pointer, ("device",))


@pytest.fixture
def bindings(tmp_path) -> str:
    """A folder that holds the system's `gi` and nothing else of the system's, for PYTHONPATH."""
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    for system in (Path("/usr/lib/python3/dist-packages/gi"), Path("/usr/lib64/python3/site-packages/gi")):
        if any((system / f"_gi{suffix}").is_file() for suffix in suffixes):
            (tmp_path / "gi").symlink_to(system)
            break
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    code = "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None);"
    code += "assert all(map(Gst.ElementFactory.find, ('appsink', 'videotestsrc', 'videoconvert')))"
    tried = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        last = (tried.stderr.strip().splitlines() or ["no message"])[-1]
        why = f"GStreamer's Python bindings do not load in this Python ({last}); they are in {DEBIAN}"
        # They can be installed where the system's Python is of our version; there, CI has no excuse.
        installable = Path("/usr/bin", f"python3.{sys.version_info[1]}").exists()
        (pytest.fail if os.environ.get("CI") and installable else pytest.skip)(why)
    return path


def test_gstreamer_appsink(untrained_bundle, bindings):
    # 45 pixels wide: 135 bytes a row, padded to 136, so that a forgotten stride shows.
    source = "videotestsrc num-buffers=110 pattern=ball ! video/x-raw,format=RGB,width=45,height=48,framerate=25/1"
    text = run("gstreamer_appsink.py", untrained_bundle, source, PYTHONPATH=bindings)
    found = answers(text)
    frames, computed, dropped = map(int, re.search(r"(\d+) frames, (\d+) computed, (\d+) dropped", text).groups())
    assert frames == computed + dropped and 0 < frames <= 110
    assert found, text
    times = [float(time) for time, _, _ in found]
    assert times == sorted(times) and times[0] >= 2.0 and times[-1] <= 110 / 25
