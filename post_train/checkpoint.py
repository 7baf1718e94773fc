"""Training state on disk: safetensors for every tensor, JSON for the rest, written whole or not at all.

A run folder holds `step-<n>` folders, each complete. A checkpoint is written under another name, flushed, and renamed,
so a process killed at any moment leaves the last complete one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

_NAME = re.compile(r"step-(\d+)")
_KEEP = 2


class CheckpointError(ValueError):
    """A checkpoint is missing, or does not belong to the run that wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped.

    `tensors` maps a group (`weights`, `average`, `optimizer`) to named tensors; `facts` is JSON: recipe hash, metrics,
    whatever the run wants to know of itself. Random numbers need no state: each step's come from (seed, step).
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    facts: dict[str, Any]


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [p for p in run.glob("step-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> Path:
    """Writes `checkpoint` into `run` atomically and drops all but the newest two; returns its folder."""
    run.mkdir(parents=True, exist_ok=True)
    part = run / f"part-{checkpoint.step}"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for group, tensors in checkpoint.tensors.items():
        save_file({k: v.contiguous() for k, v in tensors.items()}, part / f"{group}.safetensors")
        _flush(part / f"{group}.safetensors")
    facts = part / "facts.json"
    facts.write_text(json.dumps({"step": checkpoint.step, **checkpoint.facts}, indent=1, sort_keys=True))
    _flush(facts)
    final = run / f"step-{checkpoint.step}"
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
    _flush(run)
    for old in checkpoints(run)[:-_KEEP]:
        shutil.rmtree(old)
    return final


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads a checkpoint folder back; CheckpointError when it is incomplete."""
    facts_file = folder / "facts.json"
    if not facts_file.is_file():
        raise CheckpointError(f"{folder} is not a checkpoint: it has no facts.json; name a step-<n> folder of a run")
    facts = json.loads(facts_file.read_text())
    tensors = {p.stem: load_file(p) for p in sorted(folder.glob("*.safetensors"))}
    return Checkpoint(step=facts.pop("step"), tensors=tensors, facts=facts)


def latest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest complete checkpoint of a run, or None for a run that has none yet."""
    found = checkpoints(run)
    return load_checkpoint(found[-1]) if found else None


def optimizer_tensors(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Splits an optimizer's state_dict into named tensors and a JSON rest; `restore_optimizer` joins them again."""
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, slots in state["state"].items():
        for slot, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{slot}"] = value
            else:
                scalars.setdefault(str(index), {})[slot] = value
    return tensors, {"param_groups": state["param_groups"], "scalars": scalars}


def restore_optimizer(tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> dict[str, Any]:
    """The state_dict that `optimizer_tensors` split."""
    state: dict[int, dict[str, Any]] = {int(k): dict(v) for k, v in rest["scalars"].items()}
    for name, value in tensors.items():
        index, slot = name.split(".", 1)
        state.setdefault(int(index), {})[slot] = value.clone() if isinstance(value, torch.Tensor) else value
    return {"state": state, "param_groups": rest["param_groups"]}
