"""The page in a real browser: Debian's Chromium, headless, over its DevTools protocol.

Nothing may be loaded, nothing logged, nothing cut off, at the width of a phone and of a desk, in light and dark."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from logoformer.benchmarks.report.page import write_both
from logoformer.benchmarks.report.records import Qualification, Series, Subject

HOSTILE = "<script>fetch('https://example.org/x')</script><img src=https://example.org/y onerror=alert(1)>\"'&\u202e"

MEASURE = """(() => {
  const charts = [...document.querySelectorAll('svg')].map(svg => {
    const box = svg.getBoundingClientRect();
    const drawn = [...svg.querySelectorAll('rect, path, circle')].filter(e => e.getBoundingClientRect().width > 0);
    const inside = [...svg.querySelectorAll('text')].filter(e => {
      const text = e.getBoundingClientRect();
      return text.width > 0 && text.left >= box.left - 1 && text.right <= box.right + 1;
    });
    return {name: document.getElementById(svg.getAttribute('aria-labelledby').split(' ')[0]).textContent,
            width: box.width, height: box.height, drawn: drawn.length,
            texts: svg.querySelectorAll('text').length, inside: inside.length};
  });
  return JSON.stringify({charts, wide: document.documentElement.scrollWidth - window.innerWidth,
    page: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color,
    scripts: document.scripts.length, images: document.images.length,
    tables: document.querySelectorAll('section > details table').length});
})()"""


class Browser:
    """A page of a headless Chromium."""

    def __init__(self, program: str, profile: Path) -> None:
        import websocket

        words = [
            program,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
        ]
        words += ["--disable-background-networking", "--remote-debugging-port=0", "--remote-allow-origins=*"]
        log = profile / "stderr.txt"
        profile.mkdir()
        with log.open("w") as stream:
            self._process = subprocess.Popen([*words, f"--user-data-dir={profile}", "about:blank"], stderr=stream)
        port = self._wait_for_port(log)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            page = next(target for target in json.load(answer) if target["type"] == "page")
        self._socket = websocket.create_connection(page["webSocketDebuggerUrl"], timeout=60)
        self._ids = itertools.count(1)
        self.events: list[dict] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def _wait_for_port(self, log: Path) -> str:
        for _ in range(600):
            found = re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", log.read_text(errors="replace"))
            if found:
                return found[1]
            assert self._process.poll() is None, log.read_text(errors="replace")
            time.sleep(0.1)
        raise AssertionError("Chromium did not open its debugging port")

    def call(self, method: str, **parameters: object) -> dict:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def show(self, page: Path, width: int, scheme: str) -> dict:
        """Opens a file at a width, in light or dark; gives what stands there."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self._socket.recv()))
        return json.loads(self.call("Runtime.evaluate", expression=MEASURE)["result"]["value"])

    def requests(self) -> list[str]:
        sent = [event for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[dict]:
        said = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Page.javascriptDialogOpening")
        return [event for event in self.events if event["method"] in said]

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def close(self) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        assert not os.environ.get("CI"), "Chromium is missing in CI; tests/install-system.sh installs it"
        pytest.skip("Chromium is not installed (tests/install-system.sh installs it)")
    pytest.importorskip("websocket", reason="websocket-client is not installed (the extra 'dev')")
    opened = Browser(program, tmp_path_factory.mktemp("browser") / "profile")
    yield opened
    opened.close()


def seconds(count: int, step: float) -> tuple[float, ...]:
    return tuple(step * index for index in range(count))


@pytest.fixture(scope="module")
def page(made, tmp_path_factory) -> Path:
    """A report with every part: sensors, several precisions, names that try to break out."""
    rows = (
        made.row("clip"),
        made.row("clip again", made.latencies(4)),
        made.row("stream", made.latencies(1, base=2.0), hop=1, stages_p50_ms=(("frame", 0.7), ("temporal", 1.2))),
        made.row("torch", made.latencies(2, base=8.0), stages_p50_ms=(), what=HOSTILE),
        made.row("naive re-run", made.latencies(3, base=5.2), hop=1),
    )
    telemetry = made.report().telemetry
    series = (
        Series("gpu-thermal", "temperature", "C", "a fixture", seconds(40, 0.02), tuple(50 + i / 8 for i in range(40))),
        Series("cpu0 clock", "clock", "MHz", "a fixture", seconds(40, 0.02), tuple(1500 + i % 3 for i in range(40))),
        Series(HOSTILE, "power", "W", "a fixture", seconds(40, 0.02), tuple(9 + i % 5 for i in range(40))),
    )
    report = made.report(
        rows,
        telemetry=type(telemetry)(0.02, 0.1, {"power mode": HOSTILE}, series, (HOSTILE,)),
        subject=Subject(HOSTILE, "base", "fp32", "onnxruntime 1.2.3 CPU", "cpu", {"clip": "ab" * 32}),
        qualification=Qualification(False, (HOSTILE,), ("140 samples of each row",)),
        notes=(HOSTILE,),
    )
    return write_both(report, tmp_path_factory.mktemp("page"))[1]


EXPECTED = [
    "Latencies of clip",
    "Latencies of stream",
    "Latency over time",
    "Where the time goes",
    "Side by side",
    "Cold start",
    "The first answer after a pause",
    "Roofline: floor of clip by device (computed)",
    "Roofline: floor of stream by device (computed)",
    "Accuracy beside latency, by precision",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_draws_everything_and_asks_nobody(browser, page, width, scheme):
    found = browser.show(page, width, scheme)
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []
    assert [chart["name"] for chart in found["charts"]] == EXPECTED
    for chart in found["charts"]:
        assert chart["width"] > 250 and chart["height"] > 80, chart
        assert chart["drawn"] >= 1 and chart["texts"] >= 2, chart
        assert chart["inside"] == chart["texts"], chart  # no letter is cut off
    assert found["wide"] <= 0  # nobody has to scroll sideways
    assert found["scripts"] == found["images"] == 0
    assert found["tables"] == len(EXPECTED)
    dark = sum(map(int, re.findall(r"\d+", found["page"])[:3])) < 3 * 128
    assert dark == (scheme == "dark")
    assert found["page"] != found["ink"]


def test_a_browser_that_finds_fault_would_say_so(browser, page, tmp_path):
    """The check itself: a page with a script, a picture from elsewhere and a log line is found out."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        page.read_text().replace("</body>", "<script>console.error('x')</script><img src='near.png'></body>")
    )
    browser.show(bad, 390, "light")
    assert browser.complaints()  # the content policy forbids both, and Chromium reports it
    worse = tmp_path / "worse.html"
    worse.write_text(re.sub(r"<meta http-equiv[^>]*>", "", bad.read_text()))
    browser.show(worse, 390, "light")
    assert any(url.endswith("near.png") for url in browser.requests())


def test_a_screenshot_is_not_blank(browser, page):
    browser.show(page, 390, "light")
    assert len(browser.screenshot()) > 20_000
