"""The server under requests of all kinds: good ones, hostile ones, and clients that never read."""

from __future__ import annotations

import errno
import http.client
import json
import re
import socket
import threading
import time
from contextlib import closing
from io import BytesIO

import numpy as np
import pytest
from logoformer.camera.answers.contract import FaceAnswer, FaceCrop, FaceFrame
from logoformer.camera.answers.streams import FaceView
from logoformer.camera.pipeline.board import Board, CameraState
from logoformer.camera.web import server as server_module
from logoformer.camera.web.server import PageServer
from logoformer.engine import Result
from logoformer.errors import MachineError, UsageError
from PIL import Image
from watching import wait_for

TOKEN = "0123456789abcdefXYZ"
LABELS = ("calm", "glad", "<b>Zürich</b>")


def seen(number: int, size: tuple[int, int] = (96, 128)) -> FaceFrame:
    picture = np.full((*size, 3), number % 256, np.uint8)
    crop = FaceCrop(3, (10, 10, 60, 60), 0.9, picture[10:60, 10:60])
    return FaceFrame(picture, "rgb", number / 25, number, 0, 0.0, 0.0, (crop,))


def answer(sequence: int = 0) -> FaceAnswer:
    shares = np.array([0.2, 0.7, 0.1], np.float32)
    result = Result("glad", 1, shares, {}, 1.0, 2.0, sequence)
    return FaceAnswer("door", 3, (10, 10, 60, 60), 0.9, result, "glad", shares, LABELS, True, 5, 0, 1000.0, 12.5)


@pytest.fixture
def board() -> Board:
    board = Board(("door", "<i>yard</i>"), {"labels": list(LABELS), "bundle": "face.bundle"})
    board.show(0, seen(7))
    view = FaceView(3, (10, 10, 60, 60), answer(), 1.0, np.zeros((20, 20, 3), np.uint8), "rgb")
    states = (
        CameraState("door", "live", "", True, faces=(view,), dropped={"capture": 2, "overload": 5}, frames=9, answers=3,
                    age_under=(1, 2, *(0,) * 9), age_sum_s=0.07, skipped={"small": 4}),
        CameraState("<i>yard</i>", "lost", "no frame for 2 s", True),
    )  # fmt: skip
    board.tell(states, {0: {3: answer()}, 1: {}})
    return board


@pytest.fixture
def page(board):
    served = PageServer(board, "127.0.0.1", 0, None)
    yield served
    served.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("logoformer-page")]


@pytest.fixture
def guarded(board):
    served = PageServer(board, "127.0.0.1", 0, TOKEN)
    yield served
    served.close()


def port_of(page: PageServer) -> int:
    return int(re.search(r":(\d+)/", page.address)[1])


def get(page, path: str, method: str = "GET", **headers: str):
    """(status, headers, body)"""
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=30)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        found = connection.getresponse()
        return found.status, dict(found.getheaders()), found.read()


def raw(page, data: bytes) -> bytes:
    """What comes back for some bytes, to the end of the connection."""
    with closing(socket.create_connection(("127.0.0.1", port_of(page)), timeout=30)) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while chunk := connection.recv(65536):
                answer += chunk
        except ConnectionError:
            pass
        return answer


# ------------------------------------------------------------------------------------------------------------ the parts
def test_the_page_and_its_parts_load_nothing_from_outside(page):
    for path, kind in (("/", "text/html"), ("/watch.css", "text/css"), ("/watch.js", "text/javascript")):
        status, headers, body = get(page, path)
        assert (status, headers["Content-Type"]) == (200, f"{kind}; charset=utf-8")
        assert b"http://" not in body and b"https://" not in body and b"//cdn" not in body
        assert b"innerHTML" not in body and b" onload=" not in body
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"


def test_the_snapshot_is_the_newest_picture_with_its_box(page, board):
    status, headers, body = get(page, "/snapshot.jpg")
    picture = Image.open(BytesIO(body))
    assert (status, headers["Content-Type"], picture.format) == (200, "image/jpeg", "JPEG")
    assert (
        len({picture.getpixel((x, y)) for x in range(0, 480, 8) for y in range(0, 360, 8)}) > 5
    )  # grey, but for the box
    board.show(0, seen(200))
    assert np.asarray(Image.open(BytesIO(get(page, "/snapshot.jpg?camera=0")[2])))[-1, -1, 0] > 150


def test_a_camera_without_a_picture_and_one_that_is_not_there(page, monkeypatch):
    monkeypatch.setattr(server_module, "TIMEOUT_S", 0.05)
    assert get(page, "/snapshot.jpg?camera=1")[0] == 503
    for camera in ("2", "-1", "x", "0" * 5000, "%00", "1e0", "%D9%A3"):  # the last is an Arabic 3
        assert get(page, f"/snapshot.jpg?camera={camera}")[0] == 404


def test_the_state_is_json_with_what_the_page_shows(page):
    status, _, body = get(page, "/state.json")
    said = json.loads(body)
    door, yard = said["cameras"]
    assert (status, door["state"], yard["reason"]) == (200, "live", "no frame for 2 s")
    assert door["dropped"] == {"capture": 2, "overload": 5}
    (face,) = door["faces"]
    assert sum(face["answer"]["probabilities"]) == pytest.approx(1, abs=1e-3)
    assert face["crop"].startswith("data:image/jpeg;base64,")
    assert said["watch"]["labels"] == list(LABELS)


def test_events_give_each_new_state_and_skip_what_came_in_between(page, board):
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=30)) as connection:
        connection.request("GET", "/events")
        stream = connection.getresponse()
        assert stream.getheader("Content-Type") == "text/event-stream"
        got = []
        for count in (1, 2):
            while not (line := stream.readline()).startswith(b"data: "):
                assert line
            got.append(json.loads(line[6:])["cameras"][0]["frames"])
            for frames in range(100 * count, 100 * count + 50):
                board.tell((CameraState("door", "live", "", True, frames=frames), board.state()[1][1]), {})
        assert got == [9, 149]


def test_a_stream_shows_pictures_in_order_and_never_an_old_one_again(page, board):
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=30)) as connection:
        connection.request("GET", "/stream?camera=0")
        stream = connection.getresponse()
        assert stream.getheader("Content-Type").startswith("multipart/x-mixed-replace; boundary=")
        levels = []
        for number in (60, 120, 180):
            while not (line := stream.readline()).lower().startswith(b"content-length"):
                assert line
            stream.readline()
            picture = Image.open(BytesIO(stream.read(int(line.split(b":")[1]))))
            levels.append(picture.getpixel((2, picture.height - 2))[0])
            board.show(0, seen(number))
        assert levels == pytest.approx([7, 60, 120], abs=6)


def test_metrics_are_what_was_counted(page):
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed (the extra 'watch')")
    from prometheus_client.parser import text_string_to_metric_families

    status, headers, body = get(page, "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain")
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    door = ("source", "door")
    assert found["logoformer_frames_total", door] == 9
    assert found["logoformer_frames_dropped_total", ("cause", "overload"), door] == 5
    assert found["logoformer_faces_skipped_total", ("reason", "small"), door] == 4
    assert found["logoformer_source_state", door, ("state", "live")] == 1
    assert found["logoformer_source_state", ("source", "<i>yard</i>"), ("state", "lost")] == 1
    assert found["logoformer_answer_age_seconds_bucket", ("le", "0.05"), door] == 3
    assert found["logoformer_answer_age_seconds_count", door] == 3
    assert found["logoformer_answer_age_seconds_sum", door] == pytest.approx(0.07)


def test_metrics_without_their_package_name_the_extra(page, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    status, _, body = get(page, "/metrics")
    assert status == 501 and b"pip install 'logoformer[watch]'" in body


def test_health_is_bad_when_the_loop_hangs(page, board, monkeypatch):
    status, _, body = get(page, "/healthz")
    assert (status, json.loads(body)) == (200, {"status": "ok", "sources": {"live": 1, "lost": 1}})
    board.told_s -= 60
    assert get(page, "/healthz")[0] == 503


# ------------------------------------------------------------------------------------------------------- who may look
def test_another_name_or_none_or_two_is_misdirected(page):
    assert get(page, "/", Host="evil.example")[0] == 421
    assert raw(page, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 421")
    assert raw(page, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 421")
    assert get(page, "/healthz", Host="evil.example")[0] == 421


def test_another_sites_page_gets_no_picture(page):
    assert get(page, "/snapshot.jpg", Sec_Fetch_Site="cross-site")[0] == 403
    assert get(page, "/snapshot.jpg", Sec_Fetch_Site="same-origin")[0] == 200
    assert get(page, "/", Sec_Fetch_Site="cross-site")[0] == 200  # a link from elsewhere
    assert get(page, "/snapshot.jpg")[1]["Cross-Origin-Resource-Policy"] == "same-origin"


def test_with_a_token_nothing_is_shown_without_it(guarded):
    for path in ("/", "/watch.js", "/stream", "/events", "/snapshot.jpg", "/state.json", "/metrics"):
        status, _, body = get(guarded, path)
        assert status == 401 and TOKEN.encode() not in body
        assert get(guarded, f"{path}?token=wrong-wrong-wrong-wrong")[0] == 401
    assert get(guarded, "/healthz")[0] == 200  # says nothing of people


def test_the_first_use_gives_a_cookie_and_takes_the_token_out_of_the_address(guarded):
    assert f"?token={TOKEN}" in guarded.address
    status, headers, body = get(guarded, f"/?token={TOKEN}")
    assert (status, headers["Location"], body) == (303, "/", b"")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and TOKEN not in cookie
    kept = cookie.partition(";")[0]
    for path in ("/", "/snapshot.jpg", "/state.json"):
        assert get(guarded, path, Cookie=kept)[0] == 200
        assert get(guarded, path, Cookie=kept + "0")[0] == 401
    assert get(guarded, "/metrics", Authorization=f"Bearer {TOKEN}")[0] in (200, 501)
    status, headers, _ = get(guarded, f"/snapshot.jpg?token={TOKEN}")
    assert status == 200 and "HttpOnly" in headers["Set-Cookie"]


def test_an_open_address_without_a_token_is_refused_before_anything_listens(board):
    with pytest.raises(UsageError, match="without a token"):
        PageServer(board, "0.0.0.0", 0, None)


def test_a_port_that_is_taken_is_an_error_with_advice(board, page):
    with pytest.raises(MachineError, match="cannot be served") as caught:
        PageServer(board, "127.0.0.1", port_of(page), None)
    assert "--port 0" in caught.value.next and "another watch" in caught.value.cause
    with pytest.raises(UsageError, match="no port"):
        PageServer(board, "127.0.0.1", 70000, None)


@pytest.mark.parametrize(
    ("raised", "cause", "step"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "no name or address", "--host 127.0.0.1"),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address"), "no name or address", "--host 127.0.0.1"),
        (OSError(errno.EACCES, "Permission denied"), "below 1024", "--port 8080"),
    ],
)
def test_only_a_port_that_is_taken_is_called_that(board, monkeypatch, raised, cause, step):
    def bind(_: object) -> None:
        raise raised

    monkeypatch.setattr(server_module._Server, "server_bind", bind)
    with pytest.raises(MachineError, match="cannot be served") as caught:
        PageServer(board, "192.0.2.1", 80, "x" * 32)
    assert cause in caught.value.cause and caught.value.next.startswith(step)


# ---------------------------------------------------------------------------------------------------- hostile requests
@pytest.mark.parametrize(
    "path",
    ["/../server.py", "/..%2fserver.py", "/static/../../../../etc/passwd", "//etc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
     "/watch.js/../server.py", "/index.html", "/watch.js%00", "/" + "a" * 3000, "/favicon.ico", "http://evil.example/x"],
)  # fmt: skip
def test_paths_that_are_not_of_the_page_lead_nowhere(page, path):
    answer = raw(page, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]
    assert b"root:" not in answer and b"PageServer" not in answer and b"passwd" not in answer


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(200)) + b"\r\n", b"431"),
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET / HTTP/1.1 and more\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),  # TLS
        (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", b"405"),
        (b"PUT /x HTTP/1.1\r\nHost: localhost\r\n\r\n", b"405"),
        (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"501"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"GET /?" + b"&".join(b"a=1" for _ in range(100)) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
    ],
)
def test_oversized_and_malformed_requests_get_a_status_and_the_server_lives(page, data, status):
    answer = raw(page, data)
    assert re.match(rb"HTTP/1\.[01] " + status, answer), answer[:200]
    assert b"Traceback" not in answer and b"<" not in answer.partition(b"\r\n\r\n")[2]
    assert get(page, "/healthz")[0] == 200


def test_a_body_that_was_not_asked_for_is_not_taken_for_the_next_request(page):
    data = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60\r\n\r\n"
    smuggled = b"GET /state.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert raw(page, data + smuggled).count(b"HTTP/1.1 ") == 1


def test_head_gives_headers_only(page):
    status, headers, body = get(page, "/snapshot.jpg", "HEAD")
    assert status == 200 and int(headers["Content-Length"]) > 0 and body == b""


# --------------------------------------------------------------------------------------------- clients that harm nobody
def never_reads(page, path: str) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port_of(page)))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection


def pictures_got(page, board, count: int) -> int:
    """Pictures that a client that reads gets while `count` are shown, one each 1/12 s."""
    got, noise = 0, np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=30)) as connection:
        connection.request("GET", "/stream")
        stream, ended = connection.getresponse(), threading.Event()

        def read() -> None:
            nonlocal got
            while not ended.is_set() and (line := stream.readline()):
                if line.lower().startswith(b"content-length"):
                    stream.readline()
                    stream.read(int(line.split(b":")[1]))
                    got += 1

        reader = threading.Thread(target=read)
        reader.start()
        wait_for(lambda: got)
        before = got
        for number in range(count):
            board.show(0, FaceFrame(np.roll(noise, number, 1), "rgb", number / 12, number, 0, 0.0, 0.0))
            time.sleep(1 / 12)
        found = got - before
        ended.set()
        board.show(0, seen(1))  # wakes the reader
        reader.join(30)
    return found


@pytest.mark.slow
def test_a_hundred_clients_that_never_read_cost_the_good_one_nothing(page, board):
    """Counted in pictures that were shown, alone and with the others: a slow machine shows and sends slower alike."""
    alone = pictures_got(page, board, 24)
    others = [never_reads(page, "/stream" if number % 2 else "/events") for number in range(100)]
    try:
        beside = pictures_got(page, board, 24)
    finally:
        for connection in others:
            connection.close()
    assert alone >= 20
    assert beside >= 0.9 * alone


def test_a_client_that_stops_reading_is_given_up_and_so_is_one_that_says_nothing(page, board, monkeypatch):
    assert 0 < server_module._Handler.timeout <= 10
    monkeypatch.setattr(server_module._Handler, "timeout", 0.3)
    silent = socket.create_connection(("127.0.0.1", port_of(page)))
    stuck = never_reads(page, "/stream")
    wait_for(lambda: len(page._server.places) == 2)
    noise = np.random.default_rng(0).integers(0, 255, (480, 640, 3), np.uint8)
    for number in range(400):
        board.show(0, FaceFrame(np.roll(noise, number, 1), "rgb", number / 12, number, 0, 0.0, 0.0))
        if not page._server.places:
            break
        time.sleep(0.02)
    wait_for(lambda: not page._server.places)
    silent.close()
    stuck.close()


def test_one_connection_too_many_is_told_to_come_later(page, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 3)
    held = [never_reads(page, "/events") for _ in range(3)]
    wait_for(lambda: len(page._server.places) == 3 and not page._server.places.waiting)
    assert raw(page, b"").startswith(b"HTTP/1.1 503")
    for connection in held:
        connection.close()
    wait_for(lambda: not page._server.places)
    assert get(page, "/healthz")[0] == 200


def test_closing_ends_streams_at_once_also_those_that_nobody_reads(board):
    served = PageServer(board, "127.0.0.1", 0, None)
    held = [never_reads(served, path) for path in ("/stream", "/events", "/stream?camera=1")]
    wait_for(lambda: len(served._server.places) == 3)
    served.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("logoformer-page")]
    for connection in held:
        connection.close()
    served.close()


def test_nobody_looks_nothing_is_encoded_and_all_who_look_share_one_picture(page, board, monkeypatch):
    from logoformer.camera.web import views

    made = []
    original = views.jpeg
    monkeypatch.setattr(views, "jpeg", lambda image: made.append(1) or original(image))
    for number in range(20):
        board.show(0, seen(number))
    assert made == []
    for _ in range(5):
        get(page, "/snapshot.jpg")
    assert len(made) == 1
