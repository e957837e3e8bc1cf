from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
from logoformer.camera.overlay import BACKGROUND, BAR, BEST, draw_panel, fit, fit_text, open_overlay, panel_width
from logoformer.camera.run import run_source
from logoformer.camera.sources.contract import TimedFrame
from logoformer.camera.sources.open import open_source
from logoformer.errors import MachineError

cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed (the extra 'camera')")


def answer(label: str = "red", **shares: float) -> dict:
    return {"label": label, "probabilities": shares or {"red": 0.7, "green": 0.2, "blue": 0.1}}


def shot(frame: np.ndarray, index: int = 0, color: str = "rgb") -> TimedFrame:
    return TimedFrame(frame, color, index / 25, index)


def whole(frame: np.ndarray) -> tuple[int, int, int, int]:
    return (0, 0, frame.shape[1], frame.shape[0])


def colored(panel: np.ndarray, color: tuple[int, ...]) -> np.ndarray:
    """Which pixels have that colour exactly, bool `[H, W]`."""
    return (panel == np.array(color, np.uint8)).all(axis=2)


# -------------------------------------------------------------------------------------------------------------- panel
@pytest.mark.parametrize("height", [320, 480, 1080])
def test_bars_are_as_long_as_their_shares(height):
    panel = draw_panel(cv2, height, ("red", "green", "blue"), answer(red=0.6, green=0.3, blue=0.1), 1.0)
    assert panel.shape == (height, panel_width(height), 3)
    rows = colored(panel, BAR)
    lengths = sorted({int(row.sum()) for row in rows if row.any()})
    best = max(int(row.sum()) for row in colored(panel, BEST)[height // 6 :])
    assert len(lengths) == 2
    assert lengths[1] / best == pytest.approx(0.5, abs=0.05)
    assert lengths[0] / best == pytest.approx(1 / 6, abs=0.05)


def test_the_best_class_is_marked_in_its_own_row():
    labels = ("red", "green", "blue")
    middles = []
    for label in labels:
        panel = draw_panel(
            cv2, 320, labels, answer(label, **{name: 0.9 if name == label else 0.05 for name in labels}), 0
        )
        rows = np.flatnonzero(colored(panel, BEST)[56:].sum(axis=1) > 40)
        middles.append(float(rows.mean()))
    assert middles == sorted(middles)
    assert len(set(middles)) == 3


def test_before_the_first_answer_there_are_no_bars():
    panel = draw_panel(cv2, 320, ("red", "green"), None, 0.0)
    assert not colored(panel, BAR).any()
    assert not colored(panel, BEST).any()
    assert not colored(panel, BACKGROUND).all()


def test_the_time_is_drawn():
    one, other = (draw_panel(cv2, 320, ("red", "green", "blue"), answer(), seconds) for seconds in (1.0, 2.0))
    rows = np.flatnonzero((one != other).any(axis=(1, 2)))
    assert rows.min() > 290


def test_of_many_classes_the_likeliest_twelve_are_shown():
    names = [f"class{index}" for index in range(40)]
    shares = dict.fromkeys(names, 0.0) | {"class39": 0.6, "class20": 0.4}
    panel = draw_panel(cv2, 320, names, answer("class39", **shares), 0.0)
    marked = np.flatnonzero(colored(panel, BEST)[56:].sum(axis=1) > 30)
    assert marked.min() + 56 < 75  # the best is in the first row


def test_a_long_name_is_cut_to_its_room_and_another_alphabet_does_not_fail():
    assert fit_text(cv2, "short", 0.5, 1, 200) == "short"
    cut = fit_text(cv2, "a name that goes on and on", 0.5, 1, 100)
    assert cut.endswith("..")
    assert cv2.getTextSize(cut, cv2.FONT_HERSHEY_SIMPLEX, 0.5, 1)[0][0] <= 100
    assert fit_text(cv2, "xyz", 0.5, 1, 1) == ".."
    draw_panel(cv2, 320, ("радость", "悲"), answer("радость", **{"радость": 0.6, "悲": 0.4}), 0.0)


# ------------------------------------------------------------------------------------------------------------ picture
def test_both_channel_orders_show_the_same_picture(tools):
    rgb = tools.solid("red")
    one = fit(cv2, shot(rgb, color="rgb"), whole(rgb), (64, 48))
    other = fit(cv2, shot(rgb[:, :, ::-1], color="bgr"), whole(rgb), (64, 48))
    assert np.array_equal(one, other)
    assert one[10, 10].tolist() == [20, 20, 220]


def test_a_frame_of_another_size_keeps_its_proportions(tools):
    tall = tools.solid("green", 200, 50)
    picture = fit(cv2, shot(tall), whole(tall), (100, 100))
    filled = np.flatnonzero(picture[50, :, 1] > 100)
    assert (filled.min(), filled.max()) == (37, 61)  # 25 of 100 columns, in the middle
    assert (picture[:, 50, 1] > 100).all()


def test_the_face_is_framed_only_where_it_is_a_part(tools):
    frame = tools.solid("blue", 40, 80)
    assert not colored(fit(cv2, shot(frame), (0, 0, 80, 40), (160, 80)), BEST).any()
    framed = np.flatnonzero(colored(fit(cv2, shot(frame), (20, 0, 40, 40), (160, 80)), BEST)[40])
    assert abs(framed.min() - 40) <= 1
    assert abs(framed.max() - 119) <= 1


# --------------------------------------------------------------------------------------------------------------- file
def write(target, frames, line=None, fps=25.0):
    with open_overlay(target, ("red", "green", "blue"), fps) as overlay:
        for index, frame in enumerate(frames):
            overlay.add(shot(frame, index), whole(frame), line)


def size_of(path) -> tuple[int, int, int, float]:
    capture = cv2.VideoCapture(str(path))
    names = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_COUNT)
    width, height, count = (int(capture.get(name)) for name in names)
    return width, height, count, capture.get(cv2.CAP_PROP_FPS)


@pytest.mark.parametrize(
    ("height", "width", "picture"),
    [
        (64, 64, (320, 320)),
        (63, 77, (392, 320)),
        (480, 641, (640, 480)),
        (1080, 1920, (1920, 1080)),
        (2160, 3840, (1920, 1080)),
    ],
)
def test_small_frames_are_enlarged_and_large_ones_reduced(tmp_path, tools, height, width, picture):
    write(tmp_path / "o.mp4", [tools.solid("red", height, width)] * 2, answer(), fps=12.5)
    assert size_of(tmp_path / "o.mp4") == (picture[0] + panel_width(picture[1]), picture[1], 2, 12.5)


def test_the_frames_are_in_the_video_in_their_order(tmp_path, tools):
    write(tmp_path / "o.mp4", [tools.solid(color, 64, 64) for color in ("red", "green", "blue")])
    capture = cv2.VideoCapture(str(tmp_path / "o.mp4"))
    strongest = [int(capture.read()[1][160, 160].argmax()) for _ in range(3)]
    assert strongest == [2, 1, 0]  # the file gives BGR


def test_an_error_leaves_nothing_behind_and_the_old_video_alone(tmp_path, tools):
    target = tmp_path / "o.mp4"
    target.write_bytes(b"the old one")
    broken = (tools.solid("red") if index < 3 else {}["engine"] for index in range(5))
    with pytest.raises(KeyError, match="engine"):
        write(target, broken)
    assert target.read_bytes() == b"the old one"
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]


def test_a_full_disk_is_noticed_although_opencv_keeps_it_to_itself(tmp_path, tools):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(MachineError, match="could not be written"):
            write(tmp_path / "o.mp4", [tools.textured(index, 320, 320) for index in range(40)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_is_taken_away_is_no_full_disk(tmp_path, tools):
    def frames():
        yield tools.solid("red")
        yield tools.solid("red")
        shutil.rmtree(tmp_path / "gone")

    with pytest.raises(MachineError, match="taken away"):
        write(tmp_path / "gone" / "o.mp4", frames())


def test_a_frame_that_no_mp4_can_hold_is_an_error_not_an_empty_file(tmp_path, tools):
    with pytest.raises(MachineError, match="cannot write an mp4 of"):
        write(tmp_path / "o.mp4", [tools.solid("red", 10, 9000)])
    assert list(tmp_path.iterdir()) == []


def test_an_overlay_in_a_folder_whose_name_is_no_text(engine, make_video, tools, tmp_path):
    """OpenCV ends the process on such a name."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/v\xe9"))
    folder.mkdir()
    out = folder / os.fsdecode(b"\xff.mp4")
    with open_source(make_video([tools.solid("red")] * 12)) as source:
        run_source(engine, source, out=out, on_result=lambda _: None)
    with open_source(out) as written:
        assert len(list(written)) == 12
    assert [path.name for path in folder.iterdir()] == [out.name]
