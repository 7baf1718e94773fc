"""A Wan transformer in 8 bits stays near the one it was made from, by the references and by the twins alike."""

from __future__ import annotations

import pytest
import torch

from engines.errors import InvalidModel
from engines.operators.wan_eight_bits import EightBitBlock, use_eight_bits
from kernels.dispatch import Implementation, recorded, using
from tests.engines.operators.test_wan import _inputs, _small

# Relative error of a whole forward of two blocks, |got - want| / |want|: int8 has 7 bits and fp8 e4m3 3 of a number.
_BUDGETS = {"int8": 4e-3, "fp8": 2e-2}


def _forward(model: torch.nn.Module, *, each_token: bool = False) -> torch.Tensor:
    with torch.no_grad():
        return model(**_inputs(each_token=each_token), return_dict=False)[0]


def _error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).norm() / want.norm())


@pytest.mark.parametrize("each_token", [False, True])
@pytest.mark.parametrize("form", ["int8", "fp8"])
def test_a_forward_keeps_to_its_budget(form: str, each_token: bool) -> None:
    """A whole forward in 8 bits, with a time for all tokens or for each; not equal, or nothing was rounded."""
    model = _small()
    want = _forward(model, each_token=each_token)
    use_eight_bits(model, form)  # type: ignore[arg-type]
    with recorded() as ran:
        got = _forward(model, each_token=each_token)
    assert 1e-5 < _error(got, want) <= _BUDGETS[form]
    products = ["quantized_norm", *["quantized_linear"] * 3, "qk_norm_rope", "attention", "quantize_rows"]
    assert [name for name, _ in ran][:8] == [*products, "quantized_linear"]


def test_the_twins_round_alike() -> None:
    """Every kernel in the interpreter: as far from the exact forward as the references are."""
    model = _small(num_layers=1)
    want = _forward(model)
    use_eight_bits(model, "int8")
    plain = _forward(model)
    with using(Implementation.INTERPRETER):
        twin = _forward(model)
    assert _error(twin, want) <= _BUDGETS["int8"]
    assert _error(twin, plain) <= 1e-3


def test_weights_are_bytes() -> None:
    """The products of tokens hold one byte a weight, those of the prompt and the norms are as they were."""
    block = _small().blocks[0]
    products = (block.attn1.to_q, block.attn1.to_k, block.attn1.to_v, block.attn1.to_out[0], block.attn2.to_q)
    weights = [m.weight for m in (*products, block.attn2.to_out[0], block.ffn.net[0].proj, block.ffn.net[2])]
    model = _small()
    use_eight_bits(model, "int8")
    rounded = [b for b in model.blocks[0].buffers() if b.dtype == torch.int8]
    assert sorted(b.numel() for b in rounded) == sorted(w.numel() for w in weights)
    assert torch.equal(model.blocks[0].attn2.to_k.weight, block.attn2.to_k.weight)


def test_what_is_not_known_is_refused() -> None:
    """Another format, or one block that is not Wan's: a sentence, and no block is replaced."""
    model = _small()
    with pytest.raises(ValueError, match="'int4' is no 8-bit format; use int8 or fp8"):
        use_eight_bits(model, "int4")  # type: ignore[arg-type]
    model.blocks[1] = torch.nn.Identity()
    with pytest.raises(InvalidModel, match="block 1 is a Identity"):
        use_eight_bits(model, "int8")
    assert not any(isinstance(block, EightBitBlock) for block in model.blocks)


def test_a_layer_that_is_not_plain_is_refused() -> None:
    """A LoRA around one projection of the second block: a sentence that names it, and no block is replaced."""
    model = _small()
    model.blocks[1].attn1.to_q = torch.nn.Sequential(model.blocks[1].attn1.to_q)
    with pytest.raises(InvalidModel, match=r"attn1.to_q of block 1 is a Sequential; .*\(a LoRA is merged first\)"):
        use_eight_bits(model, "int8")
    assert not any(isinstance(block, EightBitBlock) for block in model.blocks)


@pytest.mark.parametrize("form", ["int8", "fp8"])
def test_a_cast_leaves_rounded_weights_alone(form: str) -> None:
    """`.to(bfloat16)` is for what is not rounded: bytes and their scales would mean something else in another dtype."""
    model = _small()
    use_eight_bits(model, form)  # type: ignore[arg-type]
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "weight" in name}
    assert before
    model.to(torch.bfloat16)
    after = dict(model.named_buffers())
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())
