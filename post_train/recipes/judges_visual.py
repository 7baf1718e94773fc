"""The three judges of looks: one that rewards, one that validates, one held out; different in shape, data and seed."""

from __future__ import annotations

from dataclasses import dataclass

from post_train.algorithms.preference_training import PreferenceConfig
from post_train.data.preferences import Variety
from post_train.rewards.reader_blocks import Mixing
from post_train.rewards.roles import Role
from post_train.rewards.visual_network import VisualConfig
from post_train.trainer import LoopConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualRecipe:
    """A whole run of a judge of looks."""

    loop: LoopConfig
    preference: PreferenceConfig


_NETWORKS = {
    Role.REWARD: VisualConfig(mixing=Mixing.CONVOLUTION, fine=20, width=40, depth=2, heads=4),
    Role.VALIDATION: VisualConfig(mixing=Mixing.SHIFT, fine=24, width=40, depth=2, heads=4),
    Role.HELD_OUT: VisualConfig(mixing=Mixing.ATTENTION, fine=20, width=40, depth=2, heads=4),
}
_SIZE = {"side": 64, "num_frames": 17, "window": 5}
_VARIETIES = {
    Role.REWARD: Variety(**_SIZE, enlarged=0.2, local=0.5, by_models=0.25, held=0.3),
    Role.VALIDATION: Variety(**_SIZE, enlarged=0.3, local=0.4, by_models=0.2, held=0.3),
    Role.HELD_OUT: Variety(**_SIZE, enlarged=0.25, local=0.6, by_models=0.25, held=0.4),
}


def recipe(judge: Role) -> VisualRecipe:
    """The recipe of one judge: about ten minutes on one core with bf16 matrix units, compiled."""
    number = tuple(Role).index(judge)
    return VisualRecipe(
        loop=LoopConfig(
            seed=61 + number,
            steps=3500,
            lr=4e-3,
            warmup_steps=50,
            decay_steps=2800,
            final_lr=0.02,
            grad_clip=1.0,
            ema_decay=0.995,
            checkpoint_minutes=3,
            sample_every=1750,
            log_every=25,
        ),
        preference=PreferenceConfig(
            network=_NETWORKS[judge],
            variety=_VARIETIES[judge],
            clips=4,
            weight_decay=0.02,
            data_seed=600_000_000 + 50_000_000 * number,
        ),
    )
