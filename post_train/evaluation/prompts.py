"""The prompts that models are compared on: named sets that no run trains on, or a person's own, a prompt a line.

Two named sets have clips of their own: `held_out` is for the figures that are published and nothing is chosen by it,
`validation` is for choices between runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from post_train.data.diorama.captions import captions_of
from post_train.data.diorama.compose import compose
from post_train.data.diorama.parse import parse_prompt
from post_train.data.diorama.record import Captions, Scene, Split
from post_train.evaluation.paraphrase import paraphrase

# Of clips that no run trains on; each set has room for a hundred million.
_FIRST_SEED = {"held_out": 3_000_000_000, "validation": 3_100_000_000}
_FRAMES = 17
NAMED_SETS = tuple(_FIRST_SEED)
MAX_PROMPT_CHARS = 500


class PromptKind(StrEnum):
    """How a prompt relates to what was trained on."""

    FAMILIAR = "familiar"  # a full caption whose object, action and ground were seen together
    COMPOSITION = "composition"  # a full caption with an object-action-ground triple that was never seen
    PARAPHRASE = "paraphrase"  # a full caption told in synonyms
    SHORT = "short"
    VAGUE = "vague"
    TYPED = "typed"  # out of a file


HEADLINE = frozenset({PromptKind.FAMILIAR, PromptKind.COMPOSITION, PromptKind.TYPED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt; `clip` is the seed of the scene it tells of, the same for a caption and its paraphrase."""

    text: str
    kind: PromptKind
    clip: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A prompt that is not scored, and why."""

    text: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSet:
    """What is compared on; `headline` are the prompts that the main figures are about."""

    name: str
    prompts: tuple[Prompt, ...]
    refused: tuple[Refused, ...] = ()

    @property
    def headline(self) -> tuple[Prompt, ...]:
        return tuple(p for p in self.prompts if p.kind in HEADLINE)


def load_prompts(source: str, count: int | None = None) -> PromptSet:
    """The named set `source`, or a text file with a prompt a line.

    `count` is the number of headline prompts: 300 of `held_out`, 100 of `validation` or all of a file when None. A
    named set adds a paraphrase of every fifth caption and a short and a vague text of every tenth. Raises ValueError
    for a count under 1, a file without prompts and a name that is neither.
    """
    if count is not None and count < 1:
        raise ValueError(f"the number of prompts must be at least 1, got {count}")
    if source in _FIRST_SEED:
        return _named(source, count or {"held_out": 300, "validation": 100}[source])
    return _typed(Path(source), count)


def _named(name: str, count: int) -> PromptSet:
    prompts: list[Prompt] = []
    for index in range(count):
        clip = _FIRST_SEED[name] + index
        kind = PromptKind.COMPOSITION if index % 2 else PromptKind.FAMILIAR
        prompts += _texts(clip, kind, index)
    return PromptSet(name=name, prompts=tuple(prompts))


def _texts(clip: int, kind: PromptKind, index: int) -> Iterator[Prompt]:
    """The full caption of a clip, and for some clips the other ways to tell of it."""
    scene, captions = scene_of(clip, kind)
    yield Prompt(text=captions.full.text, kind=kind, clip=clip)
    if index % 5 == 0:
        yield Prompt(text=paraphrase(np.random.default_rng((clip, 1)), scene), kind=PromptKind.PARAPHRASE, clip=clip)
    if index % 20 in {3, 14}:  # both a held-out composition and a familiar one
        short, vague = captions.short.text, captions.vague.text
        yield Prompt(text=short, kind=PromptKind.SHORT, clip=clip)
        yield Prompt(text=vague, kind=PromptKind.VAGUE, clip=clip)


def scene_of(clip: int, kind: PromptKind) -> tuple[Scene, Captions]:
    """The scene of an evaluation clip and its captions: a familiar composition, or one that is held out."""
    rng = np.random.default_rng((clip, 7))
    scene = compose(rng, _FRAMES, Split.CLEAN, held_out=kind is PromptKind.COMPOSITION)
    return scene, captions_of(rng, scene, careless=False)


def prompt_lines(path: Path) -> list[str]:
    """The lines of a text file, without empty ones and those that begin with #. ValueError where it is not UTF-8."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a text file in UTF-8; save it as one, with a prompt a line") from None
    return [line for line in lines if line and not line.startswith("#")]


def _typed(path: Path, count: int | None) -> PromptSet:
    if not path.is_file():
        raise ValueError(f"{path} is no prompt set ({', '.join(NAMED_SETS)}) and no file; name one of them")
    prompts: dict[str, Prompt] = {}
    refused: list[Refused] = []
    for line in prompt_lines(path):
        why = _why_not(line, prompts)
        if why is not None:
            refused.append(Refused(text=line[:MAX_PROMPT_CHARS], why=why))
        elif count is None or len(prompts) < count:
            prompts[line] = Prompt(text=line, kind=PromptKind.TYPED)
    if not prompts:
        told = f"; the first of {len(refused)}: {refused[0].text!r}: {refused[0].why}" if refused else ""
        raise ValueError(f"{path} has no prompt that can be scored{told}")
    return PromptSet(name=path.name, prompts=tuple(prompts.values()), refused=tuple(refused))


def _why_not(line: str, known: dict[str, Prompt]) -> str | None:
    """Why a typed prompt is not scored, or None."""
    if line in known:
        return "it is in the file already"
    if len(line) > MAX_PROMPT_CHARS:
        return f"it has {len(line)} characters; models take {MAX_PROMPT_CHARS}"
    parsed = parse_prompt(line)
    if parsed.unread:
        return f"not of this world: {', '.join(parsed.unread)}"
    return None if parsed.readable else "it asks for nothing that this world knows"
