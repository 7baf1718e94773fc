"""The receiver in docs/webhooks.md, run as it stands: genuine events get in, once; everything else stays out."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis.asyncio as redis

from server.tied_process import tied
from server.webhooks.signing import new_secret, signed_headers
from tests.server.webhooks.events import SECRET, end_job, local_fetcher, sending, until_empty

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "webhooks.md"
BODY = b'{"type": "job.succeeded", "data": {"id": "j"}}'
NOW = 1_794_000_000


def sample() -> str:
    """The document's one Python program."""
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), flags=re.DOTALL)
    return program


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the program defines."""
    defined: dict[str, Any] = {"__name__": "sample"}
    exec(compile(sample(), DOCUMENT, "exec"), defined)  # noqa: S102 - our own document
    return defined


def signed(*secrets: str, at: int = NOW) -> dict[str, str | None]:
    """Headers of the event."""
    return {**signed_headers(secrets or (SECRET,), event_id="evt_1", timestamp=at, body=BODY)}


def test_a_genuine_event_is_accepted(names: dict[str, Any]) -> None:
    """With any of the receiver's secrets, by any of the sender's, within the tolerance."""
    verified = names["verified"]
    assert verified([SECRET], signed(), BODY, NOW) == "evt_1"
    assert verified([new_secret(), SECRET], signed(), BODY, NOW + 300) == "evt_1"
    assert verified([SECRET], signed(new_secret(), SECRET), BODY, NOW - 300) == "evt_1"


@pytest.mark.parametrize(
    ("changes", "body", "now"),
    [
        ({}, BODY, NOW + 301),
        ({}, BODY, NOW - 301),
        ({"webhook-timestamp": str(NOW + 301)}, BODY, NOW + 301),  # a recording with its time made fresh
        ({"webhook-id": "evt_2"}, BODY, NOW),  # a recording under a new id
        ({}, BODY + b" ", NOW),
        ({}, BODY.replace(b"succeeded", b"cancelled"), NOW),
        ({"webhook-signature": "v1,"}, BODY, NOW),
        ({"webhook-signature": None}, BODY, NOW),
        ({"webhook-signature": "v1,\u00e9"}, BODY, NOW),
        ({"webhook-id": None}, BODY, NOW),
        ({"webhook-timestamp": None}, BODY, NOW),
        ({"webhook-timestamp": "soon"}, BODY, NOW),
        ({"webhook-timestamp": "\u0661"}, BODY, NOW),
    ],
)
def test_a_replay_or_a_forgery_is_refused(
    names: dict[str, Any], changes: dict[str, str | None], body: bytes, now: int
) -> None:
    """Old, from the future, altered, unsigned or malformed."""
    with pytest.raises(names["Refused"]):
        names["verified"]([SECRET], signed() | changes, body, now)


def test_a_foreign_secret_is_refused(names: dict[str, Any]) -> None:
    """Somebody else's signature does not fit."""
    with pytest.raises(names["Refused"], match="no signature fits"):
        names["verified"]([new_secret()], signed(), BODY, NOW)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The program on a free port."""
    (tmp_path / "receiver.py").write_text(sample())
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        tied([sys.executable, str(tmp_path / "receiver.py"), str(port)], death_signal=signal.SIGKILL),
        env=os.environ | {"WEBHOOK_SECRETS": f"{new_secret()} {SECRET}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    yield port, process
    process.kill()
    process.communicate()


@pytest.mark.anyio
async def test_the_program_receives_what_the_server_sends(
    redis_client: redis.Redis, running: tuple[int, subprocess.Popen[str]]
) -> None:
    """An event is acted on; the same one again is accepted and not acted on; an old one is refused."""
    port, process = running
    assert process.stdout is not None
    url = f"http://127.0.0.1:{port}/"
    await end_job(redis_client, "j1", url)
    delays = (0.2,) * 100  # until it listens
    async with sending(redis_client, local_fetcher(port), delays_s=delays):
        assert await asyncio.to_thread(process.stdout.readline) == "job.succeeded j1\n"
        await end_job(redis_client, "j1", url)
        await until_empty(redis_client)
        await end_job(redis_client, "j2", url, state="failed")
        assert await asyncio.to_thread(process.stdout.readline) == "job.failed j2\n"
    async with httpx.AsyncClient(trust_env=False) as client:
        old = {name: value for name, value in signed().items() if value is not None}
        assert (await client.post(url, content=BODY, headers=old)).status_code == 400
    assert "too long ago" in await asyncio.to_thread(process.stdout.readline)
