"""A Wan that learns behind the engine's interface: its rollouts, their replay and its validation are one function.

B batch, C channels, T latent frames, H W latent size, K text columns kept, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from engines.backends.eager import EagerBackend
from engines.family import EncodedText, Family
from post_train.attention import TEXT_TOKENS, TrainingAttention, padding_bias
from post_train.precision import Precision

_COLUMNS_STEP = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptText:
    """Text columns [B, K, D] with what their padding's logits are raised by; `bias` is None where all 512 are there."""

    states: torch.Tensor
    bias: torch.Tensor | None


class LearningBackend(EagerBackend):
    """The engine's backend of a transformer in training, with the attention that training wants.

    At least `columns` text columns are kept of every prompt, lest a compiled transformer meet many shapes: `compiled`
    computes batches of `compiled_rows`, and the transformer itself those of any other number, which come once and not
    again.
    """

    def __init__(
        self,
        family: Family,
        transformer: WanTransformer3DModel,
        cross: TrainingAttention,
        *,
        precision: Precision,
        columns: int,
        compiled: Callable[..., Any] | None = None,
        compiled_rows: frozenset[int] = frozenset(),
    ) -> None:
        super().__init__(family)
        self._transformer, self._cross = transformer, cross
        self._compiled, self._compiled_rows = compiled, compiled_rows
        self._precision: Precision = precision
        self._columns = columns

    def condition(self, text: EncodedText) -> KeptText:
        columns = columns_for(max(text.lengths), self._columns)
        # A copy outside inference mode, for gradients are taken through what reads it.
        with torch.inference_mode(mode=False):
            states = text.embeds[:, :columns].clone()
            bias = None
            if columns < TEXT_TOKENS:
                bias = padding_bias(torch.tensor(text.lengths), columns).to(states.device)
        return KeptText(states=states, bias=bias)

    def velocity(self, latents_BCTHW: torch.Tensor, timestep: torch.Tensor, condition: KeptText) -> torch.Tensor:
        device = latents_BCTHW.device
        self._cross.bias = condition.bias
        bf16, wanted = self._precision == "bf16", torch.is_grad_enabled()
        # FSDP keeps the weights that it brought together, and those of inference mode could never be learnt again.
        with (
            torch.inference_mode(mode=False),
            torch.set_grad_enabled(wanted),
            torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False),
        ):
            out = self._computing(len(latents_BCTHW))(
                latents_BCTHW.to(self._transformer.dtype if bf16 else torch.float32),
                timestep.to(device).reshape(1),
                condition.states,
                return_dict=False,
            )[0]
        return out.float()

    def _computing(self, rows: int) -> Callable[..., Any]:
        if self._compiled is None or rows not in self._compiled_rows:
            return self._transformer
        return self._compiled


def columns_for(longest: int, least: int = 0) -> int:
    """Columns for prompts of so many tokens: a zero one stands for their padding, unless all 512 are a prompt's own."""
    needed = -(-(longest + 1) // _COLUMNS_STEP) * _COLUMNS_STEP
    return min(TEXT_TOKENS, max(needed, least))
