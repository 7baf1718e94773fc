"""What holds of every built-in model that was trained further from another."""

from __future__ import annotations

from pathlib import Path

import torch

from engines.engine import load_engine
from engines.types import GenerationResult
from post_train.films import FilmOrder, request_of
from post_train.rewards.judges import load_judge


def assert_only_the_transformer_differs(folder: Path, parent: Path) -> None:
    """VAE, text encoder, tokenizer and scheduler are the parent's, byte for byte."""
    for path in parent.rglob("*"):
        part = path.relative_to(parent)
        if path.is_file() and part.parts[0] in {"vae", "text_encoder", "tokenizer", "scheduler"}:
            assert (folder / part).read_bytes() == path.read_bytes()


def assert_shows_what_was_asked_for(folder: Path) -> GenerationResult:
    """A judge finds the one object, its colour, and the place in a film, which is returned."""
    engine = load_engine(folder, backend="fused")
    torch.set_num_threads(1)
    order = FilmOrder(name="film", prompt="A red sphere rolls leftward on green grass under a pink dawn sky.", seed=0)
    events = engine.generate([request_of(engine.card, order)])
    (film,) = [event for event in events if isinstance(event, GenerationResult)]
    (reading,) = load_judge("validation").read([film.frames])
    assert [(seen.name, seen.colour) for seen in reading.objects] == [("ball", "red")]
    assert (reading.ground, reading.sky) == ("meadow", "dawn")
    return film
