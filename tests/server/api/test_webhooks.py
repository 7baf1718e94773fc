"""Webhooks through a running gateway: asked for with a job, checked at admission, told at the job's end."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from server.webhooks.signing import new_secret
from tests.server.api.conftest import StartGateway
from tests.server.api.test_refusals import GOOD, problem
from tests.server.live import Gateway

PATIENCE_S = 60.0


class Receiver(HTTPServer):
    """Remembers what is posted to it."""

    def __init__(self) -> None:
        self.hits: list[tuple[dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, Receiver)
        self.server.hits.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver on loopback."""
    server = Receiver()
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _secrets(folder: Path, **tenants: list[str]) -> str:
    path = folder / "secrets.json"
    path.write_text(json.dumps(tenants))
    return str(path)


def test_the_end_of_a_job_is_told(start_gateway: StartGateway, receiver: Receiver, tmp_path: Path) -> None:
    """A job that is called off posts its view to its URL, signed with the tenant's secret."""
    secret = new_secret()
    gateway = start_gateway(
        webhook_secrets_file=_secrets(tmp_path, default=[secret]),
        webhook_allow_http="true",
        webhook_networks="127.0.0.0/8",
        webhook_ports=str(receiver.server_port),
    )
    job = gateway.post(GOOD | {"webhook_url": f"http://127.0.0.1:{receiver.server_port}/end?of=job"}).json()
    assert "webhook_url" not in json.dumps(job)
    gateway.client.delete(job["links"]["self"])
    deadline = time.monotonic() + PATIENCE_S
    while not receiver.hits:
        assert time.monotonic() < deadline, gateway.log.read_text()
        time.sleep(0.02)
    ((headers, body),) = receiver.hits
    event = json.loads(body)
    assert (event["type"], event["data"]["id"], event["data"]["state"]) == ("job.cancelled", job["id"], "cancelled")
    assert event["data"] == gateway.client.get(job["links"]["self"]).json()
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256)
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
    assert secret not in gateway.log.read_text()


FORBIDDEN = (
    "http://example.org/hook",
    "https://127.0.0.1/hook",
    "https://10.0.0.1/hook",
    "https://169.254.169.254/latest/meta-data",
    "https://user:password@example.org/",
    "https://example.org:22/",
    "ftp://example.org/",
    "no url",
)


def test_a_url_that_may_not_be_called_is_refused(start_gateway: StartGateway, tmp_path: Path) -> None:
    """At admission, in one sentence about the field, and without the URL's own text, which may hold a password."""
    gateway = start_gateway(webhook_secrets_file=_secrets(tmp_path, default=[new_secret()]))
    for url in FORBIDDEN:
        answer = gateway.post(GOOD | {"webhook_url": url})
        assert problem(answer, 422, "invalid_field")["field"] == "webhook_url", url
        assert "password@" not in answer.text
    assert gateway.post(GOOD | {"webhook_url": "https://example.org/hook"}).status_code == 202


def test_without_a_secret_there_are_no_webhooks(gateway: Gateway, start_gateway: StartGateway, tmp_path: Path) -> None:
    """A server without secrets, or without one for the tenant, says so instead of taking a job it could not tell of."""
    other = start_gateway(webhook_secrets_file=_secrets(tmp_path, studio=[new_secret()]))
    for asked in (gateway, other):
        problem(asked.post(GOOD | {"webhook_url": "https://example.org/hook"}), 422, "webhooks_unavailable")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "at the document"),
        ('{"default": ["whsec_c2hvcnQ="]}', "at default.0: a webhook secret is whsec_"),
        ('{"a b": []}', "is not a name"),
    ],
)
def test_a_secrets_file_with_a_fault_stops_the_start(
    start_gateway: StartGateway, tmp_path: Path, content: str, told: str
) -> None:
    """One sentence that names the place, never the secret."""
    path = tmp_path / "secrets.json"
    path.write_text(content)
    gateway = start_gateway(webhook_secrets_file=str(path))
    assert gateway.process.wait(PATIENCE_S) == 1
    log = gateway.log.read_text()
    assert told in log
    assert "c2hvcnQ" not in log
