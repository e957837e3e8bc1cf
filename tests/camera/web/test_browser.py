"""The page in a real browser: it moves, it reconnects, it asks nobody else, and it fits a phone."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from headless import Browser, open_browser
from logoformer.camera.answers.contract import FaceAnswer, FaceCrop, FaceFrame
from logoformer.camera.answers.streams import FaceView
from logoformer.camera.pipeline.board import Board, CameraState
from logoformer.camera.web.server import PageServer
from logoformer.engine import Result

pytestmark = pytest.mark.slow
LABELS = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "<b>fear & dread</b>")
TOKEN = "0123456789abcdef-page"

LOOK = """JSON.stringify({
  wide: document.documentElement.scrollWidth - window.innerWidth,
  link: document.getElementById('link').textContent,
  facts: document.getElementById('facts').textContent,
  pictures: [...document.querySelectorAll('.picture')].map((image) => [image.naturalWidth, image.alt]),
  crops: [...document.querySelectorAll('.crop')].map((image) => image.naturalWidth),
  faces: document.querySelectorAll('.face').length,
  names: [...document.querySelectorAll('.bars .name')].map((cell) => cell.textContent).slice(0, 7),
  sums: [...document.querySelectorAll('.bars')].map((bars) =>
    [...bars.children].reduce((sum, row) => sum + Number(row.dataset.share || 0), 0)),
  points: [...document.querySelectorAll('.timeline')].map((canvas) => Number(canvas.dataset.points)),
  inked: [...document.querySelectorAll('.timeline')].map((canvas) => canvas.getContext('2d')
    .getImageData(0, 0, canvas.width, canvas.height).data.filter((value, at) => at % 4 === 3 && value).length),
  stats: Object.fromEntries([...document.querySelectorAll('.camera')][0]
    ? [...[...document.querySelectorAll('.camera')][0].querySelectorAll('.stats div')].map((cell) =>
      [cell.dataset.name, cell.lastChild.textContent]) : []),
  states: [...document.querySelectorAll('.state')].map((pill) => pill.textContent),
  reasons: [...document.querySelectorAll('.reason')].map((line) => line.textContent),
  page: getComputedStyle(document.body).backgroundColor,
})"""

# What the browser shows of a picture: its pixels, small, from a canvas of its own.
PIXEL = """(() => { const image = document.querySelector('.picture'); const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 8; const brush = canvas.getContext('2d'); brush.drawImage(image, 0, 0, 8, 8);
  return JSON.stringify(brush.getImageData(1, 6, 1, 1).data[0]); })()"""


class Show:
    """A board that something always happens on: two cameras, of which one is lost."""

    def __init__(self) -> None:
        facts = {"labels": list(LABELS), "bundle": "face.bundle", "backend": "scripted", "precision": "fp16",
                 "face": "detect", "alignment": "aligned as in training", "version": "1"}  # fmt: skip
        self.board = Board(("door", "<img src=x onerror=alert(1)>"), facts)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        held: dict[int, FaceAnswer] = {}
        number = 0
        yard = CameraState("<img src=x onerror=alert(1)>", "lost", "no frame for 2 s: <script>alert(2)</script>", True)
        while not self._ending.wait(0.03):
            number += 1
            picture = np.zeros((240, 320, 3), np.uint8)
            picture[:, :, 0] = (np.arange(320) + 4 * number) % 256
            picture[100:, :] = number * 5 % 256
            boxes = {1: (20.0 + number % 60, 30.0, 110.0 + number % 60, 120.0), 2: (180.0, 40.0, 270.0, 130.0)}
            crops = tuple(FaceCrop(face, box, 0.9, picture[30:120, 20:110]) for face, box in boxes.items())
            at = time.time()
            seen = FaceFrame(picture, "rgb", number / 25, number, 0, 0.0, at, crops)
            self.board.show(0, seen)
            if number % 4:
                continue
            for face, box in boxes.items():
                turn = (number / 20 + face) % 7
                shares = np.exp(-np.abs(np.arange(7) - turn)).astype(np.float32)
                shares /= shares.sum()
                index = int(shares.argmax())
                result = Result(LABELS[index], index, shares, {}, 1.0, number / 25, number // 4)
                label = LABELS[index] if shares[index] > 0.42 else "uncertain"
                held[face] = FaceAnswer(
                    "door", face, box, 0.9, result, label, shares, LABELS, False, number, 0, at, 12.0
                )
            views = tuple(
                FaceView(face, boxes[face], held[face], 1.0, picture[30:120, 20:110], "rgb") for face in boxes
            )
            door = CameraState(
                "door", "live", "", True, size=(320, 240), captured_hz=25.0, worked_hz=24.6, answers_hz=6.2,
                frames=number, answers=number // 4, dropped={"capture": 3, "overload": 1}, skipped={"small": 12},
                unserved=1, hop=8, wanted_hop=4, age_ms=12.0, age_p50_ms=11.0, age_p99_ms=47.0, find_ms=3.2,
                faces=views, age_under=(number,), age_sum_s=1.0,
            )  # fmt: skip
            self.board.tell((door, yard), {0: dict(held), 1: {}})


@pytest.fixture(scope="module")
def show() -> Iterator[Show]:
    running = Show()
    yield running
    running.close()


@pytest.fixture(scope="module")
def page(show) -> Iterator[PageServer]:
    served = PageServer(show.board, "127.0.0.1", 0, TOKEN)
    yield served
    served.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


def ask(browser: Browser, script: str):
    return json.loads(browser.call("Runtime.evaluate", expression=script)["result"]["value"])


def until(browser: Browser, true, script: str = LOOK):
    """Looks until what is seen is as wanted; the last look where it never is."""
    for _ in range(150):
        found = ask(browser, script)
        if true(found):
            return found
        time.sleep(0.1)
    return found


def lively(found: dict) -> bool:
    return bool(found["faces"] == 2 and min(found["points"]) > 3 and found["pictures"][0][0] and min(found["crops"]))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_is_alive_whole_and_asks_nobody_else(browser, page, width, scheme, tmp_path):
    base = re.match(r"http://[^/]+/", page.address)[0]
    browser.show(page.address, width, scheme, "JSON.stringify(1)")
    first = until(browser, lively)
    assert lively(first), first
    (tmp_path / f"{width}-{scheme}.png").write_bytes(browser.screenshot())
    assert first["wide"] <= 0  # nobody has to scroll sideways
    assert first["link"] == "connected"
    assert first["sums"] == pytest.approx([1, 1], abs=0.01)
    assert first["names"] == list(LABELS)
    assert first["pictures"][0][1] == "picture of door"
    assert first["states"] == ["live", "lost"]
    assert first["reasons"] == ["", "no frame for 2 s: <script>alert(2)</script>"]
    assert "fp16 on scripted" in first["facts"] and "aligned as in training" in first["facts"]
    stats = first["stats"]
    assert stats["frames a second"] == "25.0 in, 24.6 used" and stats["age of answers"] == "11 ms, p99 47 ms"
    assert stats["dropped frames"] == "capture 3, overload 1" and stats["hop"] == "8 (asked: 4)"
    assert stats["faces left out"] == "small 12, no place 1"
    channels = [int(word) for word in first["page"].split("(")[1].rstrip(")").split(",")[:3]]
    assert (sum(channels) < 3 * 128) == (scheme == "dark")

    second = until(browser, lambda found: min(found["points"]) > max(first["points"]) + 5)
    assert min(second["points"]) > max(first["points"])  # the timeline grows
    assert min(second["inked"]) > min(first["inked"])
    levels = {ask(browser, PIXEL)} | {level for _ in range(20) if (level := ask(browser, PIXEL)) is not None}
    moved = until(browser, lambda level: level not in levels, PIXEL)
    assert moved not in levels  # the picture moves

    assert [url for url in browser.requests() if not url.startswith((base, "data:"))] == []
    # That this test reads the canvases often is remarked by the browser.
    assert [one for one in browser.complaints() if "willReadFrequently" not in json.dumps(one)] == []
    assert TOKEN not in ask(browser, "JSON.stringify(location.href)")


def test_it_comes_back_by_itself_after_a_restart_of_the_server(browser, show):
    first = PageServer(show.board, "127.0.0.1", 0, TOKEN)
    port = int(re.search(r":(\d+)/", first.address)[1])
    browser.show(first.address, 1440, "light", "JSON.stringify(1)")
    assert lively(until(browser, lively))
    first.close()
    gone = until(browser, lambda found: "no connection" in found["link"])
    assert "no connection" in gone["link"]
    second = PageServer(show.board, "127.0.0.1", port, TOKEN)
    try:
        back = until(browser, lambda found: found["link"] == "connected" and max(found["points"]) > max(gone["points"]))
        assert back["link"] == "connected" and max(back["points"]) > max(gone["points"])
        level = ask(browser, PIXEL)
        assert until(browser, lambda now: now != level, PIXEL) != level  # the picture too
    finally:
        browser.call("Page.navigate", url="about:blank")
        second.close()
