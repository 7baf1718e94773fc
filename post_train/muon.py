"""Muon: momentum whose matrix updates are orthogonalised, batched over equal shapes; AdamW for everything else.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); update scale 0.2 * sqrt(max(m, n))
after Liu et al., arXiv 2502.16982, so that AdamW's learning rate and weight decay carry over. torch.optim.Muon iterates
matrix by matrix in bf16, which takes seconds a step on a CPU without bf16; this one stacks equal shapes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalise(batch: Tensor, *, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest (semi-)orthogonal matrix to each of `batch` [K, M, N], by quintic Newton-Schulz, to about 30 %."""
    a, b, c = _COEFFICIENTS
    x = batch.to(dtype)
    wide = x.shape[-2] > x.shape[-1]
    if wide:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if wide else x).to(batch.dtype)


class Muon(Optimizer):
    """Muon for the groups with `orthogonal=True`, AdamW for the others; all take `lr` and `weight_decay`.

    A convolution's weight counts as the matrix [out, in * kernel].
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        iteration_dtype: torch.dtype = torch.float32,
    ) -> None:
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": list(betas), "eps": eps}
        super().__init__(list(params), {**defaults, "orthogonal": False})
        self._iteration_dtype = iteration_dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        assert closure is None, "Muon takes no closure"
        for group in self.param_groups:
            with_grad = [p for p in group["params"] if p.grad is not None]
            if group["orthogonal"]:
                self._muon(group, with_grad)
            else:
                self._adamw(group, with_grad)

    def _muon(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for p in parameters:
            by_shape[p.shape[0], p[0].numel()].append(p)
        for shape, same in by_shape.items():
            update = torch.stack([self._nesterov(p, group["momentum"]).flatten(1) for p in same])
            update = orthogonalise(update, dtype=self._iteration_dtype)
            scale = 0.2 * max(shape) ** 0.5
            for p, u in zip(same, update, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(u.view_as(p), alpha=-group["lr"] * scale)

    def _nesterov(self, p: Tensor, momentum: float) -> Tensor:
        assert p.grad is not None
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        state["momentum"].lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(state["momentum"], momentum)

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        for p in parameters:
            assert p.grad is not None
            state = self.state[p]
            if "step" not in state:
                state.update(step=torch.zeros(()), mean=torch.zeros_like(p), square=torch.zeros_like(p))
            state["step"] += 1
            n = float(state["step"])
            state["mean"].lerp_(p.grad, 1 - beta1)
            state["square"].mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
            denominator = (state["square"] / (1 - beta2**n)).sqrt_().add_(group["eps"])
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.addcdiv_(state["mean"], denominator, value=-group["lr"] / (1 - beta1**n))
