"""A page of Debian's Chromium, headless, over its DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


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

    def show(self, url: str, width: int, scheme: str, script: str) -> dict:
        """Opens an address at a width, in light or dark; gives what the script returns as JSON."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self._socket.recv()))
        return json.loads(self.call("Runtime.evaluate", expression=script)["result"]["value"])

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


@contextlib.contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """A headless Chromium with a new profile, or a skip where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        assert not os.environ.get("CI"), "Chromium is missing in CI; tests/install-system.sh installs it"
        pytest.skip("Chromium is not installed (tests/install-system.sh installs it)")
    pytest.importorskip("websocket", reason="websocket-client is not installed (the extra 'dev')")
    opened = Browser(program, profile)
    try:
        yield opened
    finally:
        opened.close()
