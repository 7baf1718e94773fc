"""How every process connects to Redis: short time-outs, no hidden retries, no open server on the network."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

import redis.asyncio as redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

_CONNECT_TIMEOUT_S = 0.5
_REPLY_TIMEOUT_S = 0.8
_MAX_CONNECTIONS = 1024  # each follower of events holds one


class RedisUrlError(ValueError):
    """The URL names no server; the message holds nothing of it that could be a password."""


class InsecureRedisError(ValueError):
    """The URL names a Redis that anybody on its network could use."""


def connect(
    url: str, *, reply_timeout_s: float = _REPLY_TIMEOUT_S, allow_without_password: bool = False
) -> redis.Redis:
    """A client for `redis://`, `rediss://` or `unix://` URLs that tells of a dead server within a second.

    Who waits longer for replies waits as long to be let in. A server that is gone or silent raises
    `redis.exceptions.ConnectionError` or `TimeoutError`. Commands are never repeated behind the caller's back: who may
    repeat one knows whether it is idempotent. Raises `RedisUrlError` for another kind of URL, `InsecureRedisError` for
    a TCP server beyond loopback without a password, unless `allow_without_password`.
    """
    _require_redis(url)
    if not allow_without_password:
        _require_protected(url)
    pool = redis.ConnectionPool.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=_CONNECT_TIMEOUT_S if reply_timeout_s <= _REPLY_TIMEOUT_S else reply_timeout_s,
        socket_timeout=reply_timeout_s,
        retry=Retry(NoBackoff(), 0),
        max_connections=_MAX_CONNECTIONS,
        # No CLIENT SETINFO: Redis 7.0 does not know it, and a user with no more rights than needed may not say it.
        driver_info=None,
    )
    pool.connection_class = _HEEDFUL[pool.connection_class]
    return redis.Redis.from_pool(pool)


class _HeedsCancellation(AbstractConnection):
    """A connection that lets no cancellation be lost.

    The client sends with `asyncio.wait_for`, which on Python 3.11 swallows a cancellation that comes as it ends
    (3.12 made it anew: python/cpython#96764); what must stop, or ends by a time-out, would then go on.
    """

    async def send_packed_command(self, command: bytes | str | Iterable[bytes], check_health: bool = True) -> None:
        task = asyncio.current_task()
        before = task.cancelling() if task else 0
        await super().send_packed_command(command, check_health)
        if task and task.cancelling() > before:
            # What was sent will be answered, and the next to use this connection must not read that.
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError


class _TcpConnection(_HeedsCancellation, redis.Connection):
    pass


class _TlsConnection(_HeedsCancellation, redis.SSLConnection):
    pass


class _UnixConnection(_HeedsCancellation, redis.UnixDomainSocketConnection):
    pass


_HEEDFUL: dict[type[AbstractConnection], type[AbstractConnection]] = {
    redis.Connection: _TcpConnection,
    redis.SSLConnection: _TlsConnection,
    redis.UnixDomainSocketConnection: _UnixConnection,
}


def _require_redis(url: str) -> None:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("redis", "rediss", "unix") and (parts.port is None or parts.port > 0)
    except ValueError:  # a port beyond 65535, or half an IPv6 address
        known = False
    if not known:
        raise RedisUrlError(
            "the URL of Redis cannot be used; it looks like redis://user:password@host:6379/0, rediss://... or "
            "unix:///path/to/socket"
        )


def _require_protected(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "unix" or parts.password or "password=" in parts.query or _is_loopback(parts.hostname):
        return
    raise InsecureRedisError(
        f"the Redis at {parts.hostname or url!r} is beyond loopback and the URL has no password: "
        "put one in (redis://user:password@host:port) or allow a passwordless server explicitly"
    )


def _is_loopback(host: str | None) -> bool:
    if host is None or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
