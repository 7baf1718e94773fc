"""A few text columns with a logit bias equal Wan's attention over 512 padded ones."""

from __future__ import annotations

import pytest
import torch

from post_train.attention import TEXT_TOKENS, padding_bias, use_training_attention
from post_train.small_wan import TransformerConfig, build_transformer


def test_folded_equals_padded_to_512() -> None:
    """The transformer's output is the same to rounding for prompts of different length, and so are its gradients."""
    torch.manual_seed(0)
    config = TransformerConfig(channels=4, heads=2, head_width=24, feed_forward=64, layers=2, text_width=16)
    transformer = build_transformer(config)
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.1)
    x, t = torch.randn(3, 4, 2, 4, 4), torch.tensor([10.0, 500.0, 990.0])
    lengths = torch.tensor([1, 7, 19])
    text = torch.randn(3, TEXT_TOKENS, 16) * (torch.arange(TEXT_TOKENS)[None, :, None] < lengths[:, None, None])
    padded = transformer(x, t, text, return_dict=False)[0]
    (wanted,) = torch.autograd.grad(padded.square().sum(), transformer.blocks[0].attn2.to_k.weight)
    processor = use_training_attention(transformer)
    processor.bias = padding_bias(lengths, 24)
    folded = transformer(x, t, text[:, :24], return_dict=False)[0]
    (gradient,) = torch.autograd.grad(folded.square().sum(), transformer.blocks[0].attn2.to_k.weight)
    assert torch.allclose(folded, padded, atol=1e-5)
    assert torch.allclose(gradient, wanted, atol=1e-4)
    processor.bias = None
    plain = transformer(x, t, text[:, :24], return_dict=False)[0]
    assert not torch.allclose(plain, padded, atol=1e-3), "the bias must matter, or this test proves nothing"


@pytest.mark.parametrize(("length", "columns"), [(24, 24), (5, 600)])
def test_columns_must_leave_room_for_padding(length: int, columns: int) -> None:
    """A prompt that fills every column, or more columns than 512, is refused."""
    with pytest.raises(ValueError, match="cannot stand for"):
        padding_bias(torch.tensor([length]), columns)
