"""How much of an update's gradient is more than the noise of its batch: its cosine with the gradient before.

Two updates that learn from other clips or films agree by signal / (signal + noise), the squares of both (McCandlish et
al., arXiv 1812.06162, tell the same share by batches of two sizes). One number says little; the mean over a run says
how many updates must go by until what they have in common outweighs what they have not, as long as weights hardly move.
Below zero, an update undoes a part of the one before: the rate is high, or a loss draws back to where the batch began.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from post_train.distributed import Ranks


class GradientAgreement:
    """Remembers the last gradient of a module's weights, each rank its part; as much memory as the trained weights."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._last: list[Tensor] | None = None

    @torch.no_grad()
    def take(self, module: nn.Module) -> float:
        """The cosine in [-1, 1] of the present gradient with the last one; 0 for the first, and where one is zero."""
        present = [_own_part(p.grad if p.grad is not None else torch.zeros_like(p)) for p in module.parameters()]
        last, self._last = self._last, [g.clone() for g in present]
        if last is None:
            return 0.0
        products = [_product(present, last), _product(present, present), _product(last, last)]
        both, own, before = self.ranks.mean(products)  # a mean over ranks has the cosine that a sum has
        return both / math.sqrt(own * before) if own * before > 0 else 0.0


def _own_part(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _product(a: Iterable[Tensor], b: Iterable[Tensor]) -> float:
    return math.fsum(float(torch.dot(x.flatten().float(), y.flatten().float())) for x, y in zip(a, b, strict=True))
