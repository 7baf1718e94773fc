"""Starting workers, and ending them when the test does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.worker.harness import Worker


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    """The workers' common folder of films."""
    return tmp_path / "artifacts"


@pytest.fixture
def start_worker(redis_url: str, artifacts: Path) -> Iterator[Callable[..., Worker]]:
    """Start a worker on the test's queue; by default one whose engine sleeps."""
    workers: list[Worker] = []

    def start(**options: Any) -> Worker:
        workers.append(Worker(redis_url=redis_url, artifacts=artifacts, **options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()
