"""Films of held-out captions by the serving engine: what a training run draws, and the README's picture.

`python -m post_train.held_out_sheet OUT.png [MODEL]` draws twelve of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engines.catalog import find_model
from engines.engine import load_engine
from post_train.contact_sheet import write_sheet
from post_train.data.diorama.world import make_clip
from post_train.films import FilmOrder, draw_films

_FIRST_SEED = 2_000_000_000  # of clips that no run trains on


def held_out_prompts(count: int) -> list[str]:
    """Full captions of clips that no run trains on, in seed order, none picked."""
    return [make_clip(_FIRST_SEED + i, side=32).captions.full.text for i in range(count)]


def held_out_films(model: Path, count: int) -> list[tuple[str, NDArray[np.uint8]]]:
    """(prompt, frames uint8 [F, H, W, 3]) with the model's own defaults and seeds 0, 1, 2, ..."""
    engine = load_engine(model)
    orders = [FilmOrder(name=str(i), prompt=p, seed=i) for i, p in enumerate(held_out_prompts(count))]
    return [(order.prompt, film.frames) for order, film in draw_films(engine, orders, batch=count)]


if __name__ == "__main__":
    if len(sys.argv) not in {2, 3}:
        sys.exit("usage: python -m post_train.held_out_sheet OUT.png [MODEL]")
    write_sheet(Path(sys.argv[1]), held_out_films(find_model(sys.argv[-1] if len(sys.argv) == 3 else "diorama"), 12))
