"""The engine's process as its supervisor holds it: started, spoken to, killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Sequence

from server.tied_process import tied
from server.worker.channel import SupervisorChannel
from server.worker.wire import CancelJob, Order, Report, RunBatch, WireError

# The engine has no business with the queue, so it is not given the key to it.
_SECRETS = ("REDIS_URL", "RUSHES_REDIS_URL")


class Child:
    """One engine process; it dies with the supervisor."""

    def __init__(self, process: asyncio.subprocess.Process, channel: SupervisorChannel) -> None:
        self._process = process
        self._channel = channel

    @classmethod
    async def start(cls, command: Sequence[str]) -> Child:
        """Start `command` with `--fd N`, the number of the socket that it is to speak through."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                *tied([*command, "--fd", str(theirs.fileno())], death_signal=signal.SIGKILL),
                env={name: value for name, value in os.environ.items() if name not in _SECRETS},
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                # A session of its own: Ctrl-C in a terminal is for the supervisor to act on.
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, await SupervisorChannel.over(ours))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended yet."""
        return self._process.returncode is None

    async def send(self, order: Order) -> None:
        """Give an order."""
        await self._channel.send(order)

    async def receive(self) -> Report | None:
        """The next report, or None when the child has ended; WireError when it does not speak our language."""
        message = await self._channel.receive()
        if isinstance(message, RunBatch | CancelJob):
            raise WireError(f"the child sent a {type(message).__name__}, which is ours to send")
        return message

    async def kill(self) -> int:
        """End the process now, frozen or not; its return code."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._channel.close()
        return await self._process.wait()
