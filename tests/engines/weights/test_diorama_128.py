"""The built-in model at another size: its parent with another transformer, and a film that shows the prompt."""

from __future__ import annotations

import json

from engines.card import read_card
from engines.catalog import find_model
from post_train.model_parts import model_digests
from tests.engines.weights.derived import assert_only_the_transformer_differs, assert_shows_what_was_asked_for

FOLDER, PARENT = find_model("diorama-128"), find_model("diorama")


def test_it_is_the_built_in_model_trained_further() -> None:
    """By its manifest, of the weights that ship; every part but the transformer is the parent's, byte for byte."""
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    assert manifest["parent"] == model_digests(PARENT).whole
    assert manifest["size"] == "128x128x17 at 8 fps"
    assert_only_the_transformer_differs(FOLDER, PARENT)
    ours, theirs = read_card(FOLDER).defaults, read_card(PARENT).defaults
    assert (ours.width, ours.height) == (128, 128) != (theirs.width, theirs.height)


def test_a_film_at_its_size_shows_what_was_asked_for() -> None:
    """A judge finds the one object, its colour, and the place."""
    film = assert_shows_what_was_asked_for(FOLDER)
    assert film.frames.shape == (17, 128, 128, 3)
