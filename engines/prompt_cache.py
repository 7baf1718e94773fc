"""Embeddings of the prompts that were asked last: a negative prompt, a seed tried anew and a retry cost no encoder.

L tokens, D width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from engines.family import EncodedText, Family

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
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._kept]
        if len(missing) == len(set(prompts)):
            fresh = self._family.encode(prompts)
            for prompt, row, length in zip(prompts, fresh.embeds, fresh.lengths, strict=True):
                self._keep(prompt, row[:length])
            return fresh
        rows = {prompt: self._kept[prompt] for prompt in prompts if prompt in self._kept}
        if missing:
            encoded = self._family.encode(missing)
            for prompt, row, length in zip(missing, encoded.embeds, encoded.lengths, strict=True):
                rows[prompt] = row[:length]
        for prompt, own_LD in rows.items():
            self._keep(prompt, own_LD)
        return self._padded([rows[prompt] for prompt in prompts])

    def _padded(self, rows: list[torch.Tensor]) -> EncodedText:
        columns = self._family.text_columns
        embeds = rows[0].new_zeros((len(rows), columns, rows[0].shape[1]))
        for target, own_LD in zip(embeds, rows, strict=True):
            target[: len(own_LD)] = own_LD
        return EncodedText(embeds=embeds, lengths=tuple(len(own_LD) for own_LD in rows))

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
