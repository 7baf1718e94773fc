"""What a command line changes of a recipe of policy optimisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from post_train.lora import ATTENTION, Lora
from post_train.policy.advantages import Mixing
from post_train.policy.methods import DrawnSteps, Method
from post_train.policy.selectors import OneStep
from post_train.policy.trust import Clip, TrustRegion
from post_train.policy.weights import Weighting
from post_train.recipes.grpo import RULES, TRUST, GrpoRecipe

_MIXINGS = {mixing.value: mixing for mixing in Mixing}
_Choice = TypeVar("_Choice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What the command line changes of a recipe; None leaves it."""

    steps: int | None
    seed: int | None
    learning_rate: float | None
    prompts_per_rollout: int | None
    group: int | None
    shared_noise: bool | None
    updates: int | None
    sampling_steps: int | None
    guidance: float | None
    rule: str | None
    mixing: str | None
    extremes: int | None
    levels: int | None
    trust: str | None
    kl: float | None
    lora: int | None
    rectification: bool
    iso_temporal: bool
    checkpoint_minutes: float | None
    validate_every: int | None
    validation_count: int | None
    most_forwards: int | None


def changed(recipe: GrpoRecipe, changes: Changes) -> GrpoRecipe:
    """`recipe` as the command line changes it; ValueError for what does not go together."""
    c, policy, loop = changes, recipe.policy, recipe.loop
    for name in ("learning_rate", "kl", "guidance", "checkpoint_minutes"):
        if not math.isfinite(getattr(c, name) or 0.0):
            raise ValueError(f"--{name.replace('_', '-')} is {getattr(c, name)}; give a finite number")
    rollouts = replace(policy.rollouts, **_given(prompts=c.prompts_per_rollout, size=c.group))
    if isinstance(policy.method, DrawnSteps):
        rollouts = replace(rollouts, **_given(shared_noise=c.shared_noise))
    policy = replace(
        policy,
        rollouts=rollouts,
        method=_method(recipe, c),
        advantage=replace(
            policy.advantage, **_given(mixing=_chosen("mixing", c.mixing, _MIXINGS), extremes=c.extremes)
        ),
        **_given(updates=c.updates, most_forwards=c.most_forwards),
    )
    validation = replace(recipe.validation, **_given(every=c.validate_every, prompts=c.validation_count))
    steps = c.steps or loop.steps
    if steps % policy.updates:
        raise ValueError(f"{steps} steps end within a rollout of {policy.updates} updates; choose a multiple")
    if validation.every % policy.updates:
        raise ValueError(
            f"a validation every {validation.every} updates falls within a rollout of {policy.updates}; "
            "choose a multiple"
        )
    loop = replace(
        loop.lasting(steps),
        sample_every=validation.every,
        **_given(lr=c.learning_rate, seed=c.seed, checkpoint_minutes=c.checkpoint_minutes),
    )
    recipe = replace(recipe, policy=policy, loop=loop, validation=validation)
    recipe = replace(recipe, **_given(sampling_steps=c.sampling_steps, guidance=c.guidance))
    if c.lora == 0:
        return replace(recipe, lora=None, frozen="fp32")
    return recipe if c.lora is None else replace(recipe, lora=Lora(rank=c.lora, alpha=2 * c.lora, targets=ATTENTION))


def _method(recipe: GrpoRecipe, c: Changes) -> Method:
    method = recipe.policy.method
    if isinstance(method, DrawnSteps):
        if c.levels is not None:
            raise ValueError(f"--levels is about preset nft, and preset {recipe.preset!r} learns from drawn steps")
        method = replace(method, trust=_trust(method.trust, c), **_given(rule=_chosen("rule", c.rule, RULES)))
        method = method if c.rectification else _without_rectification(method, recipe.preset)
        return method if c.iso_temporal else _without_groups_of_one_step(method, recipe.preset)
    asked = {
        "--rule": c.rule is not None,
        "--trust": c.trust is not None,
        "--no-rectification": not c.rectification,
        "--no-iso-temporal": not c.iso_temporal,
    }
    for name, wanted in asked.items():
        if wanted:
            raise ValueError(f"{name} is about drawn steps, and preset {recipe.preset!r} draws none; leave it out")
    method = method if c.kl is None else replace(method, nft=replace(method.nft, reference=c.kl))
    return replace(method, **_given(shared_noise=c.shared_noise, levels=c.levels))


def _trust(region: TrustRegion, c: Changes) -> TrustRegion:
    region = _chosen("trust region", c.trust, TRUST) or region
    if c.kl is None:
        return region
    if not isinstance(region, Clip):
        raise ValueError(  # noqa: TRY004  a choice, not a type, is wrong
            "--kl goes with --trust clip or kl; the other regions have terms of their own"
        )
    return replace(region, kl=c.kl)


def _without_rectification(method: DrawnSteps, preset: str) -> DrawnSteps:
    if method.weighting is not Weighting.RECTIFIED:
        raise ValueError(f"preset {preset!r} has no rectification to leave out")
    return replace(method, weighting=Weighting.EQUAL)


def _without_groups_of_one_step(method: DrawnSteps, preset: str) -> DrawnSteps:
    if not isinstance(method.selector, OneStep):
        raise ValueError(  # noqa: TRY004  a choice, not a type, is wrong
            f"preset {preset!r} does not draw one step a film, which iso-temporal grouping is about"
        )
    return replace(method, selector=replace(method.selector, shared=False))


def _chosen(what: str, name: str | None, known: Mapping[str, _Choice]) -> _Choice | None:
    """What goes by `name`, None for none; ValueError for a name that is not known."""
    if name is not None and name not in known:
        raise ValueError(f"{what} {name!r} is unknown; choose one of {', '.join(known)}")
    return None if name is None else known[name]


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
