"""Masks show what their papers say, and attention under them has the gradients of its formula."""

from __future__ import annotations

import pytest
import torch

from kernels.attention import attention, int8_attention
from kernels.dispatch import Implementation, OperatorUnavailableError, recorded, using
from kernels.masks import BlockCausal, Mask, SlidingTile, code_of, mask_of, tile_order


def _table(mask: Mask, queries: int, keys: int) -> torch.Tensor:
    return mask.visible(torch.arange(queries), torch.arange(keys), queries, keys)


def test_chunks_see_themselves_and_the_past() -> None:
    """Chunks of two: all of the own one, all before; by a window, one before and the first."""
    whole = _table(BlockCausal(chunk=2), 6, 6)
    assert whole.tolist() == [[k // 2 <= q // 2 for k in range(6)] for q in range(6)]
    near = _table(BlockCausal(chunk=1, window=2, sink=1), 4, 4)
    assert near.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]]


def test_queries_are_the_last_of_the_keys() -> None:
    """Behind a cache the rows are the last ones of the whole table."""
    mask = BlockCausal(chunk=3, window=2, sink=1)
    assert torch.equal(_table(mask, 4, 12), _table(mask, 12, 12)[-4:])


def test_tiles_see_a_window_that_stays_in_the_film() -> None:
    """Each query sees as many keys, at the edges too, and its own tile among them."""
    mask = SlidingTile(grid=(4, 4, 6), tile=(2, 2, 1), window=(1, 2, 3))
    seen = _table(mask, 96, 96)
    assert set(seen.sum(1).tolist()) == {6 * 4}
    assert mask.share == pytest.approx(float(seen.float().mean()))
    assert bool(seen.diagonal().all())
    assert bool((seen[::4] == seen[3::4]).all()), "a tile's tokens see alike"


def test_tokens_come_tile_by_tile() -> None:
    """The order puts a tile's tokens together, and each token is in it once."""
    order = tile_order((2, 4, 4), (1, 2, 2))
    assert order[:8].tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert sorted(order.tolist()) == list(range(32))


@pytest.mark.parametrize(
    "mask", [BlockCausal(chunk=3, window=2), SlidingTile(grid=(2, 2, 2), tile=(1, 1, 2), window=(1, 2, 1))]
)
def test_a_mask_goes_through_an_operators_schema(mask: Mask) -> None:
    """Numbers make the same mask again; none make none."""
    assert mask_of(code_of(mask)) == mask
    assert mask_of(code_of(None)) is None


@pytest.mark.parametrize(
    "mask", [None, BlockCausal(chunk=2, window=2), SlidingTile(grid=(1, 2, 4), tile=(1, 1, 2), window=(1, 1, 2))]
)
def test_attention_has_the_gradients_of_its_formula(mask: Mask | None) -> None:
    """Against finite differences, for the operator and not torch's own."""
    q, k, v = (torch.randn(1, 8, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    with using(Implementation.REFERENCE):
        assert torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v, mask=mask), (q, k, v), fast_mode=True)


def test_torchs_own_computes_on_a_cpu() -> None:
    """With a mask and without, and trained through where there is none; what is asked for goes first."""
    q = torch.randn(1, 4, 2, 4)
    with recorded() as ran:
        plain = attention(q, q, q, mask=BlockCausal(chunk=2))
        with using(Implementation.REFERENCE):
            asked = attention(q, q, q, mask=BlockCausal(chunk=2))
    assert ran == [("attention", Implementation.SDPA), ("attention", Implementation.REFERENCE)]
    assert torch.allclose(plain, asked, atol=1e-6)


def test_keys_lose_their_mean_before_they_are_rounded() -> None:
    """Keys far from zero cost int8 attention nothing, as SageAttention promises."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 64, 2, 16) for _ in range(3))
    want = attention(q, k, v)
    for offset in (0.0, 50.0):
        assert float((int8_attention(q, k + offset, v) - want).norm() / want.norm()) < 0.02


def test_a_library_that_is_not_there_is_named() -> None:
    """With how to come by it; no operator runs by something else instead."""
    told = "flash_attn is not installed; pip install flash-attn"
    with pytest.raises(OperatorUnavailableError, match=told), using(Implementation.FLASH_ATTN):
        pass


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: BlockCausal(chunk=0), "chunk 0 must be 1 or more"),
        (lambda: SlidingTile(grid=(2, 3, 4), tile=(1, 2, 2), window=(1, 1, 1)), "does not divide into tiles"),
        (lambda: SlidingTile(grid=(2, 4, 4), tile=(1, 2, 2), window=(3, 1, 1)), r"a window of \(3, 1, 1\) tiles"),
        (lambda: attention(*[torch.randn(1, 4, 2, 4)] * 2, torch.randn(1, 5, 2, 4)), "k and v alike"),
        (lambda: attention(*[torch.randn(1, 4, 1, 300)] * 3), "a head of 300 values is too wide"),
        (lambda: attention(torch.randn(1, 5, 1, 4), *[torch.randn(1, 4, 1, 4)] * 2, mask=BlockCausal(chunk=2)),
         "5 queries have 4 keys"),
        (lambda: attention(*[torch.randn(1, 4, 1, 4)] * 3,
                           mask=SlidingTile(grid=(1, 2, 4), tile=(1, 1, 2), window=(1, 1, 1))), "are not the 8 tokens"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(call: object, sentence: str) -> None:
    """One sentence with what was given."""
    assert callable(call)
    with pytest.raises(ValueError, match=sentence):
        call()
