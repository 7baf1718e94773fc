"""The server's commands for the command line."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path
from typing import Annotated

import typer

from server.keys.file import read_keys
from server.logs import configure_logging
from server.settings import load_settings, unknown_variables
from server.stack import Stack

_log = logging.getLogger(__name__)


def serve(
    *,
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8000")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name of a model, or a folder in diffusers' layout.", show_default="diorama")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option(help="Redis or Valkey to use instead of the embedded Valkey; better: REDIS_URL.")
    ] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Folder for the queue's data and the videos.", show_default="./state")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes.", show_default="1")] = None,
    max_batch: Annotated[int | None, typer.Option(help="Most videos made together.", show_default="1")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.", show_default="info")] = None,
) -> None:
    """Start the whole server: queue, worker and gateway.

    Every option is also an environment variable, RUSHES_PORT and so on; server/settings.py has them all.
    """
    settings = load_settings(
        host=host,
        port=port,
        model=model,
        redis_url=redis_url,
        state_dir=state_dir,
        workers=workers,
        max_batch=max_batch,
        log_level=log_level,
    )
    configure_logging(settings.log_level, settings.log_format)
    if settings.api_keys_file is not None:
        read_keys(settings.api_keys_file)  # a fault in it is told now, before a model is loaded
    for sentence in unknown_variables():
        _log.warning("%s", sentence)

    async def run() -> None:
        stack = Stack(settings, typer.echo)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Who starts us with nohup, or in the background of a script, means us to go on.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, stack.stop)
        await stack.run()

    asyncio.run(run())
