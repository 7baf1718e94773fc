"""The validating judge's text alignment as a scorer of engine builds: what compiling or rounding costs in meaning."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from post_train.rewards.base import Film, RewardError, scored
from post_train.rewards.diorama import TextAlignment
from post_train.rewards.judges import load_judge
from post_train.rewards.roles import Role


class AlignmentScorer:
    """See `engines.types.Scorer`; films of prompts that the Diorama world's judge can read."""

    name = "text alignment"

    def __init__(self) -> None:
        self._reward = TextAlignment(load_judge(Role.VALIDATION))

    def score(self, frames: Sequence[NDArray[np.uint8]], prompts: Sequence[str], *, fps: int) -> list[float]:
        """The share of what each prompt asks for that is seen; ValueError for a prompt that the judge cannot read."""
        films = [
            Film(name=f"film {index}", prompt=prompt, frames=film, fps=fps)
            for index, (film, prompt) in enumerate(zip(frames, prompts, strict=True))
        ]
        try:
            return [score.value for score in scored(self._reward, films)]
        except RewardError as error:
            raise ValueError(str(error)) from None
