"""The built-in model at another size: its parent with another transformer, and a film that shows the prompt."""

from __future__ import annotations

import json

import torch

from engines.card import read_card
from engines.catalog import find_model
from engines.engine import load_engine
from engines.types import GenerationResult
from post_train.films import FilmOrder, request_of
from post_train.model_parts import model_digests
from post_train.rewards.judges import load_judge

FOLDER, PARENT = find_model("diorama-128"), find_model("diorama")


def test_it_is_the_built_in_model_trained_further() -> None:
    """By its manifest, of the weights that ship; every part but the transformer is the parent's, byte for byte."""
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    assert manifest["parent"] == model_digests(PARENT).whole
    assert manifest["size"] == "128x128x17 at 8 fps"
    for path in PARENT.rglob("*"):
        part = path.relative_to(PARENT)
        if path.is_file() and part.parts[0] in {"vae", "text_encoder", "tokenizer", "scheduler"}:
            assert (FOLDER / part).read_bytes() == path.read_bytes()
    ours, theirs = read_card(FOLDER).defaults, read_card(PARENT).defaults
    assert (ours.width, ours.height) == (128, 128) != (theirs.width, theirs.height)


def test_a_film_at_its_size_shows_what_was_asked_for() -> None:
    """A judge finds the one object, its colour, and the place."""
    engine = load_engine(FOLDER, backend="fused")
    torch.set_num_threads(1)
    order = FilmOrder(name="film", prompt="A red sphere rolls leftward on green grass under a pink dawn sky.", seed=0)
    events = engine.generate([request_of(engine.card, order)])
    (film,) = [event for event in events if isinstance(event, GenerationResult)]
    assert film.frames.shape == (17, 128, 128, 3)
    (reading,) = load_judge("validation").read([film.frames])
    assert [(seen.name, seen.colour) for seen in reading.objects] == [("ball", "red")]
    assert (reading.ground, reading.sky) == ("meadow", "dawn")
