"""Builds small Wan models from nothing: a UMT5-style text encoder with its tokenizer, and the transformer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel, WanTransformerBlock
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextEncoderConfig:
    """The text encoder's size; `width` is the transformer's text_dim."""

    vocabulary: int
    width: int
    head_width: int
    heads: int
    feed_forward: int
    layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """The transformer's size; `channels` are the VAE's latent channels."""

    channels: int
    heads: int
    head_width: int
    feed_forward: int
    layers: int
    text_width: int


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A lower-casing byte-level BPE tokenizer: the words of `texts` become single tokens, other text still has some."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[_PAD, _END, _UNKNOWN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {_END}", special_tokens=[(_END, tokenizer.token_to_id(_END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END, unk_token=_UNKNOWN, model_max_length=512
    )


def build_text_encoder(config: TextEncoderConfig) -> UMT5EncoderModel:
    """A UMT5 encoder with random weights and no dropout."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=config.vocabulary,
            d_model=config.width,
            d_kv=config.head_width,
            d_ff=config.feed_forward,
            num_layers=config.layers,
            num_heads=config.heads,
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
        )
    )


def build_transformer(config: TransformerConfig) -> WanTransformer3DModel:
    """A Wan transformer, initialised for training from nothing."""
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=config.heads,
        attention_head_dim=config.head_width,
        in_channels=config.channels,
        out_channels=config.channels,
        text_dim=config.text_width,
        freq_dim=256,
        ffn_dim=config.feed_forward,
        num_layers=config.layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=128,
    )
    _initialise(transformer)
    return transformer


@torch.no_grad()
def _initialise(transformer: WanTransformer3DModel) -> None:
    """Xavier weights, zero biases, a zero output, and padding that is ignored at first.

    A zero text token's key is the key bias alone, which the RMS norm blows up to full length; opposite query and key
    biases give it a low logit, so that the ~490 padding tokens do not drown the prompt while nothing is learnt yet.
    """
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.zeros_(transformer.proj_out.weight)
    for block in transformer.blocks:
        assert isinstance(block, WanTransformerBlock)
        direction = torch.randint(0, 2, block.attn2.to_q.bias.shape).float() * 2 - 1
        block.attn2.to_q.bias.copy_(0.4 * direction)
        block.attn2.to_k.bias.copy_(-0.02 * direction)
