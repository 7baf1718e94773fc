"""The gateway as a process of its own: `python -m server.api [--fd N]`, settings from the environment."""

from __future__ import annotations

import argparse
import logging
import socket
import sys

import uvicorn

from engines.errors import EngineError
from server.api.app import create_app
from server.api.http_protocol import HttpProtocol
from server.logs import configure_logging
from server.settings import load_settings

_STOP_WITHIN_S = 5


def main() -> None:
    """Serve until told to stop; a socket that a parent has bound comes as `--fd`."""
    arguments = argparse.ArgumentParser(prog="python -m server.api", description=__doc__)
    arguments.add_argument("--fd", type=int, help="descriptor of a listening socket, instead of host and port")
    given = arguments.parse_args()
    try:
        settings = load_settings()
        configure_logging(settings.log_level, settings.log_format)
        app = create_app(settings)
    except (ValueError, OSError, EngineError) as error:
        sys.exit(f"rushes gateway: {error}")
    # Its lines of a start say little that ours do not, and its warnings are about what clients send, which we log.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        http=HttpProtocol,
        loop="asyncio",
        timeout_graceful_shutdown=_STOP_WITHIN_S,
    )
    sockets = None if given.fd is None else [socket.socket(fileno=given.fd)]
    uvicorn.Server(config).run(sockets=sockets)


if __name__ == "__main__":
    main()
