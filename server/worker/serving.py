"""The child's life: load an engine, make batch after batch, write films, end with the supervisor. Imports no torch."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from engines.errors import EncodingFailed, EngineError
from engines.types import GenerationResult
from engines.video import write_video
from server.logs import configure_logging
from server.queue.request_document import VideoFormat
from server.worker.channel import ChildChannel
from server.worker.film_maker import Engine, FilmMaker
from server.worker.inbox import Inbox
from server.worker.wire import LoadFailed, Ready

_log = logging.getLogger(__name__)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def run_child(load: Callable[[str, int], Engine]) -> NoReturn:
    """Serve the socket and the model of the command line; `load(model, max_batch)` gives the engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--max-batch", type=int, default=1)
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    # Ends of service are the supervisor's decision, whoever else is signalled along with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    configure_logging(arguments.log_level, arguments.log_format)
    serve(ChildChannel(socket.socket(fileno=arguments.fd)), lambda: load(arguments.model, arguments.max_batch))


def serve(channel: ChildChannel, load: Callable[[], Engine]) -> NoReturn:
    """Load an engine, say so, and make batch after batch until the supervisor is gone; SystemExit if it cannot load."""
    inbox = Inbox(channel)
    try:
        engine = load()
    except (EngineError, ValueError, OSError) as error:
        _log.exception("the engine cannot be loaded")
        channel.send(LoadFailed(message=str(error)))
        raise SystemExit(1) from error
    channel.send(Ready())
    maker = FilmMaker(engine, write=write_film, is_cancelled=inbox.is_cancelled, report=channel.send)
    while True:
        maker.make(inbox.next_batch())


def write_film(path: Path, result: GenerationResult, video_format: VideoFormat) -> None:
    """Encode a result to a file; OSError when the disk refuses, EncodingFailed when the encoder does."""
    try:
        write_video(result.frames, path, fps=result.request.spec.fps, video_format=video_format)
    except EncodingFailed as error:
        number = getattr(error.__cause__, "errno", None)
        if number in _DISK_ERRORS:
            raise OSError(number, os.strerror(number)) from error
        raise
