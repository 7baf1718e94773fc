"""The whole server, run as a person runs it, with a tiny model that can be asked for long films too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.live import Stack


@pytest.fixture(scope="session")
def shared_stack(patient_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The session's `rushes serve`, with an embedded Valkey and one worker."""
    stack = Stack(model=patient_model, state_dir=tmp_path_factory.mktemp("state"), max_batch="1")
    yield stack
    stack.stop()


@pytest.fixture
def stack(shared_stack: Stack) -> Stack:
    """The session's stack with nothing running and its worker ready, whatever the last test did to it."""
    shared_stack.until_ready()
    return shared_stack
