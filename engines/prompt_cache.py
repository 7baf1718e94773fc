"""Embeddings of the prompts that were asked last: a negative prompt, a seed tried anew and a retry cost no encoder.

L tokens, D width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from engines.family import EncodedText, Family, padded_text

_MOST_BYTES = 64 << 20  # sixteen prompts of 512 tokens for a 14B model in bf16; tens of thousands for the built-in one


class PromptCache:
    """What `Family.encode` says, remembered to the bit and up to so many bytes; the longest unasked goes first."""

    def __init__(self, family: Family, *, most_bytes: int = _MOST_BYTES) -> None:
        self._family = family
        self._most = most_bytes
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._bytes = 0

    def encode(self, prompts: Sequence[str]) -> EncodedText:
        """As the family's own; only prompts that are not remembered reach the encoder, in one call."""
        rows = {prompt: self._kept[prompt] for prompt in prompts if prompt in self._kept}
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in rows]
        if missing:
            fresh = self._family.encode(missing)
            rows |= {p: row[:n] for p, row, n in zip(missing, fresh.embeds, fresh.lengths, strict=True)}
        for prompt, own_LD in rows.items():
            self._keep(prompt, own_LD)
        return padded_text([rows[prompt] for prompt in prompts], self._family.text_columns)

    def _keep(self, prompt: str, own_LD: torch.Tensor) -> None:
        if prompt in self._kept:
            self._kept.move_to_end(prompt)
            return
        kept = own_LD.clone()  # a view would keep the padding as well
        self._kept[prompt] = kept
        self._bytes += kept.nbytes
        while self._bytes > self._most:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes
