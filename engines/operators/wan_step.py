"""One denoising step of a Wan transformer as a function of tensors alone, in operations that every exporter knows.

What a compiler is given: no text (a prompt's keys and values come ready made, `wan_prompt`), no processors, no slices
that are written to. B batch, C channels, T latent frames, H W latent size, L tokens, D width, K text columns, N heads,
E width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel, WanTransformerBlock
from torch import Tensor, nn
from torch.nn import functional as F

from engines.operators.wan import check_diffusers, checked_block, modulations
from engines.operators.wan_prompt import PromptKeys, eps_of
from kernels.reference import gated_residual, modulated_norm, normalised, qk_norm_rope

HIDDEN = float("-inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPrompts:
    """Of the rows of a batch: keys and values [blocks, B, N, K, E], and what columns are raised by, [B, 1, 1, K].

    K is the same for all batches, so that a row's sums do not depend on how long its mates' prompts are.
    """

    keys: Tensor
    values: Tensor
    raised: Tensor


def step_prompts(rows: Sequence[PromptKeys], columns: int) -> StepPrompts:
    """Prompts padded to `columns` with columns that no one sees."""

    def padded(of_row: int) -> Tensor:
        each = [torch.stack([block[of_row][0] for block in row.blocks]) for row in rows]  # [blocks, N, K, E] each
        return torch.stack([F.pad(x, (0, 0, 0, columns - x.shape[2])) for x in each], 1)

    raised = [F.pad(row.raised, (0, columns - row.raised.shape[1]), value=HIDDEN) for row in rows]
    return StepPrompts(keys=padded(0), values=padded(1), raised=torch.stack(raised)[:, None].float())


class WanStep(nn.Module):
    """The velocity [B, C, T, H, W] at latents of that shape, one time [1] and the batch's prompts.

    It has the weights of the transformer that it is made of. InvalidModel for blocks that are not known.
    """

    def __init__(self, transformer: WanTransformer3DModel) -> None:
        super().__init__()
        check_diffusers()
        for index, block in enumerate(transformer.blocks):
            checked_block(block, index)
        self.transformer = transformer

    def forward(self, latents: Tensor, time: Tensor, keys: Tensor, values: Tensor, raised: Tensor) -> Tensor:
        t = self.transformer
        cos, sin = (angles[0, :, 0] for angles in t.rope(latents))
        angles = cos[:, 0::2], sin[:, 1::2]
        x = t.patch_embedding(latents).flatten(2).transpose(1, 2)
        embedder = t.condition_embedder
        of_time = embedder.time_embedder(embedder.timesteps_proj(time).to(x.dtype))
        modulation = embedder.time_proj(F.silu(of_time)).unflatten(1, (6, -1))
        for index, block in enumerate(t.blocks):
            assert isinstance(block, WanTransformerBlock)
            x = _block(block, x, modulation, angles, (keys[index], values[index], raised))
        shift, scale = (t.scale_shift_table + of_time.float()[:, None]).chunk(2, 1)
        x = modulated_norm(x, scale, shift, None, None, t.norm_out.eps, rms=False)
        return _unpatched(t.proj_out(x), latents.shape, t.config["patch_size"]).float()


def _block(
    block: WanTransformerBlock,
    x: Tensor,
    modulation: Tensor,
    angles: tuple[Tensor, Tensor],
    prompts: tuple[Tensor, Tensor, Tensor],
) -> Tensor:
    shift, scale, gate, cross_shift, cross_scale, cross_gate = modulations(block.scale_shift_table, modulation, 1)
    own, cross, affine = block.attn1, block.attn2, block.norm2
    assert isinstance(affine, FP32LayerNorm)
    y = modulated_norm(x, scale, shift, None, None, block.norm1.eps, rms=False)
    q, k = qk_norm_rope(
        own.to_q(y), own.to_k(y), own.norm_q.weight, own.norm_k.weight, *angles, own.heads, eps_of(own.norm_q)
    )
    v = own.to_v(y).unflatten(2, (own.heads, -1))
    seen = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    x = gated_residual(x, own.to_out[0](seen.transpose(1, 2).flatten(2)), gate)
    y = modulated_norm(x, None, None, affine.weight, affine.bias, affine.eps, rms=False)
    q = (normalised(cross.to_q(y), eps_of(cross.norm_q), rms=True) * cross.norm_q.weight).to(y.dtype)
    keys, values, raised = prompts
    q = q.unflatten(2, (cross.heads, -1)).transpose(1, 2)
    seen = F.scaled_dot_product_attention(q, keys, values, attn_mask=raised.to(q.dtype))
    x = gated_residual(x, cross.to_out[0](seen.transpose(1, 2).flatten(2)), None)
    y = modulated_norm(x, cross_scale, cross_shift, None, None, block.norm3.eps, rms=False)
    into, out = block.ffn.get_submodule("net.0.proj"), block.ffn.get_submodule("net.2")
    return gated_residual(x, out(F.gelu(into(y), approximate="tanh")), cross_gate)


def _unpatched(tokens: Tensor, shape: torch.Size, patch: tuple[int, int, int]) -> Tensor:
    """[B, L, ...] as [B, C, T, H, W]: every token is a block of `patch` latents."""
    batch, _, frames, rows, columns = shape
    t, h, w = patch
    x = tokens.reshape(batch, frames // t, rows // h, columns // w, t, h, w, -1)
    return x.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
