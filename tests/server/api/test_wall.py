"""The outermost middleware: slow bodies, faults of our own, and clients that hang up."""

from __future__ import annotations

import logging
import socket

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from server.api.wall import Wall
from tests.server.api.conftest import StartGateway
from tests.server.api.test_refusals import problem
from tests.server.live import Gateway

pytestmark = pytest.mark.anyio


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("secret at /etc/shadow and 0x7fdeadbeef")


async def failing_late(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("too late")


async def test_a_fault_of_ours_tells_nothing_of_the_machine(caplog: pytest.LogCaptureFixture) -> None:
    """The client gets a code and a number to quote; the log has the rest under that number."""
    transport = httpx.ASGITransport(Wall(failing, hosts=()))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        with caplog.at_level(logging.ERROR):
            answer = await client.get("/")
    document = problem(answer, 500, "internal_error")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in document["detail"]
    assert answer.headers["x-request-id"] in caplog.text
    assert "secret at /etc/shadow" in caplog.text


async def test_a_fault_after_the_answer_began_is_only_logged(caplog: pytest.LogCaptureFixture) -> None:
    """There is no second answer; what was sent is cut off."""
    sent = []
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}

    async def send(message: object) -> None:
        sent.append(message)

    with caplog.at_level(logging.ERROR):
        await Wall(failing_late, hosts=())(scope, None, send)  # type: ignore[arg-type]
    assert len(sent) == 1
    assert "too late" in caplog.text


def half_a_request(gateway: Gateway) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=30)
    connection.sendall(
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    return connection


def test_a_body_that_never_comes(start_gateway: StartGateway) -> None:
    """Who sends too slowly is answered 408 and hung up on."""
    gateway = start_gateway(body_timeout_seconds="0.3")
    with half_a_request(gateway) as connection:
        answer = b""
        while part := connection.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"request_timeout" in answer


def test_clients_that_hang_up(start_gateway: StartGateway) -> None:
    """It costs the others nothing, and is no error in the log."""
    gateway = start_gateway()
    for _ in range(20):
        half_a_request(gateway).close()
    job = gateway.post({"prompt": "a ball"}).json()
    for _ in range(5):
        with gateway.client.stream("GET", job["links"]["events"]) as answer:
            next(answer.iter_lines())
    assert gateway.client.get("/readyz").status_code == 503
    gateway.stop()
    log = gateway.log.read_text()
    assert "ERROR" not in log
    assert "Traceback" not in log


def test_a_stopping_gateway_ends_its_streams(start_gateway: StartGateway) -> None:
    """Listeners are let go in order, so that they come back for the rest, and the process ends soon."""
    gateway = start_gateway()
    job = gateway.post({"prompt": "a ball"}).json()
    with gateway.client.stream("GET", job["links"]["events"]) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith("id: ")
        gateway.process.terminate()
        rest = list(lines)
    assert rest
    assert gateway.process.wait(10) in (0, -15)
    assert "ERROR" not in gateway.log.read_text()
