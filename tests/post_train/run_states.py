"""Whether two runs ended in the same state, to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from post_train.checkpoint import checkpoints

GROUPS = ("weights", "average", "optimizer")
REMEMBERED = "task"


def assert_same_state(one: Path, two: Path) -> None:
    """The newest checkpoints of both run folders are of one step and hold the same tensors under the same names."""
    first, second = checkpoints(one)[-1], checkpoints(two)[-1]
    assert first.name == second.name
    memories = [json.loads((folder / "facts.json").read_text()).get(REMEMBERED) for folder in (first, second)]
    assert memories[0] == memories[1]
    remembered = (first / f"{REMEMBERED}.safetensors").is_file()
    for group in (*GROUPS, *([REMEMBERED] if remembered else [])):
        before, after = (load_file(folder / f"{group}.safetensors") for folder in (first, second))
        assert before.keys() == after.keys(), group
        assert all(torch.equal(value, after[name]) for name, value in before.items()), group
