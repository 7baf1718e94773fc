"""Fixtures that every part's tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A suite in the background of a script inherits this, and would hand it on to the servers that it interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Before anything loads torch: tests share the host, often with other tests, and small models gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Triton asks when it is imported, its own library too, and any test's module may be the first that does. What is to be
# compiled is, in processes of its own; `make gpu-check` says 0.
os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The queue is promised on more servers than the one that comes with rushes; each can be put to the same tests."""
    parser.addoption("--redis-server", type=Path, help="a Redis or Valkey binary to test the queue on, not our own")


@pytest.fixture(scope="session")
def tiny_wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Wan with a model card; read only, shared by the whole session."""
    from tests.tiny_wan import save_tiny_wan

    return save_tiny_wan(tmp_path_factory.mktemp("models") / "tiny-wan")


@pytest.fixture
def make_tiny_wan(tmp_path: Path) -> Callable[[int], Path]:
    """Make a tiny Wan of one's own, to break or to change; called with a seed, it returns the folder."""
    from tests.tiny_wan import save_tiny_wan

    return lambda seed: save_tiny_wan(tmp_path / f"tiny-wan-{seed}", seed=seed)
