"""The whole server, run as a person runs it, with a tiny model that can be asked for long films too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.live import Stack


@pytest.fixture(scope="session")
def patient_model(tiny_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a card that allows films long enough to be interrupted."""
    folder = tmp_path_factory.mktemp("models") / "patient"
    shutil.copytree(tiny_wan, folder)
    card = json.loads((folder / "rushes.json").read_text())
    card["limits"] |= {"max_steps": 200, "max_work": 96 * 96 * 33 * 200}
    (folder / "rushes.json").write_text(json.dumps(card))
    return folder


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
