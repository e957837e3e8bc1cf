"""Served pages of the site in a real browser: nothing logged, nothing asked of others, nothing cut off."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from headless import Browser, open_browser

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]
PAGES = ("", "cli/", "api/", "architecture/")
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
