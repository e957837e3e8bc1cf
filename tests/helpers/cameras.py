"""Network cameras for tests: a real RTSP server, an HTTP server of MJPEG, and ports that answer wrongly."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SYSTEM_PYTHON = "/usr/bin/python3"
SERVER = Path(__file__).parent / "rtsp_server.py"
DEBIAN = "Debian's gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good and -bad (tests/install-system.sh)"


def require_gstreamer(*programs: str) -> None:
    """Skips where GStreamer is not installed; in CI that is a failure."""
    lines = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    with contextlib.suppress(OSError):
        there = subprocess.run([SYSTEM_PYTHON, "-c", lines], capture_output=True, check=False).returncode == 0
        if there and all(any(Path(folder, name).exists() for folder in os.get_exec_path()) for name in programs):
            return
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs {DEBIAN}")


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class RtspServer:
    """A child that serves a video at `url`; it can be killed, hung and started again at the same port."""

    def __init__(self, file: Path, account: str = "") -> None:
        require_gstreamer()
        self.port, self.account = free_port(), account
        self.url = f"rtsp://127.0.0.1:{self.port}/face"
        self._child: subprocess.Popen[str] | None = None
        self.start(file)

    def start(self, file: Path) -> None:
        words = [SYSTEM_PYTHON, str(SERVER), str(file), str(self.port), *([self.account] if self.account else [])]
        self._child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._child.stdout.readline().startswith("rtsp://"), "the RTSP server did not start"

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()
        self._child.stdout.close()

    def hang(self) -> None:
        self._child.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        self._child.send_signal(signal.SIGCONT)

    def __enter__(self) -> RtspServer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None:
            self.kill()


@contextlib.contextmanager
def http_server(respond: Callable[[http.server.BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """An HTTP server whose GET is answered by a function; gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 10  # for a client that connects and asks nothing

        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                respond(self)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def mjpeg(frames: Sequence[np.ndarray], period_s: float) -> Callable[[http.server.BaseHTTPRequestHandler], None]:
    """An answer that sends frames as a camera does, one JPEG a part."""

    def respond(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        handler.end_headers()
        for frame in frames:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "JPEG", quality=95)
            data = buffer.getvalue()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            handler.wfile.write(head.encode() + data + b"\r\n")
            handler.wfile.flush()
            time.sleep(period_s)

    return respond


@contextlib.contextmanager
def port_that(answers: bytes | None) -> Iterator[int]:
    """A port that accepts and answers with these bytes; None never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    held.append(connection)
                    if answers is not None:
                        connection.recv(4096)
                        connection.sendall(answers)
                        connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()
