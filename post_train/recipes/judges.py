"""The three judges: one rewards, one validates, one is held out; no two share seed, architecture or disturbances."""

from __future__ import annotations

from dataclasses import dataclass, replace

from post_train.algorithms.judge_training import JudgeConfig, Shape
from post_train.algorithms.judge_training_looks import Looks
from post_train.algorithms.judge_training_round_trips import RoundTripConfig
from post_train.rewards.reader import ReaderConfig
from post_train.rewards.reader_blocks import Mixing
from post_train.rewards.roles import Role
from post_train.trainer import LoopConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeRecipe:
    """A whole judge's run."""

    role: Role
    loop: LoopConfig
    judge: JudgeConfig


_SHAPES = (
    Shape(side=64, num_frames=17, share=0.94),
    Shape(side=64, num_frames=9, share=0.03),
    Shape(side=64, num_frames=33, share=0.03),
)
_LOOP = LoopConfig(
    seed=41,
    steps=1250,
    lr=4e-3,
    warmup_steps=50,
    decay_steps=950,
    final_lr=0.02,
    grad_clip=2.0,
    ema_decay=0.99,
    checkpoint_minutes=3,
    sample_every=400,
    log_every=20,
)


def _reward() -> JudgeRecipe:
    return JudgeRecipe(
        role=Role.REWARD,
        loop=_LOOP,
        judge=JudgeConfig(
            reader=ReaderConfig(
                mixing=Mixing.CONVOLUTION, fine=40, width=96, depth=4, heads=1, fine_blocks=1, change_reach=2
            ),
            shapes=_SHAPES,
            batch=32,
            looks=Looks(blur=0.2, rescale=0.2, jpeg=0.15, noise=0.2, light=0.4, round_trips=0.25),
            round_trips=RoundTripConfig(first_seed=1_000_000_000, clips=512, side=64, num_frames=17),
            weight_decay=1e-2,
            data_seed=1_100_000_000,
        ),
    )


def _validation() -> JudgeRecipe:
    reward = _reward()
    return JudgeRecipe(
        role=Role.VALIDATION,
        loop=replace(_LOOP, seed=43, lr=3e-3),
        judge=replace(
            reward.judge,
            reader=ReaderConfig(
                mixing=Mixing.ATTENTION, fine=40, width=96, depth=3, heads=4, fine_blocks=2, change_reach=3
            ),
            looks=Looks(blur=0.3, rescale=0.1, jpeg=0.2, noise=0.1, light=0.5, round_trips=0.25),
            round_trips=replace(reward.judge.round_trips, first_seed=1_300_000_000),
            data_seed=1_400_000_000,
        ),
    )


def _held_out() -> JudgeRecipe:
    reward = _reward()
    return JudgeRecipe(
        role=Role.HELD_OUT,
        loop=replace(_LOOP, seed=47, lr=3e-3),
        judge=replace(
            reward.judge,
            reader=ReaderConfig(
                mixing=Mixing.SHIFT, fine=48, width=96, depth=5, heads=1, fine_blocks=1, change_reach=1
            ),
            looks=Looks(blur=0.15, rescale=0.3, jpeg=0.1, noise=0.3, light=0.3, round_trips=0.25),
            round_trips=replace(reward.judge.round_trips, first_seed=1_600_000_000),
            data_seed=1_700_000_000,
        ),
    )


def recipe(role: Role) -> JudgeRecipe:
    """About twenty minutes, compiled, on one core with bf16 matrix units."""
    return {Role.REWARD: _reward, Role.VALIDATION: _validation, Role.HELD_OUT: _held_out}[role]()
