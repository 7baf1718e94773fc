"""The whole server on one machine: embedded Valkey, workers and gateway, started, watched and stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial

from redis.exceptions import RedisError

from engines.card import read_card
from engines.catalog import find_model
from server.embedded_valkey import EmbeddedValkey
from server.pool import pool_of
from server.queue.connection import connect
from server.queue.library import LibraryMissingError, install_library
from server.settings import Settings
from server.state_folder import StateFolder
from server.supervised import ChildSpec, Supervised

_log = logging.getLogger(__name__)
_GATEWAY_STOP_S = 8.0
_LOOK_EVERY_S = 0.1
_STARTS_BEFORE_GIVING_UP = 3

Tell = Callable[[str], None]


class StackError(ValueError):
    """The stack cannot run; the message says why and what to do."""


class Stack:
    """Gateways and workers, with a Valkey of their own unless the settings name a Redis."""

    def __init__(self, settings: Settings, tell: Tell) -> None:
        """`tell` is given one line of progress at a time, for the person who started it."""
        self._settings = settings
        self._tell = tell
        self._stop_asked = asyncio.Event()
        self._gave_up: str | None = None
        self._workers: list[Supervised] = []

    def stop(self) -> None:
        """Begin to stop; called again, running videos are given back to the queue at once."""
        if self._stop_asked.is_set():
            for worker in self._workers:
                worker.signal(signal.SIGTERM)
        self._stop_asked.set()

    async def run(self) -> None:
        """Serve until `stop`; StackError when something that is needed cannot be had."""
        model = read_card(find_model(self._settings.model)).name
        # What was opened last is closed first: gateway, workers, Valkey, and then the folder is let go.
        async with contextlib.AsyncExitStack() as opened:
            state = StateFolder(self._settings.state_dir)
            opened.callback(state.close)
            listener = opened.enter_context(_listen(self._settings.host, self._settings.port))
            settings = await self._with_redis(opened, state)
            await self._start_workers(opened, settings, pool_of(model))
            await self._start_gateways(opened, settings, listener)
            await self._announce(listener, model)
            await self._stop_asked.wait()
            if self._gave_up is None:
                self._tell("stopping: no new requests; a running video may take a moment (Ctrl-C again to leave it)")
        if self._gave_up is not None:
            raise StackError(self._gave_up)
        self._tell("stopped")

    async def _with_redis(self, opened: contextlib.AsyncExitStack, state: StateFolder) -> Settings:
        """The settings with the URL of a Redis that answers."""
        if self._settings.redis_url is not None:
            await _require_answer(self._settings.redis_url, self._settings.allow_passwordless_redis)
            return self._settings
        self._tell(f"starting the queue (embedded Valkey, data in {state.path})")
        valkey = EmbeddedValkey(state)
        await valkey.start()
        opened.push_async_callback(valkey.stop)
        return self._settings.model_copy(update={"redis_url": valkey.url})

    async def _start_workers(self, opened: contextlib.AsyncExitStack, settings: Settings, pool: str) -> None:
        self._tell(f"loading model {settings.model} in {_counted(settings.workers, 'worker')}")
        opened.push_async_callback(self._stop_workers)
        for number in range(1, settings.workers + 1):
            worker = Supervised(_worker_spec(settings, pool, number), partial(self._died, "a worker"))
            await worker.start()
            self._workers.append(worker)

    async def _start_gateways(
        self, opened: contextlib.AsyncExitStack, settings: Settings, listener: socket.socket
    ) -> None:
        gateways = [
            Supervised(_gateway_spec(settings, listener, number), partial(self._died, "a gateway"))
            for number in range(1, settings.gateways + 1)
        ]

        async def stop() -> None:
            await asyncio.gather(*(gateway.stop(grace_s=_GATEWAY_STOP_S) for gateway in gateways))

        opened.push_async_callback(stop)
        for gateway in gateways:
            await gateway.start()

    async def _stop_workers(self) -> None:
        # The worker itself minds the drain time; ours is longer by what it needs to give jobs back.
        grace = self._settings.drain_seconds + 10.0
        await asyncio.gather(*(worker.stop(grace_s=grace) for worker in self._workers))

    def _died(self, who: str, returncode: int, deaths: int) -> None:
        # Exit code 1 is a child's own word that it never will work; a crash may pass, but not time after time.
        if returncode == 1 or (returncode > 0 and deaths >= _STARTS_BEFORE_GIVING_UP):
            self._gave_up = f"{who} cannot start; its last line above says why"
            self._stop_asked.set()

    async def _announce(self, listener: socket.socket, model: str) -> None:
        """Tell the person that videos can be made, once they can, and how."""
        host, port = listener.getsockname()[:2]
        address = _address(host, port)
        waiting = asyncio.create_task(_until_ready(host, port))
        stopping = asyncio.create_task(self._stop_asked.wait())
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not waiting.done():
            waiting.cancel()
            return
        key = "" if self._settings.api_keys_file is None else '-H "Authorization: Bearer $KEY" '
        self._tell(
            f"ready: model {model} on http://{address}\n"
            f"try:   curl -s http://{address}/generate {key}-H 'Content-Type: application/json' "
            """-d '{"prompt": "a red ball rolls over a green meadow"}'"""
        )


def _worker_spec(settings: Settings, pool: str, number: int) -> ChildSpec:
    assert settings.redis_url is not None
    options = {
        "--model": settings.model,
        "--pool": pool,
        "--artifacts": settings.artifacts_dir / pool,
        "--max-batch": settings.max_batch,
        "--retention": settings.retention_seconds,
        "--drain-timeout": settings.drain_seconds,
        "--log-level": settings.log_level,
        "--log-format": settings.log_format,
    }
    flags = ["--allow-passwordless-redis"] if settings.allow_passwordless_redis else []
    return ChildSpec(
        name=f"worker {number}",
        argv=[sys.executable, "-m", "server.worker", *(str(word) for pair in options.items() for word in pair), *flags],
        # The URL may hold a password, which an argument would show to everybody on the machine.
        environment={
            "REDIS_URL": settings.redis_url,
            "RUSHES_THREADS": str(settings.engine_threads),
            "OMP_NUM_THREADS": str(settings.engine_threads),
        },
    )


def _gateway_spec(settings: Settings, listener: socket.socket, number: int) -> ChildSpec:
    return ChildSpec(
        name=f"gateway {number}",
        argv=[sys.executable, "-m", "server.api", "--fd", str(listener.fileno())],
        environment=settings.to_environment(),
        pass_fds=(listener.fileno(),),
    )


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, bound before anything slow begins and kept while gateways come and go."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StackError(f"cannot listen on {host!r}: {error.strerror}; give another --host") from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StackError(
            f"cannot listen on {_address(host, port)}: {(error.strerror or str(error)).lower()}; "
            "stop what is there, or give another --port"
        ) from None
    return listener


async def _require_answer(url: str, allow_without_password: bool) -> None:
    client = connect(url, allow_without_password=allow_without_password)
    try:
        await client.ping()
        await install_library(client)
    except LibraryMissingError as error:
        raise StackError(str(error)) from None
    except RedisError as error:
        raise StackError(f"the Redis of REDIS_URL does not answer ({type(error).__name__}); is it running?") from None
    finally:
        await client.aclose()


async def _until_ready(host: str, port: int) -> None:
    """Ask /readyz until it says yes."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - told apart, not bound
    while True:
        with contextlib.suppress(OSError, ValueError):
            reader, writer = await asyncio.open_connection(target, port)
            try:
                writer.write(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n")
                body = (await reader.read()).rpartition(b"\r\n\r\n")[2]
                if json.loads(body).get("status") == "ready":
                    return
            finally:
                writer.close()
        await asyncio.sleep(_LOOK_EVERY_S)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
