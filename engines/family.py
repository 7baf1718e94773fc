"""What a model family promises: prompts to embeddings, noise and text to a velocity, latents to frames.

B batch, F pixel frames, C channels, T latent frames, H W latent size, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from engines.parts import CompiledPart, ModelPart
from engines.profile import ShapeProfile
from engines.types import Stage, VideoSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedText:
    """Prompts as the transformer reads them.

    `embeds` is [B, L, D], zero from each row's true length on; `lengths` are those true lengths, the end token counted.
    """

    embeds: torch.Tensor
    lengths: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.lengths)


def joined(parts: Sequence[EncodedText]) -> EncodedText:
    """Several batches of encoded prompts as one, in order."""
    return EncodedText(
        embeds=torch.cat([part.embeds for part in parts]), lengths=tuple(n for part in parts for n in part.lengths)
    )


def padded_text(rows: Sequence[torch.Tensor], columns: int) -> EncodedText:
    """Embeddings [L, D] of single prompts as a batch [B, columns, D], zero behind each one's own."""
    embeds = rows[0].new_zeros((len(rows), columns, rows[0].shape[1]))
    for target, own_LD in zip(embeds, rows, strict=True):
        target[: len(own_LD)] = own_LD
    return EncodedText(embeds=embeds, lengths=tuple(len(own_LD) for own_LD in rows))


def empty_text(like: EncodedText, rows: int) -> EncodedText:
    """`rows` rows of nothing but padding, for places in a batch that no request fills."""
    return EncodedText(embeds=like.embeds.new_zeros((rows, *like.embeds.shape[1:])), lengths=(0,) * rows)


class PromptEncoder(Protocol):
    """Whatever turns prompts into embeddings: a family, or what remembers for one."""

    def encode(self, prompts: Sequence[str]) -> EncodedText:
        """As `Family.encode`."""
        ...


class Family(Protocol):
    """A loaded model. No row of any batch may influence another; nothing here keeps state between calls."""

    device: torch.device
    text_columns: int
    """L of every batch that `encode` gives."""

    def latent_shape(self, spec: VideoSpec) -> tuple[int, int, int, int]:
        """(C, T, H, W) of the latents of such a film."""
        ...

    def encode(self, prompts: Sequence[str]) -> EncodedText:
        """Embeddings of the prompts, each computed alone."""
        ...

    def condition(self, text: EncodedText) -> Any:
        """What `velocity` wants of a batch's text: all that is the same at every step, computed once."""
        ...

    def velocity(self, latents_BCTHW: torch.Tensor, timestep: torch.Tensor, condition: Any) -> torch.Tensor:
        """One transformer call for all rows: the predicted flow velocity, float32, at one (scalar) timestep.

        Gradients are recorded unless the caller says otherwise, as the denoising loop does.
        """
        ...

    def decode(self, latents_CTHW: torch.Tensor, *, tiled: bool = False) -> torch.Tensor:
        """Frames of one film, uint8 [F, H * spatial, W * spatial, 3] on the CPU; `tiled` needs less memory for it."""
        ...

    def use_operators(self, eight_bits: Literal["int8", "fp8"] | None = None) -> None:
        """Have our operators compute from now on: Triton's on a GPU, their references elsewhere; in 8 bits if asked to.

        InvalidModel where the parts are not ones that operators are known for.
        """
        ...

    def parts_to_compile(
        self, usual: VideoSpec, corners: tuple[VideoSpec, VideoSpec], profile: ShapeProfile, *, operators: bool
    ) -> tuple[ModelPart, ...]:
        """What a compiler is given, for films between the two `corners`, tuned for the `usual` one.

        With `operators` our own ones may stand in the parts, for a compiler that leaves them whole.
        """
        ...

    def use_compiled(self, parts: Mapping[str, CompiledPart]) -> None:
        """Have compiled parts compute from now on, by the names that `parts_to_compile` gave them."""
        ...

    def keep_only(self, stage: Stage | None) -> None:
        """Send to host memory what `stage` does not need, and bring back what it does; None brings all back."""
        ...
