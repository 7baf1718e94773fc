"""What a model's linear layers are given on real films, and a few whole inputs of its step to measure errors on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

# A layer that sees fewer rows at once (one time for all tokens, say) costs nothing, so that 8 bits would gain nothing.
FEWEST_ROWS = 8


@dataclass(slots=True)
class Seen:
    """What was seen of a module: by layer the largest |x| of each input channel, [D], and some of its own inputs."""

    largest: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    inputs: list[tuple[Tensor, ...]] = field(default_factory=list)

    @property
    def worthwhile(self) -> list[str]:
        """The layers that cost enough for 8 bits to gain something."""
        return [name for name, rows in self.rows.items() if rows >= FEWEST_ROWS]


class Recorder:
    """A module that is called as it is, while what it and its linear layers are given is noted in `seen`.

    Every `keep_every`-th of its inputs is kept whole.
    """

    def __init__(self, module: nn.Module, *, keep_every: int) -> None:
        self._module, self._keep_every = module, keep_every
        self.seen = Seen()
        self._calls = 0
        self._inside = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        if self._calls % self._keep_every == 0:
            self.seen.inputs.append(tuple(x.clone() for x in inputs))
        self._calls += 1
        # Prompts go through layers of the same model beforehand, which are no part of this module's work.
        self._inside = True
        try:
            return self._module(*inputs)
        finally:
            self._inside = False

    @contextmanager
    def watching(self) -> Iterator[Recorder]:
        """While this is open, layers are looked at."""
        hooks = [
            layer.register_forward_pre_hook(self._noting(name))
            for name, layer in self._module.named_modules()
            if isinstance(layer, nn.Linear)
        ]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def _noting(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: self._note(name, inputs[0])

    def _note(self, name: str, x: Tensor) -> None:
        if not self._inside:
            return
        flat = x.detach().flatten(0, -2)
        largest = flat.abs().amax(0)
        before = self.seen.largest.get(name)
        self.seen.largest[name] = largest if before is None else torch.maximum(before, largest)
        self.seen.rows[name] = max(self.seen.rows.get(name, 0), len(flat))
