"""A supervised child comes back when it dies, ends when told, and goes down with its parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from server.supervised import ChildSpec, Supervised
from server.tied_process import tied
from tests.server.live import ROOT

pytestmark = pytest.mark.anyio
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True); time.sleep(600)",
]


async def test_a_dead_child_is_started_again() -> None:
    """Each death is told with its number, and another process takes the place."""
    deaths: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
    child = Supervised(ChildSpec(name="sleeper", argv=SLEEPER), lambda code, count: deaths.put_nowait((code, count)))
    await child.start()
    seen = set()
    try:
        for number in (1, 2):
            assert child.pid is not None
            seen.add(child.pid)
            child.signal(signal.SIGKILL)
            assert await deaths.get() == (-signal.SIGKILL, number)
            while child.pid is None:  # noqa: ASYNC110 - the child tells nobody that it is back
                await asyncio.sleep(0.01)
        assert child.pid not in seen
    finally:
        await child.stop(grace_s=10)
    assert child.pid is None


async def test_a_child_that_will_not_end_is_killed() -> None:
    """SIGTERM first, SIGKILL after the grace, and no restart."""
    reader, writer = os.pipe()
    child = Supervised(ChildSpec(name="stubborn", argv=STUBBORN, output=writer))
    await child.start()
    os.close(writer)
    assert await asyncio.to_thread(os.read, reader, 2) == b"up"
    pid = child.pid
    assert pid is not None
    await child.stop(grace_s=0.2)
    assert not psutil.pid_exists(pid)
    assert os.read(reader, 100).strip() == b""
    os.close(reader)


async def test_a_child_that_is_told_to_stop_while_it_is_down() -> None:
    """Stopping between a death and the next start leaves nothing behind."""
    deaths: asyncio.Queue[int] = asyncio.Queue()
    child = Supervised(ChildSpec(name="brief", argv=[sys.executable, "-c", ""]), lambda *_: deaths.put_nowait(1))
    await child.start()
    await deaths.get()
    await child.stop(grace_s=1)
    assert child.pid is None


@pytest.mark.parametrize("death_signal", [signal.SIGTERM, signal.SIGKILL])
def test_a_tied_process_goes_down_with_its_parent(tmp_path: Path, death_signal: signal.Signals) -> None:
    """The kernel tells it, however suddenly the parent died."""
    code = (
        "import os, signal, subprocess, sys, time; from server.tied_process import tied\n"
        f"child = subprocess.Popen(tied([sys.executable, '-c', 'import time; time.sleep(600)'],"
        f" death_signal=signal.Signals({int(death_signal)})))\n"
        # The launcher has become the program once the command line shows it.
        "path = f'/proc/{child.pid}/cmdline'\n"
        "while 'tied_process' in open(path).read(): time.sleep(0.01)\n"
        "print(child.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(30)


def test_an_orphan_does_not_start() -> None:
    """A parent that died before the tie was made is noticed."""
    argv = tied(SLEEPER, death_signal=signal.SIGTERM)
    argv[argv.index(str(os.getpid()))] = "1"
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "parent" in done.stderr
