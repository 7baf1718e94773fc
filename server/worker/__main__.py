"""`python -m server.worker`: one worker, until SIGTERM drains it; a second SIGTERM gives its jobs back at once."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import secrets
import signal
import socket
import sys
from pathlib import Path

from server.artifacts.filesystem import FilesystemArtifacts, StorageError
from server.logs import configure_logging
from server.queue.client import JobQueue
from server.queue.connection import connect
from server.queue.records import require_name
from server.worker.batch_run import Pace
from server.worker.supervisor import EngineLoadError, Supervisor, WorkerConfig

_log = logging.getLogger(__name__)


def main(runner: str = "server.worker.runner", queue_type: type[JobQueue] = JobQueue) -> None:
    """Run a worker with `runner` as its child's module; exit code 1 and one sentence when it will never work."""
    arguments = _parser().parse_args()
    configure_logging(arguments.log_level, arguments.log_format)
    try:
        asyncio.run(_work(arguments, runner, queue_type))
    except (EngineLoadError, WorkerSettingError) as error:
        sys.exit(f"worker: {error}")


class WorkerSettingError(ValueError):
    """An argument cannot be used; the message says which and why."""


async def _work(arguments: argparse.Namespace, runner: str, queue_type: type[JobQueue]) -> None:
    if not arguments.redis_url:
        raise WorkerSettingError("no Redis is named; give --redis-url or set REDIS_URL")
    try:
        client = connect(arguments.redis_url, allow_without_password=arguments.allow_passwordless_redis)
        queue = queue_type(client, pool=arguments.pool, lease_s=arguments.lease, retention_s=arguments.retention)
        artifacts = FilesystemArtifacts(arguments.artifacts)
        config = _config(arguments)
    except (ValueError, StorageError) as error:
        raise WorkerSettingError(str(error)) from error
    supervisor = Supervisor(config, queue=queue, artifacts=artifacts, child_command=_child_command(arguments, runner))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.drain)
    try:
        await supervisor.run()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            # Until the process has gone: a second signal in the last moment must not kill a worker that drained well.
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
        await client.aclose()


def _config(arguments: argparse.Namespace) -> WorkerConfig:
    if not 1 <= arguments.max_batch <= 64:
        raise WorkerSettingError(f"--max-batch is {arguments.max_batch}; use 1 to 64")
    if not 1 <= arguments.lease <= 3600:
        raise WorkerSettingError(f"--lease is {arguments.lease:g} seconds; use 1 to 3600")
    return WorkerConfig(
        worker_id=require_name(arguments.worker_id or _made_up_id(), "worker id"),
        model=arguments.model,
        max_batch=arguments.max_batch,
        # Four chances in a lease, so that one or two that find Redis away cost nothing.
        pace=Pace(renew_s=arguments.lease / 4),
        drain_s=arguments.drain_timeout,
        stall_floor_s=arguments.stall_floor,
        patience_s=arguments.stall_patience,
    )


def _child_command(arguments: argparse.Namespace, runner: str) -> list[str]:
    logs = ["--log-level", arguments.log_level, "--log-format", arguments.log_format]
    engine = ["--model", arguments.model, "--max-batch", str(arguments.max_batch)]
    return [sys.executable, "-m", runner, *engine, *logs]


def _made_up_id() -> str:
    host = re.sub(r"[^A-Za-z0-9]+", "-", socket.gethostname().split(".")[0]).strip("-")[:32]
    return f"{host or 'worker'}-{os.getpid()}-{secrets.token_hex(3)}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m server.worker", description=__doc__)
    add = parser.add_argument
    add("--model", required=True, help="a model's name or the folder of a pipeline")
    add("--redis-url", default=os.environ.get("REDIS_URL"), help="default: the environment's REDIS_URL")
    add("--allow-passwordless-redis", action="store_true", help="accept a Redis beyond loopback without a password")
    add("--pool", default="default", help="the queue's pool; all its workers serve one model")
    add("--artifacts", type=Path, required=True, help="folder for the finished films of this pool")
    add("--worker-id", help="default: made of host, process and chance")
    add("--max-batch", type=int, default=1, help="most films of one shape that are made together")
    add("--lease", type=float, default=6.0, help="seconds until a worker that falls silent loses its films")
    add("--retention", type=float, default=86400.0, help="seconds that a finished job and its film are kept")
    add("--drain-timeout", type=float, default=8.0, help="seconds that running films have after SIGTERM")
    add("--stall-floor", type=float, default=30.0, help="least seconds without a step that count as a hang")
    add("--stall-patience", type=float, default=600.0, help="the same for first steps, decoding and writing")
    add("--log-level", default="info")
    add("--log-format", choices=("text", "json"), default="text")
    return parser


if __name__ == "__main__":
    main()
