"""A judge's recipe cut down to what a test can train in seconds; the code it runs is the same."""

from __future__ import annotations

from dataclasses import replace

from post_train.algorithms.judge_training import Shape
from post_train.recipes import judges
from post_train.recipes.judges import JudgeRecipe
from post_train.rewards.roles import Role


def small_judge(steps: int = 8) -> JudgeRecipe:
    """A few steps of a tiny reader on clips of nine frames of 32 pixels."""
    full = judges.recipe(Role.REWARD)
    return replace(
        full,
        loop=replace(full.loop, steps=steps, warmup_steps=2, decay_steps=2, sample_every=1000, log_every=4),
        judge=replace(
            full.judge,
            reader=replace(full.judge.reader, fine=8, width=16, depth=1),
            shapes=(Shape(side=32, num_frames=9, share=0.7), Shape(side=32, num_frames=5, share=0.3)),
            batch=4,
            looks=replace(full.judge.looks, round_trips=0.3),
            round_trips=replace(full.judge.round_trips, clips=6, side=32, num_frames=9),
        ),
    )
