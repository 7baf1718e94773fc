"""What each of the three judges may be used for."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """`reward` trains policies; `validation` chooses between runs and when to stop; by `held-out` nothing is chosen."""

    REWARD = "reward"
    VALIDATION = "validation"
    HELD_OUT = "held-out"
