"""What of a Wan model is compiled: a denoising step of each expert, and the decoder. See `engines.parts`.

Legend: B rows, C latent channels, T latent frames, H W latent size, K text columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn
from torch.export import Dim

from engines.operators import whole_clip
from engines.operators.wan_prompt import PromptKeys
from engines.operators.wan_step import StepPrompts, WanStep, step_prompts
from engines.parts import CompiledPart, ModelPart
from engines.profile import ShapeProfile

STEPS, DECODER = ("step", "step_low"), "decoder"
# Prompts are padded to a multiple of so many columns, and no sum depends on how many that are.
COLUMNS_STEP = 64
_USUAL_COLUMNS, _MAX_COLUMNS = 128, 512
# Of fewer latent frames the decoder takes another path, which a compiler cannot be told of.
DECODED_FRAMES = 3


class Decoder(nn.Module):
    """The video [1, 3, F, H, W] of latents [1, C, T, h, w], all frames in one pass."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        return whole_clip.decode(self.vae, latents)


def columns_of(rows: Sequence[PromptKeys]) -> int:
    """To how many columns the prompts of a batch are padded."""
    longest = max(row.raised.shape[1] for row in rows)
    return min(_MAX_COLUMNS, -(-longest // COLUMNS_STEP) * COLUMNS_STEP)


def compiled_velocity(step: CompiledPart, latents: Tensor, time: Tensor, prompts: StepPrompts) -> Tensor:
    """A compiled step, called as `WanStep` is."""
    return step(latents, time, prompts.keys, prompts.values, prompts.raised)


def step_part(
    name: str,
    transformer: WanTransformer3DModel,
    rows: Sequence[PromptKeys],
    shape: tuple[int, int, int, int],
    bounds: tuple[tuple[int, int, int, int], tuple[int, int, int, int]],
    profile: ShapeProfile,
) -> ModelPart:
    """The step of one expert for latents of `shape` (C, T, H, W), and of any size between the two of `bounds`."""
    prompts = step_prompts(rows, _USUAL_COLUMNS)
    latents = torch.zeros(len(rows), *shape, dtype=transformer.dtype, device=prompts.keys.device)
    _, height, width = transformer.config["patch_size"]
    batch = _dim("rows", 1, profile.max_rows)
    columns = COLUMNS_STEP * Dim("columns", min=1, max=_MAX_COLUMNS // COLUMNS_STEP)
    low, high = bounds
    sizes = {
        2: _dim("frames", low[1], high[1]),
        3: _dim("height", low[2], high[2], step=height),
        4: _dim("width", low[3], high[3], step=width),
    }
    return ModelPart(
        name=name,
        module=WanStep(transformer).eval(),
        inputs=("latents", "time", "keys", "values", "raised"),
        examples=(latents, torch.tensor([500.0], device=latents.device), prompts.keys, prompts.values, prompts.raised),
        dynamic=(
            _some({0: batch, **sizes}),
            None,
            _some({1: batch, 3: columns}),
            _some({1: batch, 3: columns}),
            _some({0: batch, 3: columns}),
        ),
    )


def decoder_part(
    vae: AutoencoderKLWan,
    shape: tuple[int, int, int, int],
    bounds: tuple[tuple[int, int, int, int], tuple[int, int, int, int]],
) -> ModelPart:
    """The decoder of one film, of `DECODED_FRAMES` latent frames or more."""
    low, high = bounds
    return ModelPart(
        name=DECODER,
        module=Decoder(vae).eval(),
        inputs=("latents",),
        examples=(torch.zeros(1, *shape, device=vae.device),),
        dynamic=(
            _some(
                {
                    2: _dim("frames", max(low[1], DECODED_FRAMES), high[1]),
                    3: _dim("height", low[2], high[2]),
                    4: _dim("width", low[3], high[3]),
                }
            ),
        ),
    )


def _dim(name: str, low: int, high: int, *, step: int = 1) -> object:
    """A dimension between two sizes, both multiples of `step`; None where there is but one."""
    if low == high:
        return None
    size = Dim(name, min=low // step, max=high // step)
    return size if step == 1 else step * size


def _some(sizes: dict[int, object]) -> dict[int, object]:
    return {at: size for at, size in sizes.items() if size is not None}
