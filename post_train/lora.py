"""Low-rank adapters on a Wan transformer by peft, and the files that stock diffusers loads them from.

Hu et al., arXiv 2106.09685: W x becomes W x + (alpha / rank) B A x, where only A [rank, in] and B [out, rank] learn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from peft import LoraConfig
from peft.utils.save_and_load import get_peft_model_state_dict
from torch import nn

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TARGETS = (*ATTENTION, "ffn.net.0.proj", "ffn.net.2")
LORA_FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """An adapter: its rank, alpha, by which it is scaled as alpha / rank, and which projections it stands beside."""

    rank: int
    alpha: float
    targets: tuple[str, ...] = TARGETS

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(f"a LoRA has a rank of 1 or more and an alpha above 0, got {self.rank} and {self.alpha}")
        # A manifest has it as a list.
        object.__setattr__(self, "targets", tuple(self.targets))


class TrainedOnly(nn.Module):
    """A module seen through its trained weights alone, under their own names, for optimizer, average, checkpoint."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, nn.Parameter]]:
        return ((n, p) for n, p in self.module.named_parameters() if p.requires_grad)


def add_lora(transformer: WanTransformer3DModel, lora: Lora) -> None:
    """Puts an adapter in fp32 beside the projections that it names; all other weights are frozen from then on.

    B begins at zero, so the model is at first what it was; A is drawn from torch's global generator.
    """
    transformer.requires_grad_(requires_grad=False)
    transformer.add_adapter(
        LoraConfig(
            r=lora.rank,
            lora_alpha=cast("int", lora.alpha),
            target_modules=list(lora.targets),
            init_lora_weights="gaussian",
        )
    )
    # Beside a model in bf16 it would be in bf16, too coarse for small updates to move it.
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def merge_lora(transformer: WanTransformer3DModel) -> None:
    """Adds the adapter to the weights that it stands beside, and removes it."""
    transformer.fuse_lora()
    transformer.unload_lora()


def save_lora(transformer: WanTransformer3DModel, lora: Lora, folder: Path) -> None:
    """Writes the adapter for `WanPipeline.load_lora_weights(folder)`; its scale goes with it."""
    WanPipeline.save_lora_weights(
        folder,
        transformer_lora_layers=cast("Any", get_peft_model_state_dict(transformer)),
        transformer_lora_adapter_metadata={
            "r": lora.rank,
            "lora_alpha": lora.alpha,
            "target_modules": list(lora.targets),
        },
        weight_name=LORA_FILE,
    )
