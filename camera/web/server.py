"""The server of the page: pictures, events, counters; a thread for each connection."""

from __future__ import annotations

import errno
import http.server
import io
import json
import logging
import socket
import sys
import threading
import time
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ...errors import MachineError, UsageError
from ..pipeline.board import Board
from .access import Access, is_loopback
from .metrics import prometheus_text
from .places import HeadReader, Places, shut
from .views import Views

_log = logging.getLogger(__name__)
PAGE = {"/": "index.html", "/watch.css": "watch.css", "/watch.js": "watch.js"}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
MAX_CONNECTIONS = 256
SEND_BUFFER = 128 << 10  # bytes; what a client does not read waits here, not in our memory
TIMEOUT_S = 5.0  # that a client may neither send nor take anything
HEAD_S = 5.0  # in which the whole head of a request must be there
PICTURE_S = 1 / 15  # at least between two pictures of a stream
STATE_S = 0.1  # at least between two events
WAKE_S = 0.5  # how long a stream waits before it looks whether the server ends
QUIET_S = 2.0  # after which something is sent all the same, so that a vanished client is noticed
HUNG_S = 10.0  # without news from the loop that answers, it hangs
BOUNDARY = "logoformer-frame"
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer:
    """Serves the page of a watch until it is closed.

    Args:
        board: of the watch.
        host: the address to listen at.
        port: 0 takes a free one.
        token: who knows it may look; None lets this machine alone come.

    Attributes:
        address: to open in a browser.
    """

    def __init__(self, board: Board, host: str, port: int, token: str | None) -> None:
        if not 0 <= port <= 65535:
            raise UsageError(f"{port} is no port.", next="--port 8080")
        Access(host, port, token)  # refuses before anything listens
        try:
            self._server = _Server(board, host, port)
        except OSError as error:
            cause, step = _why_not_served(error)
            raise MachineError(
                f"The page cannot be served at {host}:{port}: {error.strerror or error}.", cause=cause, next=step
            ) from error
        port = self._server.server_address[1]
        self._server.access = Access(host, port, token)
        shown = "localhost" if is_loopback(host) else socket.gethostname() if host in ("0.0.0.0", "::") else host
        shown = f"[{shown}]" if ":" in shown else shown
        self.address = f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="logoformer-page", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Ends every connection. A second call does nothing."""
        self._server.shutdown()
        self._thread.join()
        self._server.end_connections()
        self._server.server_close()


def _why_not_served(error: OSError) -> tuple[str, str]:
    """The likely cause and the next step."""
    if error.errno == errno.EADDRINUSE:
        return "another program, perhaps another watch, listens there", "--port 0, which takes a free one"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "--host is no name or address of this machine", "--host 127.0.0.1, or --host 0.0.0.0 for all addresses"
    if error.errno == errno.EACCES:
        return "ports below 1024 are for the administrator", "--port 8080"
    return "", "--host 127.0.0.1 --port 0, which takes a free port of this machine"


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, board: Board, host: str, port: int) -> None:
        self.views = Views(board)
        self.access = Access("127.0.0.1", port, None)
        self.ending = False
        self.places = Places()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Binds without looking up this machine's full name, which may take seconds."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.places.take(request, MAX_CONNECTIONS):
            try:
                request.settimeout(0.1)
                request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n")
            except OSError as error:
                _log.debug("a client that was one too many: %s", error)
            self.shutdown_request(request)
            return
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        thread.name = "logoformer-page-client"
        self.places.run(request, thread)
        try:
            thread.start()
        except RuntimeError:  # no more threads on this machine
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        self.places.leave(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs; a client that goes away is no error, and nothing of ours is printed."""
        _log.info("a client's connection ended: %s", sys.exc_info()[1])

    def end_connections(self) -> None:
        """Shuts every connection and waits for its thread."""
        self.ending = True
        for request, thread in self.places.connections().items():
            shut(request)
            if thread is not None:
                thread.join(2 * WAKE_S)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, default_request_version = "HTTP/1.1", "HTTP/1.0"
    server_version, sys_version = "logoformer", ""
    timeout = TIMEOUT_S
    server: _Server

    def setup(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        super().setup()
        self.rfile.close()
        self._head = HeadReader(self.connection, self.timeout)
        self.rfile = io.BufferedReader(self._head)

    def handle_one_request(self) -> None:
        """Also notes, for the server, when the head is awaited."""
        self._head.until_s = time.monotonic() + HEAD_S
        self.server.places.wait(self.request)
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Also notes that the head is there."""
        good = super().parse_request()
        self.server.places.heard(self.request)
        return good

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: an address may hold the token."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A line of text; nothing of the request is repeated in it."""
        self.close_connection = True
        self._send((message or HTTPStatus(code).phrase) + "\n", "text/plain; charset=utf-8", code)

    def do_GET(self) -> None:
        try:
            self._answer()
        except OSError as error:  # it went away, or took nothing for too long
            _log.debug("a client: %s", error)
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815

    def _refuse(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_CONNECT = do_TRACE = _refuse  # noqa: N815

    # ---------------------------------------------------------------------------------------------------------- routes
    def _answer(self) -> None:
        if self.headers.get_all("Transfer-Encoding"):
            return self.send_error(HTTPStatus.BAD_REQUEST)
        if self.headers.get("Content-Length", "0").strip() != "0":  # a body that nobody asked for is not read
            self.close_connection = True
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.server.access.accepts_host(hosts[0]):
            return self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "This server does not go by that name.")
        try:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query, max_num_fields=8)
        except ValueError:
            return self.send_error(HTTPStatus.BAD_REQUEST)
        if parts.path == "/healthz":
            return self._health()
        if self.headers.get("Sec-Fetch-Site") == "cross-site" and parts.path != "/":
            return self.send_error(HTTPStatus.FORBIDDEN, "Another site's page asked for this.")
        token = query.get("token", [None])[0]
        cookie = ""
        if self.server.access.knows_token(token):
            access = self.server.access
            cookie = f"{access.cookie_name}={access.cookie_value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=2592000"
            if parts.path == "/":  # the token leaves the address bar and the history
                return self._send("", "text/plain", HTTPStatus.SEE_OTHER, {"Location": "/", "Set-Cookie": cookie})
        elif not self.server.access.lets_in(self.headers.get("Cookie"), self.headers.get("Authorization")):
            hint = "Open the address that `logoformer watch` printed, with its token."
            return self.send_error(HTTPStatus.UNAUTHORIZED, hint)
        self._route(parts.path, query, {"Set-Cookie": cookie} if cookie else {})

    def _route(self, path: str, query: dict[str, list[str]], more: dict[str, str]) -> None:
        if path in PAGE:
            name = PAGE[path]
            body = (resources.files(__package__) / "static" / name).read_bytes()
            return self._send(body, f"{TYPES[name.rpartition('.')[2]]}; charset=utf-8", 200, more)
        if path == "/state.json":
            return self._send(self.server.views.state(-1, 0)[1], "application/json", 200, more)
        if path == "/metrics":
            try:
                text, kind = prometheus_text(self.server.views.board)
            except MachineError as error:
                return self.send_error(HTTPStatus.NOT_IMPLEMENTED, str(error))
            return self._send(text, kind, 200, more)
        if path == "/events":
            return self._events(more)
        if path in ("/stream", "/snapshot.jpg"):
            camera = query.get("camera", ["0"])[0]
            known = len(self.server.views.board.names)
            if not (camera.isascii() and camera.isdigit() and len(camera) < 4 and int(camera) < known):
                return self.send_error(HTTPStatus.NOT_FOUND, "There is no such camera.")
            return self._stream(int(camera), more) if path == "/stream" else self._snapshot(int(camera), more)
        self.send_error(HTTPStatus.NOT_FOUND)

    def _health(self) -> None:
        board = self.server.views.board
        hung = time.monotonic() - board.told_s > HUNG_S
        states = [camera.state for camera in board.state()[1]]
        said = {"status": "hung" if hung else "ok", "sources": {state: states.count(state) for state in set(states)}}
        self._send(json.dumps(said), "application/json", 503 if hung else 200)

    def _snapshot(self, camera: int, more: dict[str, str]) -> None:
        picture = self.server.views.picture(camera, 0, TIMEOUT_S)[1]
        if not picture:
            return self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "No frame has come yet.")
        self._send(picture, "image/jpeg", 200, more)

    def _stream(self, camera: int, more: dict[str, str]) -> None:
        """Pictures for as long as the client takes them, the newest each time."""
        self._begin(f"multipart/x-mixed-replace; boundary={BOUNDARY}", more)
        number, sent_s = 0, 0.0
        self.wfile.write(f"--{BOUNDARY}\r\n".encode())
        while self.command == "GET" and not self.server.ending:
            newest, picture = self.server.views.picture(camera, number, WAKE_S)
            now = time.monotonic()
            if picture and (newest != number or now - sent_s > QUIET_S):
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                # The boundary comes at once: a browser shows a picture when it sees the one after it.
                self.wfile.write(head.encode() + picture + f"\r\n--{BOUNDARY}\r\n".encode())
                number, sent_s = newest, now
                time.sleep(max(0.0, PICTURE_S - (time.monotonic() - now)))
            elif self.server.views.board.closed:
                return

    def _events(self, more: dict[str, str]) -> None:
        """The state for as long as the client takes it, the newest each time."""
        self._begin("text/event-stream", more)
        version, sent_s = -1, 0.0
        self.wfile.write(b"retry: 1000\n\n")
        while self.command == "GET" and not self.server.ending:
            newest, state = self.server.views.state(version, WAKE_S)
            now = time.monotonic()
            if newest != version or now - sent_s > QUIET_S:
                self.wfile.write(b"data: " + state + b"\n\n" if newest != version else b": still here\n\n")
                version, sent_s = newest, now
                time.sleep(STATE_S)
            elif self.server.views.board.closed:
                return

    # --------------------------------------------------------------------------------------------------------- sending
    def _begin(self, kind: str, more: dict[str, str]) -> None:
        self.close_connection = True
        self.send_response(200)
        for name, value in {"Content-Type": kind, "Connection": "close", **HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, body: str | bytes, kind: str, code: int = 200, more: dict[str, str] | None = None) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(code)
        headers = {"Content-Type": kind, "Content-Length": str(len(data)), **HEADERS, **(more or {})}
        if code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = "GET, HEAD"
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
