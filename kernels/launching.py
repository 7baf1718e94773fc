"""What every launch of a Triton kernel needs: block sizes, warps and something to point at where there is no tensor."""

from __future__ import annotations

from typing import Any

from torch import Tensor

_A_WARPS_SHARE = 512  # values of a row that one warp holds: 16 registers a lane


def next_power_of_2(n: int) -> int:
    """The least power of 2 that is no less than `n`; Triton's blocks are such."""
    return 1 << max(0, n - 1).bit_length()


def warps_for(block: int) -> int:
    """Warps for a program that holds a row of `block` values: 1 to 16."""
    return min(16, max(1, block // _A_WARPS_SHARE))


def pointers(stand_in: Tensor, *tensors: Tensor | None) -> tuple[Tensor, ...]:
    """`tensors`, and `stand_in` for each that is missing: a kernel that was compiled without it never looks there."""
    return tuple(stand_in if t is None else t for t in tensors)


def launch(
    kernel: Any, grid: tuple[int, ...], *arguments: Any, warps: int, stages: int | None = None, **constants: Any
) -> None:
    """Runs a Triton kernel over `grid`; its last parameters, the `constants`, are compiled in.

    `stages` are those of its pipeline; without them Triton takes its own number.
    """
    options = {"num_warps": warps} if stages is None else {"num_warps": warps, "num_stages": stages}
    kernel[grid](*arguments, **constants, **options)
