"""The two sides of a comparison: from what a person calls a model to its folder, its card and its hash."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from engines.card import ModelCard, read_card
from post_train.evaluation.digests import folder_digest

# The weights that ship, by the stage that made them.
SHIPPED = {
    "base": "diorama",
    "sft": "diorama-sft",
    "grpo": "diorama-grpo",
    "student": "diorama-student",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One side: the name it was called by, its folder, its card, and the hash of its weights and configs."""

    name: str
    folder: Path
    card: ModelCard
    digest: str


def find_arm(name: str) -> Arm:
    """The arm of shipped weights by name, or of a model folder. Raises ValueError in a sentence for anything else."""
    folder = _folder_of(name)
    return Arm(name=name, folder=folder, card=read_card(folder), digest=folder_digest(folder))


def shipped_folder(name: str) -> Path:
    """Where the shipped weights `name` are or would be."""
    return Path(str(resources.files("engines"))) / "weights" / SHIPPED[name]


def _folder_of(name: str) -> Path:
    if name in SHIPPED:
        folder = shipped_folder(name)
        if not (folder / "model_index.json").is_file():
            raise ValueError(f"the weights {name!r} are not part of this installation: {folder} has none")
        return folder
    folder = Path(name).expanduser()
    if not (folder / "model_index.json").is_file():
        known = ", ".join(SHIPPED)
        raise ValueError(f"{name!r} is neither shipped weights ({known}) nor a model folder with a model_index.json")
    return folder.resolve()
