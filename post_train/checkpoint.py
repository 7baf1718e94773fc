"""Training state on disk: safetensors for every tensor, JSON for the rest, written whole or not at all.

A run folder holds `step-<n>` folders, each complete. A checkpoint is written under another name, flushed, and renamed,
so a process killed at any moment leaves the last complete one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from engines.whole_writes import flush

MANIFEST = "manifest.json"
AVERAGE = "average.safetensors"
"""The averaged weights of a checkpoint, whole tensors in fp32."""
_NAME = re.compile(r"step-(\d+)")
_KEEP = 2


class CheckpointError(ValueError):
    """A checkpoint is missing, or does not belong to the run that wants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped.

    `tensors` maps a group (`weights`, `average`, `optimizer`) to named tensors; `facts` is JSON: recipe hash, metrics,
    whatever the run wants to know of itself; its `manifest`, where there is one, is also written as manifest.json for
    people. Random numbers need no state: each step's come from (seed, step).
    """

    step: int
    tensors: dict[str, dict[str, Tensor]]
    facts: dict[str, Any]


def checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = [p for p in run.glob("step-*") if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(p.name.removeprefix("step-")))


def save_checkpoint(run: Path, checkpoint: Checkpoint) -> Path:
    """Writes `checkpoint` into `run` atomically and drops all but the newest two; returns its folder."""
    final = run / f"step-{checkpoint.step}"
    if (final / "facts.json").is_file():
        # It is complete, or it would not have this name, and a step's state is a function of the recipe. Replacing it
        # would leave a moment without any checkpoint.
        return final
    run.mkdir(parents=True, exist_ok=True)
    for torn in run.glob("part-*"):
        shutil.rmtree(torn, ignore_errors=True)
    part = run / f"part-{checkpoint.step}"
    try:
        _write_parts(part, checkpoint)
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise CheckpointError(
            f"the checkpoint of step {checkpoint.step} cannot be written to {run}: {error}; those before it are intact"
        ) from error
    flush(run)
    for old in checkpoints(run)[:-_KEEP]:
        shutil.rmtree(old)
    return final


def _write_parts(part: Path, checkpoint: Checkpoint) -> None:
    part.mkdir()
    for group, tensors in checkpoint.tensors.items():
        save_file({k: v.contiguous() for k, v in tensors.items()}, part / f"{group}.safetensors")
        flush(part / f"{group}.safetensors")
    facts = {"step": checkpoint.step, **checkpoint.facts}
    texts = {"facts.json": facts} | ({MANIFEST: facts["manifest"]} if "manifest" in facts else {})
    for name, content in texts.items():
        (part / name).write_text(json.dumps(content, indent=1, sort_keys=True))
        flush(part / name)
    flush(part)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads a checkpoint folder back; CheckpointError when it is incomplete."""
    facts_file = folder / "facts.json"
    if not facts_file.is_file():
        raise CheckpointError(f"{folder} is not a checkpoint: it has no facts.json; name a step-<n> folder of a run")
    facts = json.loads(facts_file.read_text())
    tensors = {p.stem: load_file(p) for p in sorted(folder.glob("*.safetensors"))}
    return Checkpoint(step=facts.pop("step"), tensors=tensors, facts=facts)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What a checkpoint says of its origin, or None for one of a run that has nothing to say."""
    path = folder / MANIFEST
    return json.loads(path.read_text()) if path.is_file() else None


def check_unused(run: Path, *, resume: bool) -> None:
    """CheckpointError when the folder holds a run that nobody asked to go on with."""
    if checkpoints(run) and not resume:
        raise CheckpointError(f"{run} holds a run; go on with it by --resume, or name another folder")


def check_continues(
    run: Path, now: dict[str, Any], facts: Mapping[str, Callable[[dict[str, Any]], str]], *, shown: int = 12
) -> None:
    """CheckpointError that tells what differs when the folder holds a run of another manifest than `now`.

    `facts` are what must agree, each read off a manifest; of one that does not so many characters are shown.
    """
    found = checkpoints(run)
    before = read_manifest(found[-1]) if found else None
    if before is None:
        return
    pairs = {what: (read(before), read(now)) for what, read in facts.items()}
    differ = [f"{what} {old[:shown]}, now {new[:shown]}" for what, (old, new) in pairs.items() if old != new]
    if differ:
        raise CheckpointError(
            f"{run} holds a run with {'; '.join(differ)}; resume with what it was begun with, or name another folder"
        )


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
