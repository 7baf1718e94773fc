"""What the README says to type works as it is written: the server, the requests, and one film without a server."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from tests.contracts.sources import ROOT

_TIMEOUT = 400
_NOT_RUN_HERE = {"make test"}  # it is what runs this test


def _blocks() -> list[str]:
    return re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def _only(pattern: str) -> str:
    found = [b.strip() for b in _blocks() if re.search(pattern, b)]
    assert len(found) == 1, f"the README has {len(found)} blocks with {pattern!r}"
    return found[0]


def _bash(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-ec", script], check=False, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT - 60
    )


def _frames(path: Path) -> int:
    with av.open(str(path)) as film:
        return sum(1 for _ in film.decode(video=0))


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def served(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The README's `make serve`, on a port and a state folder of its own."""
    environment = {
        **os.environ,
        "RUSHES_PORT": str(port),
        "RUSHES_STATE_DIR": str(tmp_path_factory.mktemp("state")),
    }
    command = _only(r"^make serve")
    server = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert server.stdout is not None
    said = []
    try:
        for line in server.stdout:
            said.append(line)
            if line.startswith("ready:"):
                break
        else:
            pytest.fail("the server ended before it was ready:\n" + "".join(said[-20:]))
        yield port
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.communicate(timeout=60)


@pytest.mark.timeout(_TIMEOUT)
def test_the_requests_make_a_film(served: int, tmp_path: Path) -> None:
    """The curl lines, pasted as they stand, end with an mp4 of the model's own length."""
    script = _only(r"curl .*/generate").replace("127.0.0.1:8000", f"127.0.0.1:{served}")
    done = _bash(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "event: succeeded" in done.stdout, done.stdout
    assert _frames(tmp_path / "film.mp4") == 17


@pytest.mark.timeout(_TIMEOUT)
def test_one_film_without_a_server(tmp_path: Path) -> None:
    """`make generate` writes the film where it was told to."""
    command = _only(r"^make generate").replace("OUT=film.mp4", f"OUT={tmp_path / 'film.mp4'}")
    done = _bash(command, ROOT)
    assert done.returncode == 0, done.stderr
    assert _frames(tmp_path / "film.mp4") == 17


def test_every_block_is_run() -> None:
    """No `sh` block of the README escapes these tests, but for the one that runs them."""
    run = (r"^make serve", r"curl .*/generate", r"^make generate")
    for block in _blocks():
        assert block.strip() in _NOT_RUN_HERE or any(re.search(p, block) for p in run), block


def test_every_link_leads_somewhere() -> None:
    """Files that the README names are in the repository."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
