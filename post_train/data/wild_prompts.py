"""Prompts from the captions of wild clips: what a model's own films are asked for in training."""

from __future__ import annotations

from post_train.data.diorama.parse import parse_prompt
from post_train.data.diorama.record import Split
from post_train.data.diorama.world import make_captions


def wild_prompts(first_seed: int, count: int, *, num_frames: int) -> list[str]:
    """Full captions of wild clips from `first_seed` on, each text once, those that a judge can read."""
    texts: dict[str, None] = {}
    seed = first_seed
    while len(texts) < count:
        text = make_captions(seed, num_frames=num_frames, split=Split.WILD).full.text
        if parse_prompt(text).readable:
            texts.setdefault(text)
        seed += 1
    return list(texts)
