"""Connections that say too little: they end, and the others do not notice."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from server.api.http_protocol import HttpProtocol
from tests.server.live import Gateway


class HastyProtocol(HttpProtocol):
    """Patient enough for a busy test machine, not for a test's time-out."""

    head_timeout_s = 0.5


async def greet(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("hello")(scope, receive, send)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server whose connections are of the protocol and whose answers are one word."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        greet, http=HastyProtocol, ws="none", lifespan="off", log_config=None, timeout_keep_alive=60
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(30)
    listener.close()


def all_of(connection: socket.socket) -> bytes:
    """What comes until the server hangs up."""
    answer = b""
    while part := connection.recv(4096):
        answer += part
    return answer


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def test_a_connection_that_says_nothing_is_closed(port: int) -> None:
    """No request was begun, so that none is answered."""
    with connected(port) as connection:
        assert all_of(connection) == b""


def test_a_head_that_never_ends_is_answered(port: int) -> None:
    """Who begins a request and does not go on is told 408 and hung up on."""
    with connected(port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localh")
        answer = all_of(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in answer


def test_the_second_request_has_its_own_time(port: int) -> None:
    """A connection may live longer than a head may take, and is closed when a later head does not come."""
    with connected(port) as connection:
        for _ in range(2):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b"hello"):
                answer += connection.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET")
        assert all_of(connection).startswith(b"HTTP/1.1 408 ")


def test_noise_after_an_early_answer_is_no_fault_of_ours(gateway: Gateway) -> None:
    """A body that turns out malformed after its request was refused ends the connection, and that is all."""
    with connected(gateway.port) as connection:
        connection.sendall(
            b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 415 ")
        connection.sendall(b"zz\r\n")
        all_of(connection)
    assert "Traceback" not in gateway.log.read_text()
