"""The published Wan models at full size, on the meta device: names, shapes, counts and exact cost, no weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode

from engines.catalog import PUBLISHED as KNOWN_HUB_IDS
from engines.components import build_on_meta, compare_tensors, expected_shapes
from engines.errors import InvalidModel
from engines.families.wan import Wan, WanParts
from engines.families.wan_configs import PUBLISHED
from engines.family import EncodedText
from engines.model_folder import tensor_shapes
from engines.types import VideoSpec

SMALL, LARGE, EXPERTS, TI2V = (
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "Wan-AI/Wan2.1-T2V-14B-Diffusers",
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
)
# The layout of diffusers' published safetensors, written out: a rename in the library would leave every download
# unreadable, and must be seen here first.
OUTSIDE_BLOCKS = {
    "patch_embedding.weight",
    "patch_embedding.bias",
    *(
        f"condition_embedder.{module}.{part}"
        for module in (
            "time_embedder.linear_1",
            "time_embedder.linear_2",
            "time_proj",
            "text_embedder.linear_1",
            "text_embedder.linear_2",
        )
        for part in ("weight", "bias")
    ),
    "scale_shift_table",
    "proj_out.weight",
    "proj_out.bias",
}
IN_EACH_BLOCK = {
    "scale_shift_table",
    "norm2.weight",
    "norm2.bias",
    "ffn.net.0.proj.weight",
    "ffn.net.0.proj.bias",
    "ffn.net.2.weight",
    "ffn.net.2.bias",
    *(
        f"{attention}.{module}.{part}"
        for attention in ("attn1", "attn2")
        for module in ("to_q", "to_k", "to_v", "to_out.0")
        for part in ("weight", "bias")
    ),
    *(f"{attention}.{norm}.weight" for attention in ("attn1", "attn2") for norm in ("norm_q", "norm_k")),
}


def meta_wan(name: str) -> Wan:
    parts: Any = {"tokenizer": None, "text_encoder": None, "transformer_low": None, "boundary": None}
    model = PUBLISHED[name]
    return Wan(
        WanParts(
            transformer=build_on_meta(WanTransformer3DModel, model.transformer),
            vae=build_on_meta(AutoencoderKLWan, model.vae),
            **parts,
        ),
        torch.device("meta"),
    )


@pytest.mark.parametrize(
    ("name", "parameters"), [(SMALL, 1_418_996_800), (LARGE, 14_288_491_584), (TI2V, 4_999_787_712)]
)
def test_parameter_counts(name: str, parameters: int) -> None:
    """The transformers have exactly the published number of parameters."""
    model = build_on_meta(WanTransformer3DModel, PUBLISHED[name].transformer)
    assert sum(tensor.numel() for tensor in model.parameters()) == parameters


@pytest.mark.parametrize("name", PUBLISHED)
def test_tensor_names_are_those_of_the_published_files(name: str) -> None:
    """Every tensor that a published safetensors file holds is expected, and no other."""
    config = PUBLISHED[name].transformer
    names = set(expected_shapes(WanTransformer3DModel, config))
    blocks = {f"blocks.{index}.{name}" for index in range(config["num_layers"]) for name in IN_EACH_BLOCK}
    assert names == OUTSIDE_BLOCKS | blocks


def test_tensor_shapes_of_the_14b() -> None:
    """Some shapes, written out, of the file that 14B users download."""
    shapes = expected_shapes(WanTransformer3DModel, PUBLISHED[LARGE].transformer)
    assert shapes["patch_embedding.weight"] == (5120, 16, 1, 2, 2)
    assert shapes["blocks.39.attn2.to_k.weight"] == (5120, 5120)
    assert shapes["blocks.0.ffn.net.0.proj.weight"] == (13824, 5120)
    assert shapes["condition_embedder.text_embedder.linear_1.weight"] == (5120, 4096)
    assert shapes["condition_embedder.time_proj.weight"] == (30720, 5120)
    assert shapes["proj_out.weight"] == (64, 5120)


@pytest.mark.parametrize(("name", "teraflop"), [(SMALL, 283.0), (LARGE, 1678.4)])
def test_cost_of_one_forward(name: str, teraflop: float) -> None:
    """One call of the family's own velocity at 81 frames of 480x832 costs what the published models cost."""
    wan = meta_wan(name)
    shape_CTHW = wan.latent_shape(VideoSpec(width=832, height=480, num_frames=81, fps=16))
    assert shape_CTHW == (16, 21, 60, 104)
    text = EncodedText(embeds=torch.empty(1, 512, 4096, device="meta"), lengths=(9,))
    with FlopCounterMode(display=False) as counter:
        velocity = wan.velocity(torch.empty(1, *shape_CTHW, device="meta"), torch.tensor(500), wan.condition(text))
    assert velocity.shape == (1, *shape_CTHW)
    assert counter.get_total_flops() / 1e12 == pytest.approx(teraflop, abs=0.05)


def test_latent_shape_of_the_5b() -> None:
    """Wan 2.2's 5B packs 16x16 pixels into 48 channels."""
    spec = VideoSpec(width=1280, height=704, num_frames=121, fps=24)
    assert meta_wan(TI2V).latent_shape(spec) == (48, 31, 44, 80)


def test_every_published_model_is_in_the_catalogue() -> None:
    """The hub ids that the catalogue names are those whose layout is held here."""
    assert set(KNOWN_HUB_IDS) == set(PUBLISHED)
    assert PUBLISHED[EXPERTS].experts == 2


def test_the_loader_reads_the_names_that_diffusers_writes(tiny_wan: Path) -> None:
    """What diffusers saves is, by name and shape, what the loader expects of the same config."""
    for folder, cls in (("transformer", WanTransformer3DModel), ("vae", AutoencoderKLWan)):
        config = json.loads((tiny_wan / folder / "config.json").read_text())
        compare_tensors(folder, tensor_shapes(tiny_wan / folder), expected_shapes(cls, config))


def test_weights_of_another_size_are_refused_by_name() -> None:
    """1.3B weights under the 14B config, or with a block missing, are told before any of them is read."""
    small, large = (expected_shapes(WanTransformer3DModel, PUBLISHED[name].transformer) for name in (SMALL, LARGE))
    with pytest.raises(InvalidModel, match=r"lacks 270 of 1095 tensors of its config, 'blocks\.30\."):
        compare_tensors("transformer", small, large)
    with pytest.raises(InvalidModel, match=re.escape("holds 270 tensors")):
        compare_tensors("transformer", large, small)
    bent = small | {"proj_out.weight": (64, 5120)}
    with pytest.raises(InvalidModel, match=re.escape("proj_out.weight is [64, 5120], and by its config [64, 1536]")):
        compare_tensors("transformer", bent, small)
