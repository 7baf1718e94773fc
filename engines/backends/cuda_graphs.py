"""A compiled part's kernels recorded once for each shape, and played back without asking the CPU for every one of them.

A small model's step is hundreds of launches that cost more than what they launch. Not run yet: it wants a GPU.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from engines.parts import CompiledPart

_WARM_UPS = 2  # what libraries set up at their first calls cannot be recorded
_MOST = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    output: Tensor

    def play(self, inputs: tuple[Tensor, ...]) -> Tensor:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        # The next call writes over it.
        return self.output.clone()


class Recorded:
    """A part that is recorded at the second call with inputs of the same shapes; the first may stay the only one.

    The recordings of the last `most` shapes are kept, each with memory of its own from its inputs to its output.
    """

    def __init__(self, part: CompiledPart, *, most: int = _MOST) -> None:
        self._part, self._most = part, most
        self._recordings: OrderedDict[tuple[object, ...], _Recording | None] = OrderedDict()

    def __call__(self, *inputs: Tensor) -> Tensor:
        key = tuple((x.shape, x.dtype) for x in inputs)
        if key not in self._recordings:
            self._remember(key, None)
            return self._part(*inputs)
        recording = self._recordings[key] or _recorded(self._part, inputs)
        self._remember(key, recording)
        return recording.play(inputs)

    @property
    def shapes(self) -> int:
        """How many shapes are recorded."""
        return sum(recording is not None for recording in self._recordings.values())

    def _remember(self, key: tuple[object, ...], recording: _Recording | None) -> None:
        self._recordings[key] = recording
        self._recordings.move_to_end(key)
        while len(self._recordings) > self._most:
            self._recordings.popitem(last=False)


def _recorded(part: CompiledPart, inputs: tuple[Tensor, ...]) -> _Recording:
    own = tuple(x.clone() for x in inputs)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UPS):
            part(*own)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = part(*own)
    return _Recording(graph=graph, inputs=own, output=output)
