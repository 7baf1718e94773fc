"""The fine-tuned built-in model: of the weights, recipe and clips that ship; and a film that shows the prompt."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from engines.card import read_card
from engines.catalog import find_model
from post_train.data.diorama_clips import DioramaClips
from post_train.evaluation.arms import find_arm
from post_train.model_parts import model_digests
from tests.engines.weights.derived import assert_only_the_transformer_differs, assert_shows_what_was_asked_for

CURATED = Path(str(resources.files("post_train"))) / "recipes" / "diorama_curated.json"
FOLDER, PARENT = find_model("diorama-sft"), find_model("diorama")


def test_it_is_the_built_in_model_fine_tuned() -> None:
    """By its manifest, of the shipped weights and clips; every part but the transformer is the parent's to the byte."""
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    clips = DioramaClips.curated(CURATED)
    assert manifest["parent"] == model_digests(PARENT).whole
    assert (manifest["recipe"], manifest["step"]) == ("diorama-sft", manifest["recipe_content"]["loop"]["steps"])
    assert {k: manifest["data"][k] for k in ("clips", "seeds")} == {k: clips.describe()[k] for k in ("clips", "seeds")}
    assert_only_the_transformer_differs(FOLDER, PARENT)
    ours, theirs = read_card(FOLDER), read_card(PARENT)
    assert (ours.defaults, ours.limits) == (theirs.defaults, theirs.limits)


def test_an_evaluation_finds_it_by_its_stage() -> None:
    """`rushes evaluate sft base` compares these two folders."""
    assert find_arm("sft").folder == FOLDER
    assert find_arm("sft").digest != find_arm("base").digest


def test_a_film_shows_what_was_asked_for() -> None:
    """A judge finds the one object, its colour, and the place."""
    assert_shows_what_was_asked_for(FOLDER)
