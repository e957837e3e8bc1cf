"""Draw `docs/watch.png`: the page of `logoformer watch` in headless Chromium, with two drawn people before it.

    python docs/tools/picture.py BUNDLE        (`make picture` takes the bundle of `make demo`)

The people are drawn by `logoformer synth --kind scene`; boxes, ids and answers are those of the real program.
"""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from logoformer.bundle.files import write_atomic
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "helpers"))
from headless import Browser, open_browser  # noqa: E402

PICTURE = ROOT / "docs" / "watch.png"
WIDTH, HEIGHT = 1100, 800  # pixels of the page
READ = """JSON.stringify([document.querySelectorAll('.face').length,
  Math.min(...[...document.querySelectorAll('.timeline')].map((canvas) => Number(canvas.dataset.points)))])"""
POINTS = 12  # on each timeline, so that it is seen that it moves
WAIT_S = 120


def draw_page(bundle: Path, out: Path) -> None:
    """Watches a scene, and keeps a picture of the page once both people have a history.

    Args:
        bundle: of a model that was trained on the synthetic faces.
        out: the PNG.
    """
    program = [sys.executable, "-m", "logoformer"]
    with tempfile.TemporaryDirectory() as folder:
        scene = Path(folder) / "scene.mp4"
        subprocess.run([*program, "synth", "--kind", "scene", "-o", str(scene)], check=True)
        words = [*program, "watch", str(bundle), str(scene), "--loop", "--port", "0"]
        with (
            (Path(folder) / "said").open("w+") as said,
            subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=said) as watching,
            open_browser(Path(folder) / "profile") as browser,
        ):
            try:
                address = _wait_for(lambda: re.search(r"http://\S+", Path(said.name).read_text()), "its address")[0]
                browser.show(address, WIDTH, "light", "JSON.stringify(1)")
                size = {"width": WIDTH, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": False}
                browser.call("Emulation.setDeviceMetricsOverride", **size)
                _wait_for(lambda: _grown(browser), f"two faces with {POINTS} answers each")
                write_atomic(out, _smaller(browser.screenshot()))
            finally:
                watching.send_signal(signal.SIGTERM)


def _smaller(png: bytes) -> bytes:
    """The picture in 256 colours: half the bytes."""
    small = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(256).save(small, "PNG", optimize=True)
    return small.getvalue()


def _grown(browser: Browser) -> bool:
    faces, points = json.loads(browser.call("Runtime.evaluate", expression=READ)["result"]["value"])
    return bool(faces >= 2 and (points or 0) >= POINTS)


def _wait_for(found: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + WAIT_S
    while not (value := found()):
        if time.monotonic() > end:
            raise TimeoutError(f"`logoformer watch` did not show {what} within {WAIT_S} s")
        time.sleep(0.2)
    return value


if __name__ == "__main__":
    draw_page(Path(sys.argv[1]), PICTURE)
    print(PICTURE)
