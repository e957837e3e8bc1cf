"""Network cameras: RTSP over TCP and HTTP, with the reason of each failure in words."""

from __future__ import annotations

import difflib
import errno
import re
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ...errors import BadInputError, LogoformerError, MachineError, UsageError, command
from ...media.pyav import open_container
from ...media.video import importable
from .decoder import AvCapture
from .fallback import CvCapture
from .live import Capture

SCHEMES = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
KNOWN_SOURCES = "rtsp://, rtsps://, http://, https://, gst:PIPELINE, csi:0 to csi:9, a camera's index, or a path"
_STREAMS = frozenset({"rtmp", "rtmps", "rtp", "srt", "udp", "tcp", "mms", "ws", "wss", "ftp"})  # no typing errors
OPEN_S, READ_S = 3.0, 2.5  # the second over `LiveTiming.stall_s`: at its end FFmpeg hands out a frame it held back
# Nothing is buffered or looked at for longer than one frame needs. Without `timeout` FFmpeg waits for ever.
LOW_DELAY = {"fflags": "nobuffer", "analyzeduration": "0", "probesize": "32768"}


def split_url(text: str) -> SplitResult:
    """The parts of a camera's URL.

    Raises:
        UsageError: it has no host, or a port that is no number.
    """
    try:
        parts = urlsplit(text)
        if parts.hostname and (parts.port is None or parts.port):
            return parts
    except ValueError:
        pass
    raise UsageError(
        f"The URL {safe_name(text)} names no machine.", next="write it as rtsp://USER:PASSWORD@HOST:554/PATH"
    )


def safe_name(text: str) -> str:
    """A URL without user, password and query, which may hold a password too.

    >>> safe_name("rtsp://admin:secret@10.0.0.5:554/ch1?pwd=secret")
    'rtsp://10.0.0.5:554/ch1?...'
    """
    scheme, _, rest = text.partition("://")
    place = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    path, marked, _ = rest[len(place) :].partition("?")
    if "@" in rest[len(place) :]:
        return f"{scheme}://..."  # a password with a '/' or '?' in it, perhaps: nobody can tell where it ends
    return f"{scheme}://{place.rpartition('@')[2]}{path}{'?...' if marked else ''}"


def explain_scheme(text: str) -> BadInputError | None:
    """Why a text that is no path opens nothing; None where it does not look like a URL."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(//)?", text)
    if found is None:
        return None
    scheme, slashes = found[1].lower(), found[2]
    others = ("gst", "csi")
    known = (*SCHEMES, *(() if slashes else others))
    close = [] if scheme in _STREAMS else difflib.get_close_matches(scheme, known, n=1)
    if not slashes and not close:
        return None
    shown = safe_name(text) if slashes else f"{found[0]}..."  # what follows may hold a password
    cause = "a stream that only GStreamer reads, or a typing error"
    advice = f"name one of {KNOWN_SOURCES}"
    if scheme == "file":
        cause, advice = "a file is named by its path", "leave file:// out, and name the path itself"
    elif not slashes and scheme in SCHEMES:
        cause, advice = "two slashes are missing", f"write it as {scheme}://USER:PASSWORD@HOST/PATH"
    elif scheme == "csi":
        cause = "a connector is one digit"
    elif close:
        written = close[0] if close[0] in SCHEMES else f"{close[0]}:"
        cause = f"a typing error for {written}{'://' if close[0] in SCHEMES else ''}"
    return BadInputError(
        f"{shown} is no source of a known kind, and there is no file of this name.",
        cause=cause,
        next=advice,
    )


class UrlCapture(AvCapture):
    """A camera by URL.

    Args:
        url: rtsp, rtsps, http or https.
        timing: seconds for opening and for each read.
    """

    def __init__(self, url: str, timing: tuple[float, float] = (OPEN_S, READ_S)) -> None:
        super().__init__(safe_name(url))
        self._url, self._parts, self._timing = url, split_url(url), timing
        # MJPEG over HTTP carries no times: FFmpeg numbers its frames as if there were 25 a second.
        self.own_times = self._parts.scheme.startswith("rtsp")

    def connect(self) -> Any:
        options = dict(LOW_DELAY)
        if self._parts.scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        began_s = time.monotonic()
        try:
            return open_container(self._av, self._url, options=options, timeout=self._timing)
        except self._av.InvalidDataError as error:
            # RTSP reports an answer that never came as one that was wrong.
            if time.monotonic() - began_s < 0.9 * self._timing[0]:
                raise
            raise TimeoutError from error

    def explain(self, error: Exception) -> LogoformerError:
        return explain_url(error, self._av, self._parts, self.shown)


def explain_url(error: Exception, av: Any, parts: SplitResult, shown: str) -> LogoformerError:
    """The reason why a camera at a URL cannot be read.

    Args:
        error: of PyAV's.
        av: the module.
        parts: of the URL.
        shown: the URL without what is secret.
    """
    host, port = parts.hostname or "", parts.port or SCHEMES.get(parts.scheme, 0)
    if isinstance(error, av.HTTPNotFoundError):
        return BadInputError(
            f"{shown}: the camera answers, but has no stream at this path (404).",
            cause="a wrong path in the URL",
            next="look up the path in the camera's manual or its web page",
        )
    if isinstance(error, (av.HTTPUnauthorizedError, av.HTTPForbiddenError)):
        given = "the user and password of the URL" if parts.username else "a URL without user and password"
        return BadInputError(
            f"{shown}: the camera refuses {given}.",
            cause="a wrong password, or a character of it that a URL must write as %XX",
            next=f"write the URL as {parts.scheme}://USER:PASSWORD@{host}:{port}/PATH",
        )
    if isinstance(error, (av.HTTPBadRequestError, av.HTTPOtherClientError)):
        return BadInputError(f"{shown}: the camera rejects the request (4xx).", cause="a wrong path in the URL")
    if isinstance(error, av.HTTPServerError):
        return MachineError(
            f"{shown}: the camera reports a fault of its own (5xx).", cause="it is starting or overloaded"
        )
    if isinstance(error, ConnectionRefusedError):
        return MachineError(
            f"{shown}: nothing listens on port {port} of {host}.",
            cause="the camera is starting, its streaming is off, or it is another port",
            next=command("nc", "-vz", host, port),
        )
    if isinstance(error, (av.InvalidDataError, av.DecoderNotFoundError)):
        return _no_video(shown)
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return MachineError(
            f"{shown}: no machine is known by the name {host}.",
            cause="a typing error, or this machine's DNS is not reached",
            next=command("getent", "hosts", host),
        )
    if isinstance(error, (av.ExitError, TimeoutError)):
        return MachineError(
            f"{shown}: {host} does not answer.",
            cause="the camera is off or hangs, a firewall drops packets, or it is another address",
            next=command("ping", "-c", "3", host),
        )
    if (
        parts.scheme.startswith("http") and getattr(error, "errno", None) == errno.EIO
    ):  # ended before anything was found
        return _no_video(shown)
    why = getattr(error, "strerror", None) or type(error).__name__
    return MachineError(f"{shown} cannot be read: {why}.", next=command("ping", "-c", "3", host))


def _no_video(shown: str) -> BadInputError:
    return BadInputError(
        f"{shown} answers, but not with video that can be decoded.",
        cause="the address of a web page, or another program at this port",
        next="look up the stream's URL in the camera's manual",
    )


def url_capture(url: str) -> Callable[[], Capture]:
    """What makes a connection to a URL."""
    split_url(url)
    if importable("av"):
        return partial(UrlCapture, url)
    return partial(CvCapture, url, safe_name(url))
