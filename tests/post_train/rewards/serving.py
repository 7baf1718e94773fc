"""Real HTTP servers for the tests of remote rewards: the reference service, and one that answers as it is told."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import uvicorn

from post_train.rewards.base import Film, Reward
from post_train.rewards.service import app_of


def film(name: str = "a", *, seed: int = 0, side: int = 32) -> Film:
    """Eight frames of noise, with a prompt of its own."""
    frames = np.random.default_rng(seed).integers(0, 256, (8, side, side, 3)).astype(np.uint8)
    return Film(name=name, prompt=f"prompt of {name}", frames=frames, fps=8)


@contextmanager
def served(reward: Reward, *, shared: Path | None = None) -> Iterator[str]:
    """The reference service of `reward` on a free loopback port, as its address.

    Its socket listens before the server runs, so that no client comes too early.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app_of(reward, shared=shared), log_level="critical"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A server whose every response `answer` writes."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            answer(self)

        do_GET = _any  # noqa: N815  names that http.server looks for
        do_POST = _any  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, *, promised: int | None = None) -> None:
    """A whole response, or with `promised` bytes announced one that may break off."""
    handler.send_response(status)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", str(len(body) if promised is None else promised))
    handler.end_headers()
    handler.wfile.write(body)
