"""Recipes of policy optimisation: methods of the literature as presets, for the built-in model and for a published Wan.

A preset is a rule that draws, a choice of steps, what they count and a trust region; sizes and rates are the recipe's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from post_train.lora import ATTENTION, Lora
from post_train.policy.advantages import AdvantageRule, Deviation, Mixing
from post_train.policy.forward_process import NftRule, OldPolicy
from post_train.policy.methods import DrawnSteps, ForwardProcess, Method
from post_train.policy.plan import Rollouts
from post_train.policy.selectors import EveryStep, OneStep, RandomShare, SlidingWindow
from post_train.policy.steps import CoefficientsPreserving, ConstantStd, FlowStd, IntegratedFlow, LinearStd, StepRule
from post_train.policy.task import PolicyConfig
from post_train.policy.trust import Clip, Divergence, DualKl, Guard, TrustRegion
from post_train.policy.validation import ValidationConfig
from post_train.policy.weights import Weighting
from post_train.trainer import LoopConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A method, how its advantages are made, and the smallest update that was published to work, in films.

    With `shared_noise` the films of a group begin with one noise and differ by their draws alone.
    """

    method: Method
    advantage: AdvantageRule
    floor: int | None
    shared_noise: bool = False


def flash() -> Preset:
    """Flash-GRPO (arXiv 2605.15980), the paper's: one draw a film, iso-temporal, rectified."""
    return Preset(
        method=DrawnSteps(rule=LinearStd(), selector=OneStep(), weighting=Weighting.RECTIFIED, trust=Clip()),
        advantage=AdvantageRule(mixing=Mixing.EACH, deviation=Deviation.BATCH),
        floor=96,
    )


def flow() -> Preset:
    """Flow-GRPO (arXiv 2505.05470): every step draws and learns, clipped, near the reference by KL."""
    return Preset(
        method=DrawnSteps(rule=FlowStd(), selector=EveryStep(), weighting=Weighting.EQUAL, trust=Clip(kl=0.004)),
        advantage=AdvantageRule(mixing=Mixing.EACH, deviation=Deviation.BATCH),
        floor=24 * 48,
    )


def dance() -> Preset:
    """DanceGRPO (arXiv 2505.07818): constant std, 60 % of the steps, groups of one noise.

    Of its groups of 24 the best and worst 4 are learnt from; recipes here have groups of 8 and leave none out.
    """
    return Preset(
        method=DrawnSteps(rule=ConstantStd(), selector=RandomShare(), weighting=Weighting.EQUAL, trust=Clip(1e-4)),
        advantage=AdvantageRule(mixing=Mixing.EACH, deviation=Deviation.GROUP),
        floor=32 * 24,
        shared_noise=True,
    )


def mix() -> Preset:
    """MixGRPO (arXiv 2507.21802): draws in a window of steps that moves on, the flow outside of it."""
    return Preset(
        method=DrawnSteps(rule=FlowStd(), selector=SlidingWindow(), weighting=Weighting.EQUAL, trust=Clip(1e-4)),
        advantage=AdvantageRule(mixing=Mixing.EACH, deviation=Deviation.GROUP),
        floor=None,
    )


def sage() -> Preset:
    """SAGE-GRPO (arXiv 2603.21872): the exact variance of each step, equalised gradients, two KL pulls."""
    return Preset(
        method=DrawnSteps(
            rule=IntegratedFlow(), selector=EveryStep(), weighting=Weighting.EQUALISED, trust=DualKl(clip_range=1e-4)
        ),
        advantage=AdvantageRule(mixing=Mixing.EACH, deviation=Deviation.GROUP),
        floor=64 * 4,
    )


def nft() -> Preset:
    """DiffusionNFT (arXiv 2509.16117): the forward process, without draws and without guidance."""
    return Preset(
        method=ForwardProcess(nft=NftRule(), old=OldPolicy()),
        advantage=AdvantageRule(mixing=Mixing.EACH, deviation=Deviation.BATCH),
        floor=None,
    )


PRESETS: dict[str, Callable[[], Preset]] = {
    "flash": flash,
    "flow": flow,
    "dance": dance,
    "mix": mix,
    "sage": sage,
    "nft": nft,
}
RULES: dict[str, StepRule] = {
    "linear": LinearStd(),
    "flow": FlowStd(),
    "constant": ConstantStd(),
    "cps": CoefficientsPreserving(),
    "integrated": IntegratedFlow(),
}
TRUST: dict[str, TrustRegion] = {
    "clip": Clip(),
    "kl": Clip(kl=0.004),
    "dual-kl": DualKl(),
    "guard": Guard(),
    "divergence": Divergence(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpoRecipe:
    """A whole run. `sampling_steps` and `guidance` are the rollouts'; validation is by the model's own serving."""

    name: str
    preset: str
    loop: LoopConfig
    policy: PolicyConfig
    validation: ValidationConfig
    sampling_steps: int
    guidance: float
    lora: Lora | None
    frozen: Literal["fp32", "bf16"]
    gradient_checkpointing: bool
    floor: int | None


def diorama_grpo(preset: str = "flash") -> GrpoRecipe:
    """The built-in model after SFT: groups of 8 films of 8 steps without guidance, all weights."""
    chosen = named_preset(preset)
    return GrpoRecipe(
        name="diorama-grpo",
        preset=preset,
        loop=LoopConfig(
            seed=41,
            steps=60,
            lr=2e-5,
            warmup_steps=2,
            decay_steps=0,
            final_lr=1.0,
            grad_clip=1.0,
            ema_decay=0.9,
            checkpoint_minutes=4,
            sample_every=6,
            log_every=1,
        ),
        policy=PolicyConfig(
            method=chosen.method,
            rollouts=Rollouts(prompts=16, size=8, shared_noise=chosen.shared_noise),
            advantage=chosen.advantage,
            updates=2,
        ),
        validation=ValidationConfig(every=6),
        sampling_steps=8,
        guidance=1.0,
        lora=None,
        frozen="fp32",
        gradient_checkpointing=False,
        floor=chosen.floor,
    )


def wan_grpo(preset: str = "flash") -> GrpoRecipe:
    """Wan 2.1 1.3B by the published settings: 20 steps, guidance 4.5, LoRA of rank 16 on attention, groups of 8."""
    chosen = named_preset(preset)
    return GrpoRecipe(
        name="wan-grpo",
        preset=preset,
        loop=LoopConfig(
            seed=42,
            steps=200,
            lr=3e-5,
            warmup_steps=4,
            decay_steps=0,
            final_lr=1.0,
            grad_clip=1.0,
            ema_decay=0.9,
            checkpoint_minutes=30,
            sample_every=10,
            log_every=1,
        ),
        policy=PolicyConfig(
            method=chosen.method,
            rollouts=Rollouts(prompts=24, size=8, shared_noise=chosen.shared_noise),
            advantage=chosen.advantage,
            updates=1,
            rollout_batch=2,
            micro_batch=1,
        ),
        validation=ValidationConfig(every=10, prompts=48),
        sampling_steps=20,
        guidance=1.0 if preset == "nft" else 4.5,
        lora=Lora(rank=16, alpha=32, targets=ATTENTION),
        frozen="bf16",
        gradient_checkpointing=True,
        floor=chosen.floor,
    )


RECIPES: dict[str, Callable[[str], GrpoRecipe]] = {"diorama-grpo": diorama_grpo, "wan-grpo": wan_grpo}


def named_preset(name: str) -> Preset:
    """A preset by its name; ValueError for another."""
    if name not in PRESETS:
        raise ValueError(f"preset {name!r} is unknown; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]()


def named_recipe(name: str, preset: str) -> GrpoRecipe:
    """A recipe by its name, with a preset's method; ValueError for another name."""
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is unknown; choose one of {', '.join(RECIPES)}")
    return RECIPES[name](preset)
