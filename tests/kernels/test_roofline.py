"""Bytes and operations are counted as torch counts them, and the tables in docs are these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kernels.measuring import known_gpu
from kernels.roofline import CONVS, GPUS, SIZES, block_costs, conv_cost, floor_of, forward_floor
from kernels.roofline_tables import markdown, roofline_rows

_DOCS = Path(__file__).parents[2] / "docs" / "kernels.md"


@pytest.mark.parametrize(("name", "teraflops"), [("1.3B", 283.0), ("14B", 1678.3)])
def test_operations_are_those_of_the_whole_model(name: str, teraflops: float) -> None:
    """What `tests/engines/test_wan_full_size.py` counts on the meta device, within a thousandth."""
    counted = sum(row["operations"] for row in roofline_rows() if row["model"] == name)
    assert counted / 1e12 == pytest.approx(teraflops, rel=1e-3)


def test_fusion_only_saves() -> None:
    """No operator moves more after fusion, and rounding its rows for a product costs one less than it saves."""
    for size in SIZES:
        costs = block_costs(size)
        assert all(cost.after <= cost.before for cost in costs)
        totals = [sum(getattr(cost, field) for cost in costs) for field in ("before", "after", "in_eight_bits")]
        assert totals == sorted(totals, reverse=True)
        for gpu in GPUS:
            floor = forward_floor(size, gpu)
            assert floor.before > floor.after > floor.in_eight_bits > 0


def test_a_floor_is_the_slower_of_both() -> None:
    """Long attention is bound by its products, a norm by what it moves; a convolution moves a third of what it did."""
    h100 = next(gpu for gpu in GPUS if gpu.name == "H100")
    costs = {cost.operator: cost for cost in block_costs(SIZES[0])}
    exact = costs["attention"]
    assert floor_of(exact, h100).after == pytest.approx(exact.operations / h100.bf16)
    # Scores of int8 take half as long as they would in bf16, and they are half of it.
    assert floor_of(replace(exact, int8_share=0.5), h100).after == pytest.approx(
        0.75 * exact.operations / h100.bf16, rel=1e-3
    )
    assert floor_of(costs["modulated_norm"], h100).after == costs["modulated_norm"].after / h100.bandwidth
    assert all(conv_cost(size).after < 0.4 * conv_cost(size).before for size in CONVS)


@pytest.mark.parametrize(
    ("told", "name"),
    [("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA GeForce RTX 5090", "RTX 5090"), ("NVIDIA A100-SXM4-80GB", "A100"),
     ("NVIDIA GeForce RTX 4090", None), ("NVIDIA H200", "H200"), ("NVIDIA H100 PCIe", None),
     ("NVIDIA H100 NVL", None), ("NVIDIA A100-SXM4-40GB", None), ("NVIDIA GeForce RTX 5090 D", None),
     ("NVIDIA GeForce RTX 5090 Laptop GPU", None)],
)  # fmt: skip
def test_a_gpu_is_known_by_its_own_name(told: str, name: str | None) -> None:
    """By the words that the driver tells; another is not taken for one of them."""
    found = known_gpu(told)
    assert (found and found.name) == name


def test_the_docs_hold_these_tables() -> None:
    """`rushes bench kernels --roofline` prints what stands in docs/kernels.md."""
    assert markdown() in _DOCS.read_text(encoding="utf-8")
