"""Which keys a query may see: by chunks of time for a film that is streamed, by tiles of space and time for a long one.

A mask is a rule on positions, so that a kernel skips what is not seen and never reads a table of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

Size = tuple[int, int, int]  # frames, rows, columns


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCausal:
    """A chunk of `chunk` tokens sees itself and the chunks before it (CausVid, arXiv 2412.07772).

    With a `window` only so many chunks, its own among them, and always the first `sink` ones (arXiv 2309.17453).
    Queries are the last of the keys: with fewer queries than keys, the others are a cache of the past.
    """

    chunk: int
    window: int = 0
    sink: int = 0

    def __post_init__(self) -> None:
        if self.chunk < 1 or self.window < 0 or self.sink < 0:
            raise ValueError(
                f"chunk {self.chunk} must be 1 or more, window {self.window} and sink {self.sink} 0 or more"
            )

    def check(self, queries: int, keys: int) -> None:
        """ValueError when there are more queries than keys."""
        if queries > keys:
            raise ValueError(f"{queries} queries have {keys} keys; a causal mask needs a key for each query")

    def visible(self, rows: Tensor, columns: Tensor, queries: int, keys: int) -> Tensor:
        """[R, C], whether query `rows` [R] sees key `columns` [C]."""
        own = (rows[:, None] + keys - queries) // self.chunk
        other = columns[None] // self.chunk
        near = (other > own - self.window) if self.window else torch.ones_like(other, dtype=torch.bool)
        return (other <= own) & (near | (other < self.sink))

    def code(self) -> list[int]:
        """Numbers that `mask_of` makes the mask of again."""
        return [self.chunk, self.window, self.sink]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingTile:
    """A tile of tokens sees the `window` of tiles around it (Sliding Tile Attention, arXiv 2502.04507).

    `grid` is the film in tokens, `tile` divides it, and `window` counts tiles; at an edge the window is moved inwards,
    so that each query sees as many keys. Tokens must come tile by tile: `tile_order` tells how.
    """

    grid: Size
    tile: Size
    window: Size

    def __post_init__(self) -> None:
        if min(self.tile) < 1 or any(g % t for g, t in zip(self.grid, self.tile, strict=True)):
            raise ValueError(
                f"a grid of {self.grid} does not divide into tiles of {self.tile}; choose ones that divide it"
            )
        if any(not 1 <= w <= n for w, n in zip(self.window, self.tiles, strict=True)):
            raise ValueError(f"a window of {self.window} tiles does not fit a film of {self.tiles} tiles")

    @property
    def tiles(self) -> Size:
        """How many tiles there are in each direction."""
        t, h, w = (g // t for g, t in zip(self.grid, self.tile, strict=True))
        return t, h, w

    @property
    def share(self) -> float:
        """The share of all pairs of query and key that is seen."""
        return prod(self.window) / prod(self.tiles)

    def check(self, queries: int, keys: int) -> None:
        """ValueError unless queries and keys are the whole film."""
        if not queries == keys == prod(self.grid):
            raise ValueError(f"{queries} queries and {keys} keys are not the {prod(self.grid)} tokens of {self.grid}")

    def visible(self, rows: Tensor, columns: Tensor, queries: int, keys: int) -> Tensor:  # noqa: ARG002  as its sibling
        """[R, C], whether query `rows` [R] sees key `columns` [C], both in the order of tiles."""
        seen = torch.ones(len(rows), len(columns), dtype=torch.bool, device=rows.device)
        for own, other, count, window in zip(
            self._tile_of(rows), self._tile_of(columns), self.tiles, self.window, strict=True
        ):
            first = (own - window // 2).clamp(0, count - window)[:, None]
            seen &= (other[None] >= first) & (other[None] < first + window)
        return seen

    def _tile_of(self, token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        tile = token // prod(self.tile)
        _, h, w = self.tiles
        return tile // (h * w), tile // w % h, tile % w

    def code(self) -> list[int]:
        """Numbers that `mask_of` makes the mask of again."""
        return [*self.grid, *self.tile, *self.window]


Mask = BlockCausal | SlidingTile


NO_MASK = (0,)
"""The code of no mask: AOTInductor's packages give an empty list to a Python operator as None."""


def code_of(mask: Mask | None) -> list[int]:
    """Numbers for an operator's schema, which knows no classes; `mask_of` turns them back."""
    return list(NO_MASK) if mask is None else mask.code()


def mask_of(code: Sequence[int]) -> Mask | None:
    """The mask of its code."""
    if tuple(code) == NO_MASK:
        return None
    if len(code) == 3:
        chunk, window, sink = code
        return BlockCausal(chunk=chunk, window=window, sink=sink)
    t, h, w, tt, th, tw, wt, wh, ww = code
    return SlidingTile(grid=(t, h, w), tile=(tt, th, tw), window=(wt, wh, ww))


def tile_order(grid: Size, tile: Size, device: torch.device | str = "cpu") -> Tensor:
    """[L], where the tokens that come tile by tile stand in a film that goes frame by frame, row by row."""
    t, h, w = (g // size for g, size in zip(grid, tile, strict=True))
    places = torch.arange(prod(grid), device=device).view(t, tile[0], h, tile[1], w, tile[2])
    return places.permute(0, 2, 4, 1, 3, 5).flatten()
