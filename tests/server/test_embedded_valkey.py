"""The embedded Valkey keeps its data, its place and its promise not to be shared."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis.asyncio as redis
from redis.exceptions import ConnectionError as RedisConnectionError

from server.embedded_valkey import EmbeddedValkey, EmbeddedValkeyError
from server.queue.connection import connect
from server.state_folder import StateFolder, StateFolderInUseError
from tests.server.live import ROOT

pytestmark = pytest.mark.anyio


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateFolder]:
    """A locked state folder."""
    folder = StateFolder(tmp_path / "state")
    yield folder
    folder.close()


async def answer(client: redis.Redis) -> None:
    """Wait until the server answers again."""
    while True:
        try:
            await client.ping()
        except RedisConnectionError:
            await asyncio.sleep(0.02)
        else:
            return


async def test_it_answers_only_on_its_socket(state: StateFolder) -> None:
    """No TCP port is open, and nobody else on the machine may use the socket or read the data."""
    valkey = EmbeddedValkey(state)
    await valkey.start()
    try:
        assert valkey.pid is not None
        listening = psutil.Process(valkey.pid).net_connections(kind="inet")
        assert listening == []
        assert (state.path / "valkey" / "valkey.sock").stat().st_mode & 0o077 == 0
        assert (state.path / "valkey").stat().st_mode & 0o077 == 0
        assert state.path.stat().st_mode & 0o077 == 0
    finally:
        await valkey.stop()


async def test_a_killed_server_comes_back_with_every_acknowledged_write(state: StateFolder) -> None:
    """What was answered is on the disk, also in the server's first moments."""
    valkey = EmbeddedValkey(state)
    await valkey.start()
    client = connect(valkey.url, reply_timeout_s=10)
    try:
        for round_number in range(1, 4):
            for _ in range(50):
                count = await client.incr("count")
            assert count == round_number * 50
            assert valkey.pid is not None
            os.kill(valkey.pid, signal.SIGKILL)
            await answer(client)
        assert int(await client.get("count")) == 150
    finally:
        await client.aclose()
        await valkey.stop()


async def test_data_survive_a_stop(state: StateFolder) -> None:
    """The next start has what the last one had."""
    for expected in (1, 2):
        valkey = EmbeddedValkey(state)
        await valkey.start()
        client = connect(valkey.url, reply_timeout_s=10)
        assert await client.incr("count") == expected
        await client.aclose()
        await valkey.stop()


@pytest.mark.parametrize("name", ["a" * 120, "with space", "quote'\"", "per%20cent", "ünïcode"])
async def test_odd_and_long_folders(tmp_path: Path, name: str) -> None:
    """A path too long for a socket, or with characters of a URL or a configuration, works as well."""
    state = StateFolder(tmp_path / name)
    valkey = EmbeddedValkey(state)
    await valkey.start()
    client = connect(valkey.url, reply_timeout_s=10)
    socket = Path(client.connection_pool.connection_kwargs["path"])
    assert await client.ping()
    assert len(os.fsencode(socket)) <= 100
    await client.aclose()
    await valkey.stop()
    state.close()
    assert not socket.exists()  # noqa: ASYNC240 - nothing else runs in this loop


async def test_a_server_that_cannot_start_says_why(state: StateFolder) -> None:
    """Damaged data give one sentence that names the log."""
    valkey = EmbeddedValkey(state)
    (state.path / "valkey" / "appendonlydir").mkdir()
    (state.path / "valkey" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(EmbeddedValkeyError, match=r"valkey\.log"):
        await valkey.start(timeout_s=1.0)


def test_one_stack_a_folder(tmp_path: Path) -> None:
    """The second lock is refused with the holder's process id, and given once the first has gone."""
    first = StateFolder(tmp_path)
    with pytest.raises(StateFolderInUseError, match=rf"{os.getpid()}.*--state-dir"):
        StateFolder(tmp_path, patience_s=0)
    first.close()
    StateFolder(tmp_path, patience_s=0).close()


def test_the_lock_file_is_not_followed_elsewhere(tmp_path: Path) -> None:
    """A link in the lock's place is refused rather than written through."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "serve.lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        StateFolder(tmp_path / "state")
    assert victim.read_text() == "precious"


def test_it_dies_with_its_parent_and_holds_the_lock_till_then(tmp_path: Path) -> None:
    """After a SIGKILL of the parent no server is left, and the folder can be locked again with the data whole."""
    code = (
        "import asyncio, os, signal, sys; from pathlib import Path\n"
        "from server.embedded_valkey import EmbeddedValkey; from server.state_folder import StateFolder\n"
        "async def main():\n"
        "    valkey = EmbeddedValkey(StateFolder(Path(sys.argv[1]))); await valkey.start()\n"
        "    sys.stdout.write(f'{valkey.pid}\\n'); sys.stdout.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    StateFolder(tmp_path, patience_s=30).close()
    assert not psutil.pid_exists(int(done.stdout)) or psutil.Process(int(done.stdout)).status() == psutil.STATUS_ZOMBIE
