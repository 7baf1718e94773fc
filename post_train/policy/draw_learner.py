"""Policy gradients over the drawn steps of rollouts (Flash-GRPO, arXiv 2605.15980, and its kin)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from post_train.policy.methods import DrawnSteps, Item, Learnt, named, velocities
from post_train.policy.rollout import Policy, RolledOut
from post_train.policy.snapshots import Weights, copied, placed_like
from post_train.policy.trust import Moves
from post_train.policy.weights import StepNorms, Weighting, equalised, rectified


class DrawLearner:
    """Learns from draws."""

    figures = ("kl", "apart", "held")

    def __init__(self, method: DrawnSteps, policy: Policy, module: nn.Module, *, micro_batch: int) -> None:
        self.method, self.policy, self.module, self.micro_batch = method, policy, module, micro_batch
        self._reference = copied(module)
        self._anchor = copied(module) if method.trust.anchor_every is not None else None
        self._norms = StepNorms()

    def begin(self, rollout: int) -> None:
        every = self.method.trust.anchor_every
        if every is not None and rollout % every == 0:
            self._anchor = copied(self.module)

    def items(self, rolled: Sequence[RolledOut], prompts: Sequence[str], *, seed: str) -> list[Item]:  # noqa: ARG002
        pairs = [(draw, prompt) for film, prompt in zip(rolled, prompts, strict=True) for draw in film.draws]
        reference = velocities(self.policy, self.module, self._reference, pairs, self.micro_batch)
        anchor: list[Tensor] | list[None] = [None] * len(pairs)
        if self._anchor is not None:
            anchor = velocities(self.policy, self.module, self._anchor, pairs, self.micro_batch)
        return [
            Item(draw=draw, prompt=prompt, reference=r, anchor=a)
            for (draw, prompt), r, a in zip(pairs, reference, anchor, strict=True)
        ]

    def weights(self, indices: Sequence[int]) -> list[float]:
        match self.method.weighting:
            case Weighting.RECTIFIED:
                return rectified([self.policy.gaussian(index).pull_to_noise for index in indices])
            case Weighting.EQUALISED:
                return equalised(indices, self._norms.seen or {})
            case Weighting.EQUAL:
                return [1.0] * len(indices)

    def learn(self, items: Sequence[Item], advantages: Tensor) -> Learnt:
        draws = [item.draw for item in items]
        now = self.policy.replay(draws, [item.prompt for item in items])
        before = torch.tensor([d.log_probability for d in draws], device=advantages.device)
        gaussian, sigmas, index = now.gaussian, self.policy.sigmas, draws[0].index
        anchors = [item.anchor for item in items if item.anchor is not None]
        moves = Moves(
            log_ratio=now.log_probability - before,
            advantages=advantages,
            from_drawing=gaussian.divergence(now.velocity, torch.stack([d.velocity for d in draws])),
            from_reference=gaussian.divergence(now.velocity, torch.stack([item.reference for item in items])),
            from_anchor=gaussian.divergence(now.velocity, torch.stack(anchors)) if anchors else None,
            deviation=gaussian.deviation,
            dt=sigmas[index + 1] - sigmas[index],
        )
        verdict = self.method.trust(moves)
        figures = {
            "kl": moves.from_reference,
            "apart": self.method.trust.apart(moves.log_ratio, moves.from_drawing, gaussian.deviation),
            "held": verdict.held.float(),
        }
        return Learnt(
            losses=verdict.losses,
            figures={k: v.detach() for k, v in figures.items()},
            slopes=self._slopes(verdict.losses, now.velocity),
        )

    def _slopes(self, losses: Tensor, velocity: Tensor) -> Tensor | None:
        """Norms [B] of each loss's gradient, before any weight.

        By the velocity [B, C, T, H, W], where it takes no backward pass through the model, and where it is there at
        all: gradients of weights that are cut among ranks are sums over all of them, whatever steps theirs were of.
        """
        if self.method.weighting is not Weighting.EQUALISED:
            return None
        (slope,) = torch.autograd.grad(losses.sum(), velocity, retain_graph=True)
        return slope.flatten(1).norm(dim=1)

    def saw(self, slopes: Mapping[int, float]) -> None:
        for step, norm in slopes.items():
            self._norms.take(step, norm)

    def state(self) -> tuple[Weights, dict[str, Any]]:
        tensors = {f"anchor.{n}": v for n, v in (self._anchor or {}).items()}
        return tensors, {"norms": {str(k): v for k, v in (self._norms.seen or {}).items()}}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        if self._anchor is not None:
            self._anchor = placed_like(self.module, named(tensors, "anchor."))
        self._norms.seen = {int(k): v for k, v in facts["norms"].items()} or None
