"""Fine-tuning recipes: `diorama-sft` for the built-in model, `wan-sft` for a published Wan on one's own clips.

The controls of `diorama-sft` at equal compute differ from it in nothing but their data: `continue` goes on with the
wild split that the base was trained on, `best-of-8` learns the base's own best films.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from post_train.algorithms.sft import SftConfig, check_optimizer, rows_per_rank
from post_train.data.diorama.record import Split
from post_train.lora import Lora
from post_train.trainer import LoopConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """What clips are cut to, in pixels, frames and frames a second; None is the model card's default."""

    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    fps: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DioramaSeeds:
    """Which clips of the world `--data diorama` means."""

    split: Split
    first_seed: int
    clips: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SftRecipe:
    """A whole fine-tuning run; `frozen` is the precision that weights which do not learn (under a LoRA) are kept in."""

    name: str
    loop: LoopConfig
    sft: SftConfig
    geometry: Geometry
    diorama: DioramaSeeds
    frozen: Literal["fp32", "bf16"]


# The wild clips that the base learnt from: no run may learn from others without saying so.
_WILD = DioramaSeeds(split=Split.WILD, first_seed=100_000_000, clips=16_384)


def diorama_sft() -> SftRecipe:
    """The built-in model on curated clips: shallow, all weights, a fifth of the base's learning rate."""
    return SftRecipe(
        name="diorama-sft",
        loop=LoopConfig(
            seed=31,
            steps=2000,
            lr=4e-4,
            warmup_steps=50,
            decay_steps=1500,
            final_lr=0.02,
            grad_clip=1.0,
            ema_decay=0.998,
            checkpoint_minutes=4,
            sample_every=500,
            log_every=50,
        ),
        sft=SftConfig(
            batch=32,
            micro_batch=32,
            lora=None,
            optimizer="muon",
            weight_decay=0.02,
            empty_share=0.1,
            other_share=0.15,
            uniform_share=0.2,
            gain_power=1.0,
            gradient_checkpointing=False,
        ),
        geometry=Geometry(),
        diorama=_WILD,
        frozen="fp32",
    )


def diorama_continue() -> SftRecipe:
    """The first control: the same steps on the wild split, uncurated."""
    return replace(diorama_sft(), name="continue")


def diorama_best_of_8() -> SftRecipe:
    """The second control: the same steps on the best of eight films of the base for each prompt."""
    return replace(diorama_sft(), name="best-of-8")


def wan_sft() -> SftRecipe:
    """A published Wan on one's own clips: a LoRA of rank 32, with gradient checkpointing, at the size it is served."""
    return SftRecipe(
        name="wan-sft",
        loop=LoopConfig(
            seed=32,
            steps=1000,
            lr=1e-4,
            warmup_steps=50,
            decay_steps=200,
            final_lr=0.1,
            grad_clip=1.0,
            ema_decay=0.99,
            checkpoint_minutes=15,
            sample_every=1_000_000,
            log_every=10,
        ),
        sft=SftConfig(
            batch=8,
            micro_batch=1,
            lora=Lora(rank=32, alpha=32),
            optimizer="adamw",
            weight_decay=1e-4,
            empty_share=0.1,
            other_share=0.15,
            uniform_share=0.2,
            gain_power=0.0,
            gradient_checkpointing=True,
        ),
        geometry=Geometry(),
        diorama=_WILD,
        frozen="bf16",
    )


RECIPES: dict[str, Callable[[], SftRecipe]] = {
    "diorama-sft": diorama_sft,
    "continue": diorama_continue,
    "best-of-8": diorama_best_of_8,
    "wan-sft": wan_sft,
}


def named_recipe(name: str) -> SftRecipe:
    """A recipe by its name; ValueError for another."""
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is unknown; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]()


def check_run(recipe: SftRecipe, ranks: int) -> None:
    """ValueError unless so many ranks can share a step of the recipe."""
    check_optimizer(recipe.sft, ranks)
    rows_per_rank(recipe.sft, ranks)


def with_changes(recipe: SftRecipe, *, steps: int | None = None, **parts: dict[str, object]) -> SftRecipe:
    """`recipe` with some values of its parts changed; None leaves a value. Warm-up and decay keep their share of steps.

    ValueError for an optimizer that cannot train what the recipe asks.
    """
    recipe = replace(recipe, loop=recipe.loop.lasting(steps))
    for part, values in parts.items():
        given = {k: v for k, v in values.items() if v is not None}
        recipe = replace(recipe, **{part: replace(getattr(recipe, part), **given)})
    check_optimizer(recipe.sft, ranks=1)
    return recipe


def with_lora(recipe: SftRecipe, rank: int | None, alpha: float | None) -> SftRecipe:
    """`recipe` with a LoRA of this rank and alpha; rank 0 trains all weights, None leaves both as the recipe has them.

    A LoRA learns by AdamW: Muon's orthogonal steps are for whole matrices, not for factors of one.
    """
    size = rank if rank is not None else (recipe.sft.lora.rank if recipe.sft.lora else 0)
    if size == 0:
        if alpha is not None:
            raise ValueError("an alpha belongs to a LoRA; give its rank as well")
        return replace(recipe, sft=replace(recipe.sft, lora=None), frozen="fp32")
    lora = Lora(rank=size, alpha=float(size) if alpha is None else alpha)
    return replace(recipe, sft=replace(recipe.sft, lora=lora, optimizer="adamw"))
