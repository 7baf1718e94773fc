"""Wires the trained judges of a role into the three rewards that an evaluation needs."""

from __future__ import annotations

from post_train.evaluation.scoring import Judges
from post_train.rewards.roles import Role


def load_judges(role: str) -> Judges:
    """The shipped judges of a role (`held_out`, `validation`, `reward`). ValueError when one is absent."""
    known = {r.value.replace("-", "_"): r for r in Role}
    if role.replace("-", "_") not in known:
        raise ValueError(f"judge {role!r} is unknown; use {', '.join(known)}")
    chosen = known[role.replace("-", "_")]
    from post_train.rewards.diorama import TextAlignment  # noqa: PLC0415  these load torch
    from post_train.rewards.judges import load_judge  # noqa: PLC0415
    from post_train.rewards.motion import MotionQuality  # noqa: PLC0415
    from post_train.rewards.visual import VisualQuality  # noqa: PLC0415

    judge = load_judge(chosen)
    return Judges(
        role=chosen.value.replace("-", "_"),
        rewards=(TextAlignment(judge), MotionQuality(judge), VisualQuality(chosen.value)),
    )
