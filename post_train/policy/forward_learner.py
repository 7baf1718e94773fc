"""DiffusionNFT at work (arXiv 2509.16117): films of an old policy, noised anew, and the side they should be on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from post_train.policy.forward_process import nft_losses, optimality, renewed
from post_train.policy.methods import ForwardProcess, Item, Learnt, named, velocities
from post_train.policy.rollout import Draw, Policy, RolledOut
from post_train.policy.snapshots import Weights, copied, placed_like
from post_train.random_numbers import generator_of


class ForwardLearner:
    """Learns on the forward process, from films of an old policy that follows."""

    def __init__(self, method: ForwardProcess, policy: Policy, module: nn.Module, *, micro_batch: int) -> None:
        self.method, self.policy, self.module, self.micro_batch = method, policy, module, micro_batch
        if method.levels > (steps := len(policy.sigmas) - 1):
            raise ValueError(f"a film is learnt at {method.levels} noise levels, and made at {steps}; choose fewer")
        self._reference, self._old = copied(module), copied(module)

    figures = ("from_reference", "from_old")

    def begin(self, rollout: int) -> Weights:
        if rollout > 0:
            renewed(self._old, dict(self.module.named_parameters()), self.method.old.decay(rollout))
        return self._old

    def items(self, rolled: Sequence[RolledOut], prompts: Sequence[str], *, seed: str) -> list[Item]:
        pairs = [
            (draw, prompt)
            for film, prompt in zip(rolled, prompts, strict=True)
            for draw in self._noised(film, f"{seed}:{prompt if self.method.shared_noise else f'film {film.film}'}")
        ]
        old = velocities(self.policy, self.module, self._old, pairs, self.micro_batch)
        reference = velocities(self.policy, self.module, self._reference, pairs, self.micro_batch)
        return [
            Item(draw=replace(draw, velocity=v), prompt=prompt, reference=r)
            for (draw, prompt), v, r in zip(pairs, old, reference, strict=True)
        ]

    def _noised(self, film: RolledOut, name: str) -> list[Draw]:
        generator = generator_of(name)
        steps = len(self.policy.sigmas) - 1
        picks = torch.randperm(steps, generator=generator)[: self.method.levels].tolist()
        clean, draws = film.latents, []
        for index in sorted(picks):
            sigma = self.policy.sigmas[index]
            noise = torch.randn(clean.shape, generator=generator).to(clean.device)
            point = (1 - sigma) * clean + sigma * noise
            draws.append(
                Draw(film=film.film, index=index, before=point, after=clean, velocity=point, log_probability=0.0)
            )
        return draws

    def weights(self, indices: Sequence[int]) -> list[float]:
        return [1.0] * len(indices)

    def learn(self, items: Sequence[Item], advantages: Tensor) -> Learnt:
        draws = [item.draw for item in items]
        index = draws[0].index
        noisy = torch.stack([d.before for d in draws])
        velocity = self.policy.velocity(noisy, index, [item.prompt for item in items]).guided()
        reference, old = torch.stack([i.reference for i in items]), torch.stack([d.velocity for d in draws])
        losses = nft_losses(
            self.method.nft,
            clean=torch.stack([d.after for d in draws]),
            noisy=noisy,
            sigmas=torch.full((len(items),), self.policy.sigmas[index], device=noisy.device),
            velocity=velocity,
            old=old,
            reference=reference,
            good=optimality(advantages, self.method.nft.clip),
        )
        said = velocity.detach()
        figures = {
            "from_reference": (said - reference).square().mean((1, 2, 3, 4)),
            "from_old": (said - old).square().mean((1, 2, 3, 4)),
        }
        return Learnt(losses=losses, figures=figures)

    def saw(self, slopes: Mapping[int, float]) -> None:
        """Levels are not weighed."""

    def state(self) -> tuple[Weights, dict[str, Any]]:
        return {f"old.{n}": v for n, v in self._old.items()}, {}

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:  # noqa: ARG002
        self._old = placed_like(self.module, named(tensors, "old."))
