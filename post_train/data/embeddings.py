"""Prompt embeddings of a frozen text encoder, computed once and kept on disk.

Legend: L a prompt's own tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from engines.families.wan import Wan
from post_train.data.keyed_files import KeyedFiles
from post_train.keys import key_of

# Counts up whenever the same text would get another embedding.
CODE_VERSION = 1


def embedding_key(prompt: str, *, text_encoder: str, code: int = CODE_VERSION) -> str:
    """What an embedding is kept under: the prompt, the digest of encoder and tokenizer, and the code's version."""
    return key_of({"kind": "embedding", "prompt": prompt, "text_encoder": text_encoder, "code": code})


class PromptEmbeddings:
    """Embeddings [L, D] of prompts as the engine makes them: the true tokens, without padding, in float32."""

    def __init__(self, root: Path, *, text_encoder: str) -> None:
        self._files = KeyedFiles(root / "embeddings")
        self._text_encoder = text_encoder

    def prepare(self, prompts: Iterable[str], family: Callable[[], Wan]) -> int:
        """Encodes the prompts that are not on disk yet and tells how many; `family` is called when there are any."""
        missing = [p for p in dict.fromkeys(prompts) if self._key(p) not in self._files]
        for prompt in missing:
            text = family().encode([prompt])
            own = text.embeds[0, : text.lengths[0]].float().cpu()
            if not bool(torch.isfinite(own).all()):
                raise ValueError(f"the text encoder gives no finite embedding for {prompt!r:.100}")
            self._files.write(self._key(prompt), {"embeds": own.clone()})
        return len(missing)

    def read(self, prompt: str) -> Tensor:
        """The embedding [L, D] of a prompt that was prepared."""
        return self._files.read(self._key(prompt))["embeds"]

    def length(self, prompt: str) -> int:
        """How many tokens of its own a prompt has that was prepared."""
        return self._files.shape(self._key(prompt), "embeds")[0]

    def _key(self, prompt: str) -> str:
        return embedding_key(prompt, text_encoder=self._text_encoder)
