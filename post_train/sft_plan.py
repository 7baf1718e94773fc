"""What a fine-tuning run will need, told before it starts: parameters, memory on each rank and FLOPs of a step.

Nothing is loaded: the transformer is built on the meta device, where parameters are counted and FLOPs of one forward
pass are counted operator by operator. The formulas that the figures come from are printed with them.
Legend: L tokens of a clip, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from engines.catalog import find_model
from engines.components import build_on_meta
from engines.families.wan_configs import PUBLISHED
from engines.model_folder import read_config
from engines.types import VideoSpec
from post_train.algorithms.sft import SftConfig, check_optimizer, rows_per_rank
from post_train.attention import TEXT_TOKENS
from post_train.lora import TARGETS, Lora
from post_train.model_parts import check_training_spec, trainable_card
from post_train.recipes.sft import Geometry, SftRecipe, check_run

# What the published models were made for, where there is no folder to ask.
_PUBLISHED_SPEC = VideoSpec(width=832, height=480, num_frames=81, fps=16)
_TI2V_SPEC = VideoSpec(width=1280, height=704, num_frames=121, fps=24)
_GIB = 2**30
_COMPUTED = 2  # bytes of an activation under autocast to bf16
# Tensors of a Wan block that autograd keeps, in units of L x D: normed and modulated inputs, q, k, v before and after
# norm and rope, attention outputs, cross-attention's own, and the residual stream in fp32.
_KEPT_WIDTHS = 34
_KEPT_FEED_FORWARD = 2  # its hidden layer before and after the activation


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCounts:
    """All that a plan needs of a model and its LoRA, for films of `spec`; FLOPs are of one forward pass over one."""

    name: str
    spec: VideoSpec
    tokens: int
    width: int
    feed_forward: int
    layers: int
    parameters: int
    trained: int
    largest_block: int
    attention_flops: float
    other_flops: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Counts are of the whole model, bytes are of one rank, FLOPs are of one step over all ranks."""

    parameters: int
    trained: int
    weights: float
    gradients: float
    optimizer: float
    average: float
    gathered: float
    activations: float
    forward_flops: float
    step_flops: float

    @property
    def total(self) -> float:
        """Bytes of one rank."""
        return self.weights + self.gradients + self.optimizer + self.average + self.gathered + self.activations


def model_counts(name: str, recipe: SftRecipe) -> ModelCounts:
    """Counts a model by folder, built-in name or published hub id, of which only configs are read."""
    published = PUBLISHED.get(name)
    if published is not None:
        if published.experts > 1:
            raise ValueError(f"{name} has two transformers; training them is not supported")
        ti2v = published.vae.get("scale_factor_spatial", 8) == 16
        spec = _sized(_TI2V_SPEC if ti2v else _PUBLISHED_SPEC, recipe.geometry)
        return _counted(name, published.transformer, published.vae, spec, recipe.sft.lora)
    folder = find_model(name)
    d = trainable_card(folder).defaults
    spec = _sized(VideoSpec(width=d.width, height=d.height, num_frames=d.num_frames, fps=d.fps), recipe.geometry)
    check_training_spec(spec, folder)
    transformer, vae = (read_config(folder / part / "config.json") for part in ("transformer", "vae"))
    return _counted(folder.name, transformer, vae, spec, recipe.sft.lora)


def _sized(spec: VideoSpec, geometry: Geometry) -> VideoSpec:
    return VideoSpec(
        width=geometry.width or spec.width,
        height=geometry.height or spec.height,
        num_frames=geometry.num_frames or spec.num_frames,
        fps=geometry.fps or spec.fps,
    )


def _counted(name: str, config: dict[str, Any], vae: dict[str, Any], spec: VideoSpec, lora: Lora | None) -> ModelCounts:
    spatial, temporal = vae.get("scale_factor_spatial", 8), vae.get("scale_factor_temporal", 4)
    latent = ((spec.num_frames - 1) // temporal + 1, spec.height // spatial, spec.width // spatial)
    patch = config["patch_size"]
    transformer = build_on_meta(WanTransformer3DModel, config)
    attention, other = forward_flops(transformer, (config["in_channels"], *latent))
    parameters = sum(p.numel() for p in transformer.parameters())
    return ModelCounts(
        name=name,
        spec=spec,
        tokens=latent[0] // patch[0] * (latent[1] // patch[1]) * (latent[2] // patch[2]),
        width=config["num_attention_heads"] * config["attention_head_dim"],
        feed_forward=config["ffn_dim"],
        layers=config["num_layers"],
        parameters=parameters,
        trained=parameters if lora is None else lora_parameters(transformer, lora),
        largest_block=max(sum(p.numel() for p in block.parameters()) for block in transformer.blocks),
        attention_flops=attention,
        other_flops=other,
    )


def lora_parameters(transformer: WanTransformer3DModel, lora: Lora) -> int:
    """How many weights an adapter of this rank adds: rank x (in + out) for each projection it stands beside."""
    adapted = (
        module
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Linear) and any(name.endswith(f".{target}") for target in TARGETS)
    )
    return sum(lora.rank * (module.in_features + module.out_features) for module in adapted)


def forward_flops(transformer: WanTransformer3DModel, latent: tuple[int, int, int, int]) -> tuple[float, float]:
    """FLOPs of a forward pass over latents [C, T, H, W], operator by operator: attention's products, and the rest."""
    with torch.device("meta"):
        x = torch.empty(1, *latent)
        text = torch.empty(1, TEXT_TOKENS, transformer.config["text_dim"])
        time = torch.empty(1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        transformer(x, time, text, return_dict=False)
    counts = {str(op): float(n) for op, n in counter.get_flop_counts()["Global"].items()}
    attention = sum(n for op, n in counts.items() if "bmm" in op or "attention" in op)
    return attention, sum(counts.values()) - attention


def activation_bytes(counts: ModelCounts, config: SftConfig, clips: int) -> float:
    """Bytes that `clips` clips, computed at once, keep for their gradient: an estimate by the printed formula."""
    widths = _KEPT_WIDTHS * counts.width + _KEPT_FEED_FORWARD * counts.feed_forward
    block = counts.tokens * widths * _COMPUTED
    entry = counts.tokens * counts.width * _COMPUTED
    layers = counts.layers
    return clips * (layers * entry + block if config.gradient_checkpointing else layers * block)


def plan(counts: ModelCounts, recipe: SftRecipe, ranks: int) -> Plan:
    """The needs of a run of `recipe` on `ranks` ranks, every weight and its slots cut among them by FSDP2."""
    check_optimizer(recipe.sft, ranks)
    clips = min(recipe.sft.micro_batch, rows_per_rank(recipe.sft, ranks))
    trained, full = counts.trained, recipe.sft.lora is None
    frozen_bytes = 2 if recipe.frozen == "bf16" else 4
    slots = 2 if recipe.sft.optimizer == "adamw" else 1
    # Forward 1, backward 2 (1 for frozen matrices, which need no gradient), 1 more to compute what was not kept.
    again = 1 if recipe.sft.gradient_checkpointing else 0
    per_clip = counts.attention_flops * (3 + again) + counts.other_flops * ((3 if full else 2) + again)
    return Plan(
        parameters=counts.parameters,
        trained=trained,
        weights=(4 * trained + (0 if full else frozen_bytes * counts.parameters)) / ranks,
        gradients=4 * trained / ranks,
        optimizer=4 * slots * trained / ranks,
        average=4 * trained / ranks,
        # FSDP2 brings one block together while the next is on its way.
        gathered=0 if ranks == 1 else 2 * counts.largest_block * (4 if full else frozen_bytes),
        activations=activation_bytes(counts, recipe.sft, clips),
        forward_flops=counts.attention_flops + counts.other_flops,
        step_flops=per_clip * recipe.sft.batch,
    )


def plan_of(model: str, recipe: SftRecipe, *, ranks: int) -> str:
    """The plan as a text for people: at 1, 2, 4 and 8 ranks and at `ranks`, where the batch divides among them."""
    tried = {ranks} if recipe.sft.optimizer == "muon" else {ranks, 1, 2, 4, 8}
    fitting = sorted(n for n in tried if n == ranks or recipe.sft.batch % n == 0)
    check_run(recipe, ranks)
    counts = model_counts(model, recipe)
    return _told(counts, recipe, [(n, plan(counts, recipe, n)) for n in fitting])


def _told(counts: ModelCounts, recipe: SftRecipe, plans: Sequence[tuple[int, Plan]]) -> str:
    first, c, spec = plans[0][1], recipe.sft, counts.spec
    lora = "all weights" if c.lora is None else f"a LoRA of rank {c.lora.rank} ({first.trained / 1e6:,.1f}M weights)"
    film = f"{spec.width}x{spec.height}x{spec.num_frames} at {spec.fps} fps = {counts.tokens:,} tokens a clip"
    forward = f"one forward pass over one clip: {first.forward_flops / 1e12:,.3f}"
    columns = ("weights", "gradients", "optimizer", "average", "gathered", "activations", "total")
    lines = [
        f"{counts.name}, recipe {recipe.name}: {lora}, {c.optimizer}, {film}",
        f"parameters   {first.parameters:,}, of which {first.trained:,} are trained",
        f"step         {c.batch} clips, {first.step_flops / 1e12:,.1f} TFLOP ({forward})",
        "",
        "GiB on each rank, where FSDP2 cuts weights, gradients, optimizer and average among them",
        f"{'ranks':>6}{'clips':>7}{'parts':>7}" + "".join(f"{name:>{len(name) + 3}}" for name in columns),
    ]
    for count, p in plans:
        rows = rows_per_rank(c, count)
        figures = (p.weights, p.gradients, p.optimizer, p.average, p.gathered, p.activations, p.total)
        cells = "".join(f"{v / _GIB:{len(name) + 3}.2f}" for v, name in zip(figures, columns, strict=True))
        lines.append(f"{count:>6}{rows:>7}{-(-rows // c.micro_batch):>7}{cells}")
    return "\n".join([*lines, "", *_formulas(counts, recipe)])


def _formulas(counts: ModelCounts, recipe: SftRecipe) -> list[str]:
    c = recipe.sft
    block = f"L * ({_KEPT_WIDTHS} D + {_KEPT_FEED_FORWARD} F) * {_COMPUTED} bytes"
    kept = (
        f"micro-batch * (layers * L * D * {_COMPUTED} bytes + one block of {block})"
        if c.gradient_checkpointing
        else f"micro-batch * layers * {block}"
    )
    slots = 8 if c.optimizer == "adamw" else 4
    frozen_bytes = 2 if recipe.frozen == "bf16" else 4
    frozen = "" if c.lora is None else f"; {frozen_bytes} for a frozen one"
    sizes = f"L {counts.tokens:,}, D {counts.width:,}, F {counts.feed_forward:,}, layers {counts.layers}"
    again = ", all of it computed once more in the backward pass" if c.gradient_checkpointing else ""
    backward = "two forwards" if c.lora is None else "two of attention's and one of the frozen matrices'"
    return [
        f"bytes a trained weight: 4 weight + 4 gradient + {slots} {c.optimizer} + 4 average{frozen}",
        "gathered: two blocks of whole weights, one at work and one on its way; none on a lone rank",
        f"activations, an estimate: {kept}, with {sizes}; attention by a kernel that keeps no scores",
        f"FLOPs: a forward pass{again}, and a backward one, which costs {backward}",
        "a checkpoint is brought together in the main memory of the first rank: weights, average and optimizer",
    ]
