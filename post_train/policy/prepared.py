"""A Wan whose prompts were encoded before it learns, so that their encoder need not stay in memory beside it.

L a prompt's own tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from engines.families.wan import Wan, WanParts
from engines.family import EncodedText, padded_text
from post_train.data.embeddings import PromptEmbeddings


class PreparedWan(Wan):
    """As `Wan`, but it reads embeddings that were prepared; of the encoder in `parts` only its shape is left."""

    def __init__(self, parts: WanParts, device: torch.device, embeddings: PromptEmbeddings) -> None:
        cast(nn.Module, parts.text_encoder).to("meta")
        super().__init__(parts, device)
        self._embeddings = embeddings
        self.use_vae_operators()

    def encode(self, prompts: Sequence[str]) -> EncodedText:
        """Embeddings [B, 512, D] of prompts that were prepared, in the transformer's precision."""
        rows = [self._embeddings.read(prompt).to(self.device, self._dtype) for prompt in prompts]
        return padded_text(rows, self.text_columns)
