"""Video files by both decoders: frames, times, rotation, damage, lies, names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import media_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logoformer.errors import BadInputError, MachineError, RefusedError
from logoformer.media import video
from logoformer.media.opencv import QUIET
from logoformer.media.pyav import to_rgb, upright
from logoformer.media.video import open_video

pytest.importorskip("av", reason="PyAV is not installed (the extra 'camera')")


@pytest.fixture(params=["av", "cv2"])
def decoder(request, monkeypatch) -> str:
    """Reads videos by one decoder as if the other were not installed."""
    if request.param == "cv2":
        pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'camera')")
    monkeypatch.setattr(video, "importable", lambda name: name == request.param)
    return request.param


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def read(path: Path) -> tuple[list[tuple[int, float, np.ndarray]], BadInputError | None]:
    """Everything that a video delivers, and the error after it."""
    delivered = []
    try:
        with open_video(path, 25.0) as reader:
            for frame in reader:
                delivered.append((frame.index, frame.time_s, frame.rgb()))
    except BadInputError as error:
        return delivered, error
    return delivered, None


# ------------------------------------------------------------------------------------------------------------ whole
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "mpeg4", {}),
        ("a.mp4", "libx264", {"bf": "2", "preset": "ultrafast"}),
        ("a.avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
        ("a.avi", "mpeg4", {}),
        ("a.mkv", "mpeg4", {}),
        ("a.webm", "libvpx", {}),
        ("a.flv", "flv1", {}),
        ("a.ts", "mpeg2video", {}),
        ("a.mov", "libx264", {}),
    ],
)
def test_a_whole_video_gives_all_its_frames_and_times(decoder, tmp_path, name, codec, options):
    options = dict(options)
    pix_fmt = options.pop("pix_fmt", "yuv420p")
    path = media_files.write_video(
        tmp_path / name, media_files.grey_steps(20), codec, fps=25, pix_fmt=pix_fmt, options=options
    )
    frames, error = read(path)
    assert error is None
    assert [index for index, _, _ in frames] == list(range(20))
    assert [time_s for _, time_s, _ in frames] == pytest.approx([index / 25 for index in range(20)], abs=1e-3)
    assert [pixels.mean() for _, _, pixels in frames] == pytest.approx([5 * i for i in range(20)], abs=4)
    with open_video(path, 25.0) as reader:
        assert reader.fps == pytest.approx(25) and reader.count in (20, None)


def test_uneven_times_are_kept(decoder, tmp_path):
    times = [0.0, 0.1, 0.15, 0.5, 0.6, 1.4, 1.5]
    path = media_files.write_video(tmp_path / "v.mkv", media_files.grey_steps(7), times=times)
    frames, error = read(path)
    assert error is None and [time_s for _, time_s, _ in frames] == pytest.approx(times, abs=2e-3)


def test_sound_that_outlasts_the_picture_is_no_damage(decoder, tmp_path):
    for name in ("a.mp4", "a.mkv"):
        path = media_files.write_video(tmp_path / name, media_files.grey_steps(10), sound_s=0.9)
        frames, error = read(path)
        assert (len(frames), error) == (10, None)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_phones_rotation_is_obeyed(decoder, tmp_path, rotation):
    picture = media_files.quarters()
    path = media_files.write_video(tmp_path / "r.mp4", [picture] * 3, "libx264", rotation=rotation)
    frames, _ = read(path)
    # FFmpeg gives the angle counterclockwise.
    expected = np.rot90(picture, rotation // 90).astype(int)
    assert frames[0][2].shape == expected.shape
    assert np.abs(frames[0][2] - expected).mean() < 12


def test_a_mirrored_picture_is_mirrored_back():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    one = 1 << 16
    assert (upright(pixels, (-one, 0, 0, 0, one, 0, 0, 0, 0)) == pixels[:, ::-1]).all()
    assert (upright(pixels, (one, 0, 0, 0, -one, 0, 0, 0, 0)) == pixels[::-1]).all()
    assert (upright(pixels, (0, one, 0, one, 0, 0, 0, 0, 0)) == pixels.transpose(1, 0, 2)).all()
    assert upright(pixels, None) is pixels


def test_both_decoders_give_the_same_pixels(tmp_path, monkeypatch):
    pytest.importorskip("cv2")
    path = media_files.write_video(tmp_path / "a.mp4", media_files.noise(5), "mpeg4", options={"b": "4M"})
    seen = []
    for name in ("av", "cv2"):
        monkeypatch.setattr(video, "importable", lambda module, name=name: module == name)
        seen.append(np.stack([pixels for _, _, pixels in read(path)[0]]).astype(int))
    assert np.abs(seen[0] - seen[1]).mean() < 3  # they differ in how colour at half resolution is spread


def test_ten_bits_become_eight(tmp_path):
    path = media_files.write_video(tmp_path / "a.mkv", media_files.grey_steps(5), "ffv1", pix_fmt="yuv420p10le")
    frames, error = read(path)
    assert error is None and [p.mean() for _, _, p in frames] == pytest.approx([0, 5, 10, 15, 20], abs=2)


def test_grey_of_sixteen_bits_is_refused(tmp_path):
    path = media_files.write_video(tmp_path / "a.mkv", media_files.grey_steps(5), "ffv1", pix_fmt="gray16le")
    frames, error = read(path)
    assert frames == [] and "more than 8 bits" in error.what


def test_one_pixel_and_8k_are_read_and_more_is_refused(tmp_path):
    for height, width in ((1, 1), (4320, 7680)):
        frame = np.zeros((height, width, 3), np.uint8)
        path = media_files.write_video(tmp_path / f"{width}.avi", [frame], "mjpeg", pix_fmt="yuvj420p")
        frames, error = read(path)
        assert error is None and [pixels.shape for _, _, pixels in frames] == [(height, width, 3)]
    data = bytearray(path.read_bytes())
    at = data.find(b"\xff\xc0")  # the frame header of JPEG: length, precision, height, width
    data[at + 5 : at + 9] = (9000).to_bytes(2, "big") * 2
    path.write_bytes(data)
    frames, error = read(path)
    assert frames == [] and error is not None  # 81 million pixels


# ---------------------------------------------------------------------------------------------------------- damaged
@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "mjpeg"), ("a.avi", "mpeg4"), ("a.mkv", "mjpeg"), ("a.flv", "flv1")]
)
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_truncated_video_delivers_its_beginning_and_then_says_so(decoder, tmp_path, name, codec, share):
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = media_files.write_video(
        tmp_path / name, media_files.noise(40), codec, pix_fmt=pix_fmt, fps=10, options={"g": "1", "b": "20M"}
    )
    whole = [pixels for _, _, pixels in read(path)[0]]
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    frames, error = read(path)
    assert 3 < len(frames) < 40 * share + 5
    if decoder == "av":  # the frame that was cut through is none; OpenCV gives it, its lower part grey
        assert all((pixels == whole[index]).all() for index, _, pixels in frames)
    assert error is not None and error.exit_code == 3 and f"{len(frames)} of 40 frames" in error.what and error.next


def test_a_hole_in_the_middle_is_passed_over_and_reported(decoder, tmp_path):
    path = media_files.write_video(tmp_path / "a.mp4", media_files.noise(40), "mjpeg", pix_fmt="yuvj420p")
    path.write_bytes(media_files.scrambled(path.read_bytes(), 0.4, 0.6))
    frames, error = read(path)
    assert 20 < len(frames) < 40
    assert frames[-1][1] == pytest.approx(39 / 25)  # the frames behind the hole keep their own times
    assert f"{len(frames)} of 40 frames" in error.what


def test_a_recording_without_its_index_is_bad_input(decoder, tmp_path):
    path = media_files.write_video(tmp_path / "a.mp4", media_files.noise(20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames, error = read(path)
    assert frames == [] and "No frame of" in error.what and "before its index was written" in error.cause


@pytest.mark.parametrize("content", [b"", b"not a video", bytes(5000), b"\0\0\0\x1cftypisom" + bytes(3000)])
def test_what_is_no_video_is_bad_input_before_the_first_frame(decoder, tmp_path, content):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(BadInputError) as caught:
        open_video(path, 25.0)
    assert caught.value.cause and str(path) in caught.value.what


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("whole")
    kinds = [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mkv", "mpeg4"), ("a.webm", "libvpx"), ("a.ts", "mpeg2video")]
    return [media_files.write_video(folder / n, media_files.noise(5, 16, 24), codec).read_bytes() for n, codec in kinds]


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_hostile_video_gives_frames_or_bad_input(whole_files, tmp_path_factory, data):
    changed = bytearray(data.draw(st.sampled_from(whole_files)))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(changed) - 1))
        change = data.draw(
            st.sampled_from([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b""]) | st.binary(max_size=20)
        )
        changed[place : place + data.draw(st.integers(0, 20))] = change
        changed = changed or bytearray(b"x")
    path = tmp_path_factory.getbasetemp() / "hostile.mp4"
    path.write_bytes(changed)
    for _, _, pixels in read(path)[0]:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3


def test_a_colour_space_that_nobody_knows_is_read_as_none():
    class Strange:
        """A frame whose stated colour space FFmpeg refuses, as one of a damaged header."""

        width, height, side_data, format = 4, 4, {}, type("F", (), {"name": "yuv420p"})
        colorspace = 65

        def to_ndarray(self, format):
            if self.colorspace != 2:
                raise ValueError("Operation not supported")
            return np.zeros((4, 4, 3), np.uint8)

    assert to_rgb(Strange(), "x").shape == (4, 4, 3)


# -------------------------------------------------------------------------------------------------------------- lies
def test_a_file_that_claims_two_thousand_million_frames_is_read_to_its_end(decoder, tmp_path, monkeypatch):
    path = media_files.write_video(tmp_path / "a.avi", media_files.noise(12), "mjpeg", pix_fmt="yuvj420p")
    path.write_bytes(media_files.riff_chunks_lie(path.read_bytes(), 2_000_000_000))
    reads = 0
    if decoder == "cv2":
        import cv2

        class Counting:  # cv2's own class breaks Python's garbage collection where it is inherited from
            def __init__(self, *words):
                self._capture = real(*words)

            def __getattr__(self, name):
                return getattr(self._capture, name)

            def grab(self):
                nonlocal reads
                reads += 1
                return self._capture.grab()

        real = cv2.VideoCapture

        monkeypatch.setattr(cv2, "VideoCapture", Counting)
    frames, error = read(path)
    assert len(frames) == 12 and "12 of" in error.what
    assert reads <= 12 + 100


def test_sound_with_a_cover_picture_is_no_video(tmp_path):
    path = media_files.write_song(tmp_path / "song.mp3")
    frames, error = read(path)
    assert frames == [] and "holds no video" in error.what and "cover" in error.cause


def test_a_still_picture_is_no_video(tmp_path):
    from PIL import Image

    for kind in ("JPEG", "PNG", "BMP", "WEBP"):
        path = tmp_path / f"{kind}.mp4"
        path.write_bytes(media_files.image_bytes(Image.fromarray(media_files.quarters()), kind))
        frames, error = read(path)
        assert frames == [] and ("still picture" in error.what or "No frame" in error.what)


def test_a_picture_that_stands_for_hours_in_a_video_is_one_frame(decoder, tmp_path):
    path = media_files.write_video(tmp_path / "a.mp4", media_files.grey_steps(1), fps=0.001)
    frames, error = read(path)
    assert (len(frames), error) == (1, None)


def test_a_playlist_opens_no_other_file(decoder, tmp_path):
    media_files.write_video(tmp_path / "secret.mp4", media_files.grey_steps(3))
    for name, text in {
        "a.mp4": "#EXTM3U\n#EXTINF:1,\nsecret.mp4\n", "b.mp4": "ffconcat version 1.0\nfile secret.mp4\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
        frames, error = read(tmp_path / name)
        assert frames == [] and "playlist" in error.what


# ------------------------------------------------------------------------------------------------------------- names
@pytest.mark.parametrize(
    "name",
    [b"v\xe9.mp4", b"\xff\xfe.mp4", "名前 ü.mp4".encode(), b"concat:a|b%03d.mp4", b"-i.mp4", b"a\nb.mp4", b"fd:.mp4"],
)
def test_any_name_that_the_file_system_allows_is_read(decoder, tmp_path, name):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    media_files.write_video(path, media_files.grey_steps(4), container="mp4")
    frames, error = read(path)
    assert (len(frames), error) == (4, None)


def test_links_are_followed_only_where_a_person_named_the_file(decoder, tmp_path):
    path = media_files.write_video(tmp_path / "a.mp4", media_files.grey_steps(4))
    link = tmp_path / "link.mp4"
    link.symlink_to(path)
    assert len(read(link)[0]) == 4
    with pytest.raises(RefusedError, match="not a regular file"):
        open_video(link, 25.0, follow_links=False)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(RefusedError, match="not a regular file"):
        open_video(tmp_path / "pipe.mp4", 25.0)
    with pytest.raises(BadInputError, match="does not exist"):
        open_video(tmp_path / "none.mp4", 25.0)


def test_no_descriptor_is_left_open(decoder, tmp_path):
    path = media_files.write_video(tmp_path / "a.mp4", media_files.grey_steps(4))
    (tmp_path / "b.mp4").write_bytes(b"no video")
    read(path)
    before = open_descriptors()
    for _ in range(5):
        read(path)
        read(tmp_path / "b.mp4")
    assert open_descriptors() == before


def test_without_a_decoder_the_package_to_install_is_named(tmp_path, monkeypatch):
    path = media_files.write_video(tmp_path / "a.mp4", media_files.grey_steps(4))
    monkeypatch.setattr(video, "importable", lambda _: False)
    with pytest.raises(MachineError, match="package av") as caught:
        open_video(path, 25.0)
    assert caught.value.next == "pip install 'logoformer[camera]'"


def test_decoders_say_nothing_of_their_own(tmp_path):
    whole = media_files.write_video(tmp_path / "a.avi", media_files.noise(20), "mpeg4")
    cut = tmp_path / "cut.avi"
    cut.write_bytes(media_files.scrambled(whole.read_bytes()[: whole.stat().st_size // 2], 0.5, 0.8))
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(b"no video")
    script = (
        "import sys\nfrom logoformer.media import video\n"
        "for decoder in ('av', 'cv2'):\n"
        "    video.importable = lambda name: name == decoder\n"
        "    for path in sys.argv[1:]:\n"
        "        try: print(len(list(video.open_video(path, 25.0))))\n"
        "        except Exception as error: print(error.exit_code)\n"
    )
    words = [sys.executable, "-c", script, str(cut), str(junk)]
    loud = {name: value for name, value in os.environ.items() if name not in QUIET}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=loud)
    assert done.stdout.split() == ["3"] * 4
    assert done.stderr == ""
