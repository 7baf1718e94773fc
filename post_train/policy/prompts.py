"""The prompts that a policy is rolled out on, and those that it is validated on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from post_train.data.wild_prompts import wild_prompts
from post_train.evaluation.prompts import load_prompts, prompt_lines

DIORAMA = "diorama"
# Captions of wild clips behind those that base and fine-tuning learnt from; evaluation's are far away.
_FIRST_SEED = 400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPrompts:
    """Prompts in a fixed order, each once; `version` hashes them."""

    source: str
    texts: tuple[str, ...]

    @property
    def version(self) -> str:
        return hashlib.sha256("\n".join(self.texts).encode()).hexdigest()[:16]


def training_prompts(source: str, *, count: int, num_frames: int) -> PolicyPrompts:
    """`count` captions of the world (`diorama`), or all lines of a text file. ValueError where there are none."""
    texts = wild_prompts(_FIRST_SEED, count, num_frames=num_frames) if source == DIORAMA else _lines(Path(source))
    return PolicyPrompts(source=source, texts=tuple(texts))


def validation_prompts(source: str, count: int) -> tuple[str, ...]:
    """The world's validation captions (`diorama`), or the first lines of a text file."""
    if source == DIORAMA:
        return tuple(p.text for p in load_prompts("validation", count).headline)
    return tuple(_lines(Path(source))[:count])


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise ValueError(f"{path} is no file of prompts; name a text file with a prompt a line, or {DIORAMA}")
    found = list(dict.fromkeys(prompt_lines(path)))
    if not found:
        raise ValueError(f"{path} has no prompt; write one a line")
    return found
