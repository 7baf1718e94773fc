"""How far films of one prompt lie apart: a figure of every run and evaluation, and a reward that keeps many films.

Rewards that look at one film cannot tell that its group lost something: a policy that leaves out what never costs a
point (clouds, a second layout) scores as well. The gradient of a group's mean distance is that of each film's own
distance to the others, so the distance is a reward like any other.

Legend: N films, D values of a film's layout.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from beartype import beartype
from jaxtyping import Float, jaxtyped
from numpy.typing import NDArray

_POOL = 8


def layouts(films: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Films uint8 [F, H, W, 3] as rows [N, D] of their means of 8x8 pixels, of full scale.

    The pooling leaves out noise and fine texture, so that only another layout, motion or colour makes films differ.
    """
    return np.stack([_pooled(film).reshape(-1) for film in films])


@jaxtyped(typechecker=beartype)
def novelties(layouts_ND: Float[np.ndarray, "N D"], size: int) -> Float[np.ndarray, " N"]:
    """Each film's mean distance to the others of its group; films come in groups of `size` >= 2.

    A distance is the root mean square difference of two layouts. The mean over a group's films is its diversity.
    """
    groups = layouts_ND.reshape(-1, size, layouts_ND.shape[1])
    return np.concatenate([_to_others(group) for group in groups])


def diversity(films: Sequence[NDArray[np.uint8]]) -> float:
    """The mean distance between two of the films uint8 [F, H, W, 3], at least two."""
    return float(novelties(layouts(films), len(films)).mean())


def _to_others(group: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean distance of each row to the others; a film at a time, for layouts of long films are large."""
    apart = [np.sqrt(((group - row) ** 2).mean(axis=1)) for row in group]
    return np.sum(apart, axis=1) / (len(group) - 1)


def _pooled(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[F, H / 8, W / 8, 3]; what is left over at the right and below is cut off."""
    count, height, width, _ = frames.shape
    rows, columns = max(1, height // _POOL), max(1, width // _POOL)
    inside = frames[:, : rows * (height // rows), : columns * (width // columns)].astype(np.float64) / 255
    return inside.reshape(count, rows, height // rows, columns, width // columns, 3).mean(axis=(2, 4))
