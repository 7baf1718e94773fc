"""What a fine-tuned model says of itself: its own name, and the size that it was trained at."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.card import read_card
from post_train.sft_export import fine_tuned_card


@pytest.mark.parametrize(
    ("geometry", "size"),
    [({"width": 48, "height": None, "num_frames": 13}, (48, 32, 13)), ({"width": None, "fps": None}, (32, 32, 9))],
)
def test_the_size_of_training_is_the_default(
    tiny_wan: Path, geometry: dict[str, int | None], size: tuple[int, ...]
) -> None:
    """What the recipe leaves open is the parent's, and so is everything else."""
    parent = read_card(tiny_wan)
    manifest = {"parent_name": "tiny-wan", "recipe": "continue", "recipe_content": {"geometry": geometry}}
    card = fine_tuned_card(parent, manifest)
    assert card.name == "tiny-wan-continue"
    assert (card.defaults.width, card.defaults.height, card.defaults.num_frames) == size
    assert (card.limits, card.defaults.flow_shift) == (parent.limits, parent.defaults.flow_shift)
