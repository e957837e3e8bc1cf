"""Clips, frames, videos and cameras that cannot be used; each exit code of the command line, with its next step."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import logoformer
import numpy as np
import pytest
from logoformer import errors
from logoformer.cli import main as cli
from logoformer.engine.sessions import ort
from logoformer.engine.sessions.contract import HostSession
from logoformer.errors import BadInputError, DeviceLostError, LogoformerError, UsageError
from PIL import Image

GOOD = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def engine(untrained_bundle: Path):
    with logoformer.load(untrained_bundle, threads=1) as engine:
        yield engine


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    (tmp_path / "frames").mkdir()
    for number in range(3):
        Image.fromarray(GOOD[number]).save(tmp_path / "frames" / f"{number}.png")
    return tmp_path / "frames"


# ---------------------------------------------------------------------------------------------------------------- clips
CLIPS = {
    "scaled to 0..1": (GOOD / np.float32(255), "float32"),
    "signed": (GOOD.astype(np.int8), "int8"),
    "a wider type": (GOOD.astype(np.uint16), "uint16"),
    "flags": (GOOD > 9, "bool"),
    "too few frames": (GOOD[:7], "7 frames; this model reads 8"),
    "too many frames": (np.concatenate([GOOD, GOOD]), "16 frames; this model reads 8"),
    "no frame": (GOOD[:0], "[0, 64, 64, 3]"),
    "one frame": (GOOD[0], "[64, 64, 3]"),
    "a batch": (GOOD[None], "[1, 8, 64, 64, 3]"),
    "channels first": (GOOD.transpose(0, 3, 1, 2), "[8, 3, 64, 64]"),
    "with transparency": (np.repeat(GOOD, 2, 3)[..., :4], "[8, 64, 64, 4]"),
    "grey": (GOOD[..., 0], "[8, 64, 64]"),
    "an empty crop": (GOOD[:, :0], "[8, 0, 64, 3]"),
    "a list": (GOOD.tolist(), "list"),
    "nothing": (None, "NoneType"),
}


@pytest.mark.parametrize("what", CLIPS)
def test_a_clip_that_cannot_be_used_is_named_and_nothing_is_cast(engine, what):
    clip, word = CLIPS[what]
    before = engine(GOOD, color="rgb").probabilities
    with pytest.raises(BadInputError) as caught:
        engine(clip, color="rgb")
    assert word in caught.value.what
    assert caught.value.next
    np.testing.assert_array_equal(engine(GOOD, color="rgb").probabilities, before)  # the engine goes on


@pytest.mark.parametrize(
    "what", [name for name in CLIPS if name not in ("one frame", "too few frames", "too many frames")]
)
def test_a_frame_that_cannot_be_used_is_named_and_the_stream_goes_on(engine, what):
    clip, word = CLIPS[what]
    frame = clip[0] if isinstance(clip, np.ndarray) and len(clip) and what != "an empty crop" else clip
    with engine.stream(hop=1, color="rgb", warmup="repeat") as stream:
        stream.push(GOOD[0], 0.0)
        with pytest.raises(BadInputError) as caught:
            stream.push(GOOD if what == "a batch" else frame, 0.1)
        assert caught.value.next
        assert word.split(" ")[0].strip("[],") in caught.value.what or "shape" in caught.value.what
        assert stream.push(GOOD[1], 0.2) is not None


@pytest.mark.parametrize("color", [None, "RGB", "rgba", "", 3])
def test_the_channel_order_is_never_guessed(engine, color):
    for ask in (lambda: engine(GOOD, color=color), lambda: engine.stream(color=color)):
        with pytest.raises(UsageError, match="channel order") as caught:
            ask()
        assert caught.value.next == "pass color='bgr' or color='rgb'"


@pytest.mark.parametrize("time_s", [0.0, -1.0, float("nan"), float("inf")])
def test_times_that_do_not_rise_are_refused(engine, time_s):
    with engine.stream(color="rgb") as stream:
        stream.push(GOOD[0], 0.0)
        with pytest.raises(BadInputError, match="times must rise") as caught:
            stream.push(GOOD[1], time_s)
        assert caught.value.next


# -------------------------------------------------------------------------------------------------------------- sources
def test_a_video_that_breaks_off_is_answered_up_to_there(untrained_bundle, tmp_path, fails, capsys):
    cv2 = pytest.importorskip("cv2")
    path = tmp_path / "face.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 64))
    for number in range(100):
        writer.write(np.roll(GOOD[number % 8], number, axis=0))
    writer.release()
    assert cli.main(["run", str(untrained_bundle), str(path)]) == 0
    whole = capsys.readouterr().out.splitlines()
    os.truncate(path, path.stat().st_size * 9 // 10)
    cut = path.read_bytes()
    code = cli.main(["run", str(untrained_bundle), str(path)])
    out, err = capsys.readouterr()
    assert (code, "breaks off" in err, "Next: " in err) == (3, True, True)
    answers = [{**json.loads(line), "age_ms": 0} for line in out.splitlines()]
    assert 0 < len(answers) < len(whole)
    assert answers == [{**json.loads(line), "age_ms": 0} for line in whole[: len(answers)]]
    assert path.read_bytes() == cut


def test_sources_that_are_none(untrained_bundle, tmp_path, fails, frames, impatient):
    run = ("run", untrained_bundle)
    fails(3, *run, tmp_path / "nothing.mp4", names=(tmp_path / "nothing.mp4",))
    fails(2, *run, "")
    (tmp_path / "empty").mkdir()
    fails(3, *run, tmp_path / "empty", names=(tmp_path / "empty",))
    os.mkfifo(tmp_path / "pipe.mp4")
    fails(3, *run, tmp_path / "pipe.mp4", names=(tmp_path / "pipe.mp4",))
    (frames / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    fails(3, *run, frames, names=("1.png",))
    pytest.importorskip("cv2")
    for data in (b"", b"no video " * 100):
        (tmp_path / "text.mp4").write_bytes(data)
        fails(3, *run, tmp_path / "text.mp4", names=(tmp_path / "text.mp4",))


def test_no_such_camera(untrained_bundle, fails):
    fails(6, "run", untrained_bundle, "99", names=("/dev/video99", "cameras found"))


def test_a_failed_run_leaves_the_old_overlay_video(untrained_bundle, tmp_path, frames, fails):
    pytest.importorskip("cv2")
    (tmp_path / "out.mp4").write_bytes(b"old")
    fails(3, "run", untrained_bundle, tmp_path / "nothing", "-o", tmp_path / "out.mp4")
    fails(2, "run", untrained_bundle, frames, "--face", "nose", "-o", tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b"old"


# ----------------------------------------------------------------------------------------------------------- exit codes
class LostDevice(HostSession):
    """A session whose device is gone from the first call on."""

    def __init__(self, session: object) -> None:
        self._session = session

    def __getattr__(self, name: str) -> object:
        return getattr(self._session, name)

    def run(self) -> None:
        raise DeviceLostError("The device gave a sticky error.", next="end this process and start it again")


def test_each_class_of_error_has_its_exit_code_at_the_command_line(
    untrained_bundle, tmp_path, frames, fails, monkeypatch
):
    fails(2, "run", untrained_bundle, frames, "--hop", "0")
    fails(2, "run", untrained_bundle, frames, "--precision", "fp64", names=("'fp32', 'fp16'",))
    fails(3, "inspect", tmp_path / "nothing")
    fails(4, "verify", _damaged(untrained_bundle, tmp_path))
    fails(6, "run", untrained_bundle, "99")
    opened = ort.open_session
    monkeypatch.setattr(ort, "open_session", lambda *given: LostDevice(opened(*given)))
    lost = ("sticky error", "start it again")
    fails(7, "run", untrained_bundle, frames, "--backend", "onnxruntime", names=lost)
    kinds = {kind.exit_code for kind in LogoformerError.__subclasses__()}
    assert kinds == {2, 3, 4, 5, 6, 7}  # 5: test_bad_bundle.py and test_verify.py


def _damaged(bundle: Path, tmp_path: Path) -> Path:
    (tmp_path / "x.bundle").mkdir()
    (tmp_path / "x.bundle" / "manifest.json").write_bytes((bundle / "manifest.json").read_bytes()[:-1])
    return tmp_path / "x.bundle"


def test_an_error_without_advice_gets_the_verbs_help(untrained_bundle, fails, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise errors.VerificationError("It is not what was promised.")

    monkeypatch.setattr("logoformer.engine.verify.verify", fail)
    assert "Next: logoformer verify --help" in fails(5, "verify", untrained_bundle)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (MemoryError(), "out of memory"),
        (OSError(28, "No space left on device", "x"), "No space left"),
        (OSError("x"), "x"),
    ],
)
def test_what_the_machine_refuses_is_an_environment_error(untrained_bundle, fails, monkeypatch, error, word):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("logoformer.engine.describe.describe", fail)
    assert word in fails(6, "inspect", untrained_bundle)


def test_json_says_the_same(tmp_path, capsys):
    assert cli.main(["inspect", "--json", str(_damaged_text(tmp_path))]) == 4
    out, err = capsys.readouterr()
    error = json.loads(err)
    assert out == ""
    assert (error["error"], error["exit_code"]) == ("RefusedError", 4)
    assert shlex.split(error["next"])[:3] == ["logoformer", "export", "CHECKPOINT"]


def _damaged_text(tmp_path: Path) -> Path:
    (tmp_path / "a b.bundle").mkdir()
    (tmp_path / "a b.bundle" / "manifest.json").write_bytes(b"{}")
    return tmp_path / "a b.bundle"


# Unbuffered, what cannot be written would be noticed at once; people's shells buffer.
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


def shell(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "logoformer", *map(str, words)]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=300, check=False, env=BUFFERED, **options)


def test_the_process_itself_ends_with_the_code(untrained_bundle, tmp_path):
    assert shell("inspect", untrained_bundle, stdout=subprocess.DEVNULL).returncode == 0
    done = shell("inspect", _damaged(untrained_bundle, tmp_path))
    assert done.returncode == 4
    assert "\nNext: logoformer export" in done.stderr
    done = shell("run", untrained_bundle)
    assert done.returncode == 2
    assert "\nNext: logoformer run --help" in done.stderr


def test_a_hostile_name_cannot_forge_a_line(tmp_path, fails):
    text = fails(3, "inspect", tmp_path / "x\nNext: rm -rf \x1b[2J")
    assert "\x1b" not in text
    assert [line for line in text.splitlines() if line.startswith("Next: rm")] == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_the_output_is_said(untrained_bundle, frames):
    for words in (
        ["inspect", untrained_bundle],
        ["inspect", untrained_bundle, "--json"],
        ["run", untrained_bundle, frames],
    ):
        with Path("/dev/full").open("w") as full:
            done = shell(*words, stdout=full)
        assert done.returncode == 6, done.stderr
        assert "No space left on device" in done.stderr
        assert "Next: " in done.stderr or '"next"' in done.stderr
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


def test_a_reader_that_went_away_is_no_error(untrained_bundle):
    with subprocess.Popen(
        [sys.executable, "-m", "logoformer", "inspect", str(untrained_bundle)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=BUFFERED,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
