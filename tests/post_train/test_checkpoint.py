"""Checkpoints are whole or absent, and hold everything back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from post_train.checkpoint import (
    Checkpoint,
    CheckpointError,
    checkpoints,
    latest_checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)


def _checkpoint(step: int) -> Checkpoint:
    return Checkpoint(step=step, tensors={"weights": {"a": torch.full((3,), float(step))}}, facts={"recipe": "r"})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    """Step, tensors and facts survive, and the newest is found."""
    for step in (1, 20, 3):
        save_checkpoint(tmp_path, _checkpoint(step))
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 20
    assert torch.equal(found.tensors["weights"]["a"], torch.full((3,), 20.0))
    assert found.facts == {"recipe": "r"}


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    """A run's folder does not grow with its length."""
    for step in range(1, 6):
        save_checkpoint(tmp_path, _checkpoint(step))
    assert [p.name for p in checkpoints(tmp_path)] == ["step-4", "step-5"]


def test_half_a_checkpoint_is_not_seen(tmp_path: Path) -> None:
    """What a killed process left under its working name is ignored, and replaced by the next save."""
    save_checkpoint(tmp_path, _checkpoint(1))
    (tmp_path / "part-2").mkdir()
    (tmp_path / "part-2" / "weights.safetensors").write_bytes(b"torn")
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    save_checkpoint(tmp_path, _checkpoint(2))
    assert not (tmp_path / "part-2").exists()


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    """The error says what is missing."""
    with pytest.raises(CheckpointError, match=r"no facts\.json"):
        load_checkpoint(tmp_path)


def test_optimizer_state_round_trips() -> None:
    """Tensors and numbers of torch's AdamW come back as they were."""
    p = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.AdamW([p], lr=0.1)
    p.sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    restored = restore_optimizer(*optimizer_tensors(state))
    assert restored["param_groups"] == state["param_groups"]
    assert all(torch.equal(restored["state"][0][k], v) for k, v in state["state"][0].items())
