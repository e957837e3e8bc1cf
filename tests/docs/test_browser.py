"""Served pages of the site in a real browser: nothing logged, nothing asked of others, nothing cut off."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from headless import Browser, open_browser
from logoformer.studies.serving.capacity import devices_needed, face_costs

from .conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]
PAGES = ("", "cli/", "api/", "architecture/", "capacity/")
MEASURE = """JSON.stringify({
  wide: document.documentElement.scrollWidth - window.innerWidth,
  heading: document.querySelector('h1').textContent,
  broken: [...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src),
  images: document.querySelectorAll('article img').length,
  page: getComputedStyle(document.body).backgroundColor,
})"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and prints nothing."""

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site, served on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser") / "profile") as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_and_asks_nobody_else(browser, address, name, width, scheme):
    found = browser.show(f"{address}{name}", width, scheme, MEASURE)
    asked = [url for url in browser.requests() if not url.startswith((address, "data:"))]
    assert asked == []
    assert browser.complaints() == []
    assert found["broken"] == []
    assert found["heading"]
    assert found["wide"] <= 0  # nobody has to scroll sideways
    assert found["images"] == {"": 1, "architecture/": 3}.get(name, 0)
    channels = [int(word) for word in found["page"].split("(")[1].rstrip(")").split(",")[:3]]
    assert (sum(channels) < 3 * 128) == (scheme == "dark")


def test_the_calculator_counts_devices(browser, address, monkeypatch):
    monkeypatch.chdir(ROOT)
    costs = face_costs()
    computed = next(place for place, cost in enumerate(costs) if not cost.measured)
    cases = []
    for place in (0, computed):
        for faces, fps, hop in ((200, 25, 4), (1, 1, 1), (5000, 30, 8)):
            cases.append((place, faces, fps, hop))
    script = f"""JSON.stringify({[list(case) for case in cases]}.map(([device, faces, fps, hop]) => {{
      for (const [name, value] of Object.entries({{device, faces, fps, hop, slower: 2}}))
        document.getElementById(name).value = value;
      document.querySelector(".calculator").dispatchEvent(new Event("input"));
      return document.getElementById("devices").textContent;
    }}))"""
    told = browser.show(f"{address}capacity/", 1440, "light", script)
    for text, (place, faces, fps, hop) in zip(told, cases, strict=True):
        needed = devices_needed(faces, fps, hop, costs[place])
        assert text.startswith(f"{needed} of them" if costs[place].measured else f"at least {needed}; "), text
        assert costs[place].measured or "computed, not measured" in text
    assert browser.complaints() == []
