"""Clients that send the head of their request a byte at a time, as many as there are places."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from contextlib import ExitStack, closing

import pytest
from logoformer.camera.pipeline.board import Board
from logoformer.camera.web import server as server_module
from logoformer.camera.web.server import PageServer
from watching import wait_for

TOKEN = "0123456789abcdefXYZ"


@pytest.fixture
def page():
    served = PageServer(Board(("door",), {"labels": ["calm"]}), "127.0.0.1", 0, TOKEN)
    yield served
    served.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("logoformer-page")]


def port_of(page: PageServer) -> int:
    return int(re.search(r":(\d+)/", page.address)[1])


def status(page: PageServer, path: str) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=30)) as connection:
        connection.request("GET", path)
        return connection.getresponse().status


def slow(page: PageServer) -> socket.socket:
    """A connection that has begun its request."""
    connection = socket.create_connection(("127.0.0.1", port_of(page)), timeout=30)
    connection.sendall(b"G")
    return connection


def is_ended(connection: socket.socket) -> bool:
    """Whether the server ends a connection; it answers nothing to half a head."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def finish(connection: socket.socket) -> int:
    """Sends the rest of the head and reads the whole answer; its status."""
    connection.sendall(b"ET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    assert answer.read()
    return answer.status


def test_a_head_that_comes_byte_by_byte_is_not_awaited_for_ever(page, monkeypatch):
    assert 0 < server_module.HEAD_S <= 10
    monkeypatch.setattr(server_module, "HEAD_S", 0.5)
    with closing(slow(page)) as connection:
        ended = False
        for _ in range(200):  # 20 s, and never a pause that is too long
            try:
                connection.sendall(b"a")
            except ConnectionError:
                ended = True
                break
            time.sleep(0.1)
        assert ended
    wait_for(lambda: not len(page._server.places))


def test_the_time_counts_for_one_head_and_not_for_the_connection(page, monkeypatch):
    monkeypatch.setattr(server_module, "HEAD_S", 3.0)
    end_s = time.monotonic() + 2 * server_module.HEAD_S
    with closing(http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=30)) as connection:
        connection.connect()
        kept = connection.sock
        while time.monotonic() < end_s:
            connection.request("GET", "/healthz")
            assert connection.getresponse().read()
            time.sleep(0.1)
        assert connection.sock is kept  # it was never opened again


def test_slow_clients_in_all_places_take_the_page_from_nobody(page, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(server_module, "HEAD_S", 600.0)
    monkeypatch.setattr(server_module._Handler, "timeout", 600.0)
    with ExitStack() as stack:
        held = []
        for number in range(4):
            held.append(stack.enter_context(closing(slow(page))))
            wait_for(lambda n=number: page._server.places.waiting == n + 1)
        assert status(page, "/healthz") == 200
        assert is_ended(held[0])
        wait_for(lambda: len(page._server.places) == 3)
        assert status(page, f"/state.json?token={TOKEN}") == 200
        assert [finish(connection) for connection in held[1:]] == [200] * 3


def test_the_one_that_has_waited_longest_is_ended_and_an_answer_begins_the_wait_anew(page, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(server_module, "HEAD_S", 600.0)
    monkeypatch.setattr(server_module._Handler, "timeout", 600.0)
    with closing(slow(page)) as first, closing(slow(page)) as second:
        wait_for(lambda: page._server.places.waiting == 2)
        assert finish(first) == 200
        wait_for(lambda: page._server.places.waiting == 2)
        assert status(page, "/healthz") == 200
        assert is_ended(second)
        first.sendall(b"G")
        assert finish(first) == 200


def test_with_many_slow_clients_one_after_the_other_every_request_is_answered(page, monkeypatch):
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 16)
    with ExitStack() as stack:
        for _ in range(10):
            for _ in range(5):
                stack.enter_context(closing(slow(page)))
            assert status(page, "/healthz") == 200
