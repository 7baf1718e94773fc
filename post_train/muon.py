"""Muon: momentum whose matrix updates are orthogonalised, batched over equal shapes; AdamW for everything else.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); update scale 0.2 * sqrt(max(m, n))
after Liu et al., arXiv 2502.16982, so that AdamW's learning rate and weight decay carry over. torch.optim.Muon iterates
matrix by matrix in bf16, which takes seconds a step on a CPU without bf16; this one stacks equal shapes. What is done
to every weight is one call for all (torch._foreach_*, as torch.optim makes it), lest a GPU wait for 2000 of them.
"""

# pyright: reportPrivateImportUsage=false, reportPrivateUsage=false

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
            if not with_grad:
                continue
            if group["orthogonal"]:
                self._muon(group, with_grad)
            else:
                self._adamw(group, with_grad)

    def _muon(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for p, u in zip(parameters, self._nesterov(parameters, group["momentum"]), strict=True):
            by_shape[p.shape[0], p[0].numel()] += [p, u]
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        for shape, pairs in by_shape.items():
            same, updates = pairs[0::2], pairs[1::2]
            update = torch.stack([u.flatten(1) for u in updates])
            update = orthogonalise(update, dtype=self._iteration_dtype)
            rate = -group["lr"] * 0.2 * max(shape) ** 0.5
            torch._foreach_add_(same, [u.view_as(p) for p, u in zip(same, update, strict=True)], alpha=rate)

    def _nesterov(self, parameters: list[Tensor], momentum: float) -> list[Tensor]:
        gradients = _gradients(parameters)
        for p in parameters:
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        return list(torch._foreach_lerp(gradients, momenta, momentum))  # noqa: SLF001  no public name

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        gradients = _gradients(parameters)
        for p in parameters:
            if "step" not in self.state[p]:
                self.state[p].update(step=torch.zeros(()), mean=torch.zeros_like(p), square=torch.zeros_like(p))
        steps, means, squares = ([self.state[p][slot] for p in parameters] for slot in ("step", "mean", "square"))
        torch._foreach_add_(steps, 1)
        done = [float(n) for n in steps]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
        denominators = torch._foreach_div(squares, [1 - beta2**n for n in done])  # noqa: SLF001  no public name
        torch._foreach_sqrt_(denominators)
        torch._foreach_add_(denominators, group["eps"])
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_addcdiv_(parameters, means, denominators, [-group["lr"] / (1 - beta1**n) for n in done])


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]
