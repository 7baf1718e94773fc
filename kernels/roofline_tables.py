"""The tables of docs/kernels.md: bytes that fusion saves, and the least time that operators and a forward take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from kernels.roofline import (
    CONVS,
    GPUS,
    SIZES,
    Cost,
    WanSize,
    block_costs,
    conv_cost,
    floor_of,
    forward_floor,
    step_costs,
)

_WAYS = (("before", "before"), ("fused", "after"), ("fused, 8 bits", "in_eight_bits"))


def roofline_rows() -> list[dict[str, Any]]:
    """One object for each operator of each model: bytes, operations and floors in seconds of one forward of a film."""
    return [
        {
            "model": size.name,
            "operator": cost.operator,
            "bytes_before": size.layers * cost.before,
            "bytes_after": size.layers * cost.after,
            "bytes_in_eight_bits": size.layers * cost.in_eight_bits,
            "operations": size.layers * cost.operations,
            **_floors(cost, size.layers),
        }
        for size in SIZES
        for cost in block_costs(size)
    ]


def forward_rows() -> list[dict[str, Any]]:
    """One object for each model and way: floors in seconds of all blocks of one forward of a film."""
    return [
        {
            "model": size.name,
            "way": way,
            "floors": {gpu.name: getattr(forward_floor(size, gpu), field) for gpu in GPUS},
        }
        for size in SIZES
        for way, field in _WAYS
    ]


def conv_rows() -> list[dict[str, Any]]:
    """One object for each convolution of the VAE's decoder: bytes, operations and floors in seconds of one chunk."""
    return [
        {
            "channels": size.channels,
            "frames": size.frames,
            "rows": size.rows,
            "columns": size.columns,
            "bytes_before": cost.before,
            "bytes_after": cost.after,
            "operations": cost.operations,
            **_floors(cost, 1),
        }
        for size in CONVS
        for cost in (conv_cost(size),)
    ]


def _floors(cost: Cost, times: int) -> dict[str, dict[str, float]]:
    fields = {"floors_before": "before", "floors": "after", "floors_in_eight_bits": "in_eight_bits"}
    return {
        name: {gpu.name: times * getattr(floor_of(cost, gpu), field) for gpu in GPUS} for name, field in fields.items()
    }


def markdown() -> str:
    """All tables, as they stand in docs/kernels.md."""
    return "\n\n".join(["\n".join(part) for part in _parts()]) + "\n"


def _parts() -> Iterator[Sequence[str]]:
    for size in SIZES:
        yield [f"### Wan 2.1 {size.name}, 81 frames of 480x832: {size.tokens:,} tokens, {size.layers} blocks"]
        yield _table(
            ("operator", "GB before", "GB after", "GB with 8 bits", "TFLOP", *(f"{g.name}, ms" for g in GPUS)),
            [_operator_row(size, cost) for cost in block_costs(size)],
        )
    yield ["### A whole forward, seconds at least"]
    yield _table(
        ("model", "", *(gpu.name for gpu in GPUS)),
        [
            (size.name, when, *(f"{getattr(forward_floor(size, gpu), field):.3f}" for gpu in GPUS))
            for size in SIZES
            for when, field in _WAYS
        ],
    )
    yield ["### A 3x3x3 convolution of the VAE's decoder at 480x832, one chunk"]
    yield _table(
        ("channels", "frames", "size", "MB before", "MB after", "GFLOP", *(f"{gpu.name}, ms" for gpu in GPUS)),
        [
            (
                str(size.channels),
                str(size.frames),
                f"{size.rows}x{size.columns}",
                f"{cost.before / 1e6:.1f}",
                f"{cost.after / 1e6:.1f}",
                f"{cost.operations / 1e9:.1f}",
                *(f"{1e3 * floor_of(cost, gpu).after:.3f}" for gpu in GPUS),
            )
            for size in CONVS
            for cost in (conv_cost(size),)
        ],
    )
    yield ["### Guidance and a step of a sampler, the latents of one film"]
    yield _table(
        ("operator", "MB before", "MB after", *(f"{gpu.name}, ms" for gpu in GPUS)),
        [
            (
                cost.operator,
                f"{cost.before / 1e6:.1f}",
                f"{cost.after / 1e6:.1f}",
                *(f"{1e3 * floor_of(cost, gpu).after:.3f}" for gpu in GPUS),
            )
            for cost in step_costs()
        ],
    )


def step_rows() -> list[dict[str, Any]]:
    """One object for each sampler: bytes and floors in seconds of guidance and a step for one film."""
    return [
        {
            "operator": cost.operator,
            "bytes_before": cost.before,
            "bytes_after": cost.after,
            **_floors(cost, 1),
        }
        for cost in step_costs()
    ]


def _operator_row(size: WanSize, cost: Cost) -> tuple[str, ...]:
    moved = (cost.before, cost.after, cost.in_eight_bits)
    return (
        cost.operator,
        *(f"{size.layers * value / 1e9:.1f}" for value in moved),
        f"{size.layers * cost.operations / 1e12:.1f}",
        *(f"{1e3 * size.layers * floor_of(cost, gpu).after:.1f}" for gpu in GPUS),
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]
