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
    read_manifest,
    restore_optimizer,
    save_checkpoint,
)
from tests.post_train.full_disk import files_of_at_most


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


def test_a_full_disk_costs_no_checkpoint(tmp_path: Path) -> None:
    """What cannot be written whole is an error that names the step; the one before it stays, and no half is left."""
    save_checkpoint(tmp_path, _checkpoint(1))
    large = Checkpoint(step=2, tensors={"weights": {"a": torch.ones(10_000)}}, facts={"recipe": "r"})
    with files_of_at_most(4096), pytest.raises(CheckpointError, match="step 2 cannot be written"):
        save_checkpoint(tmp_path, large)
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]
    assert save_checkpoint(tmp_path, large).name == "step-2"


def test_a_whole_checkpoint_is_never_taken_away_to_write_it_anew(tmp_path: Path) -> None:
    """Saving a step twice, as a run that is resumed and stopped at once does, leaves the first at its place."""
    folder = save_checkpoint(tmp_path, _checkpoint(1))
    before = (folder / "weights.safetensors").stat()
    save_checkpoint(tmp_path, _checkpoint(1))
    assert (folder / "weights.safetensors").stat().st_ino == before.st_ino


def test_the_halves_of_killed_saves_are_swept(tmp_path: Path) -> None:
    """A kill before the rename leaves a part of another step; the next save removes it."""
    (tmp_path / "part-7").mkdir()
    (tmp_path / "part-7" / "weights.safetensors").write_bytes(b"torn")
    save_checkpoint(tmp_path, _checkpoint(8))
    assert [p.name for p in tmp_path.iterdir()] == ["step-8"]


def test_a_manifest_is_a_file_of_its_own(tmp_path: Path) -> None:
    """What a run says of its origin can be read without the tensors; a run that says nothing has none."""
    facts = {"recipe": "r", "manifest": {"parent": "p", "step": 3}}
    folder = save_checkpoint(tmp_path, Checkpoint(step=3, tensors={}, facts=facts))
    assert read_manifest(folder) == {"parent": "p", "step": 3}
    assert read_manifest(save_checkpoint(tmp_path, _checkpoint(4))) is None
