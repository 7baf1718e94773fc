"""How far the films of a group lie apart: a figure of every run, and the reward that keeps a policy from one film.

Rewards that look at one film cannot tell that its group lost something: a policy that leaves out what never costs a
point (clouds, a second layout) scores as well. The gradient of a group's mean distance is that of each film's own
distance to the others, so the distance is a reward like any other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from beartype import beartype
from jaxtyping import Float, jaxtyped
from numpy.typing import NDArray

from post_train.evaluation.comparison import pooled


def layouts(films: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Films uint8 [F, H, W, 3] as rows of their means of 8x8 pixels: what evaluations measure diversity on."""
    return np.stack([pooled(film).reshape(-1) for film in films])


@jaxtyped(typechecker=beartype)
def novelties(layouts_ND: Float[np.ndarray, "N D"], size: int) -> Float[np.ndarray, " N"]:
    """Each film's mean distance (root mean square) to the others of its group; films come in groups of `size` >= 2."""
    groups = layouts_ND.reshape(-1, size, layouts_ND.shape[1])
    apart = np.stack([np.sqrt(((groups - groups[:, [i]]) ** 2).mean(axis=2)) for i in range(size)], axis=1)
    return apart.sum(axis=2).reshape(-1) / (size - 1)
