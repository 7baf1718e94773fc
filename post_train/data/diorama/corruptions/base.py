"""What a corruption is: a change of a clip whose harm is known, graded by a strength.

Legend: F frames, S side of the frame in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from post_train.data.diorama.record import Clip
from post_train.rewards.base import Dimension

Frames = NDArray[np.uint8]
Change = Callable[[Clip, float, np.random.Generator], Frames | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """A way to harm a clip. `hurts` are the dimensions on which the true clip must win.

    One that is `kept_out` serves measurement only: no judge may be trained on it.
    """

    name: str
    hurts: tuple[Dimension, ...]
    kept_out: bool
    change: Change

    def of(self, clip: Clip, strength: float, rng: np.random.Generator) -> Frames | None:
        """The harmed frames, uint8 [F, S, S, 3], a pure function of its arguments and of the state of `rng`.

        `strength` lies in (0, 1], ValueError otherwise. None where the clip has nothing that this corruption could
        harm: no coloured object for a wrong colour, no directed motion to be played backwards.
        """
        if not 0 < strength <= 1:
            raise ValueError(f"a corruption's strength lies in (0, 1], got {strength} for {self.name!r}")
        return self.change(clip, strength, rng)
