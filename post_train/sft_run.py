"""A fine-tuning run: from a model, a recipe and a source of clips to a trainer, and from its checkpoints to weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from engines.components import build_on_meta, load_diffusers_model
from engines.engine import load_engine
from engines.families.wan import Wan
from engines.model_folder import read_config
from engines.types import VideoSpec
from post_train.algorithms.channel_weights import channel_weights, decoder_gains
from post_train.algorithms.sft import SftData, SftTask, rows_per_rank
from post_train.checkpoint import (
    CheckpointError,
    check_continues,
    check_unused,
    checkpoints,
    latest_checkpoint,
    read_manifest,
)
from post_train.contact_sheet import write_sheet
from post_train.data.clip_latents import ClipLatents
from post_train.data.clips import ClipSource
from post_train.data.embeddings import PromptEmbeddings
from post_train.data.training_clips import TrainingClips, prepare_clips
from post_train.distributed import Ranks
from post_train.films import FilmOrder, draw_films
from post_train.lora import Lora, add_lora, merge_lora
from post_train.model_parts import check_training_spec, load_encoders, load_transformer, model_digests, trainable_card
from post_train.precision import Precision
from post_train.recipes.sft import Geometry, SftRecipe
from post_train.sft_export import export_lora, export_transformer
from post_train.trainer import Trainer, recipe_hash

Report = Callable[[str], None]
_SAMPLED_PROMPTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SftOptions:
    """What the machine and the moment decide, not the recipe; `folder` holds the run, `cache` the encoded clips."""

    folder: Path
    cache: Path
    precision: Precision
    minutes: float
    resume: bool
    compile_model: bool = False


def training_spec(geometry: Geometry, model: Path) -> VideoSpec:
    """What clips are cut to: the recipe's figures, the card's where it leaves them open; ValueError if illegal."""
    d = trainable_card(model).defaults
    spec = VideoSpec(
        width=geometry.width or d.width,
        height=geometry.height or d.height,
        num_frames=geometry.num_frames or d.num_frames,
        fps=geometry.fps or d.fps,
    )
    check_training_spec(spec, model)
    return spec


class SftRun:
    """A run, ready to train: everything is checked and every clip encoded when this is made."""

    def __init__(
        self, recipe: SftRecipe, options: SftOptions, *, model: Path, source: ClipSource, ranks: Ranks, report: Report
    ) -> None:
        rows_per_rank(recipe.sft, ranks.count)
        if recipe.frozen == "bf16" and options.precision != "bf16" and recipe.sft.lora is not None:
            raise ValueError("frozen weights in bf16 need --precision bf16; train in bf16, or freeze in fp32")
        self.recipe, self.options, self.model, self.ranks = recipe, options, model, ranks
        self.report = report if ranks.first else silent
        self.card, self.spec = trainable_card(model), training_spec(recipe.geometry, model)
        check_unused(options.folder, resume=options.resume)
        self.digests = model_digests(model)
        self.latents = ClipLatents(options.cache, self.digests)
        self.embeddings = PromptEmbeddings(options.cache, text_encoder=self.digests.text_encoder)
        self.clips = self._prepare(source)
        self.manifest = self._manifest(source)
        self.task = self._task()
        self.trainer = Trainer(
            self.task,
            recipe.loop,
            options.folder,
            recipe=self._identity(),
            manifest=self.manifest,
            ranks=ranks,
        )

    def train(self) -> None:
        """Trains, or goes on, and writes the averaged weights as `model` (a LoRA as `lora`) of the run's folder."""
        self._check_continued()
        self.report(f"resumed at step {self.trainer.step}" if self.trainer.resume() else "a new run")
        self.trainer.train(minutes=self.options.minutes, report=self.report)
        if self.ranks.first:
            self.report(f"wrote {export_checkpoint(self.model, self.options.folder)}")
        self.ranks.wait()

    def effective_batch(self) -> str:
        """How many clips a step learns from, and how they are computed, in words."""
        c, n = self.recipe.sft, self.ranks.count
        per_rank = rows_per_rank(c, n)
        parts = -(-per_rank // c.micro_batch)
        return (
            f"effective batch {c.batch} clips a step = {n} rank{'s' * (n > 1)} x {per_rank} clips, "
            f"in {parts} part{'s' * (parts > 1)} of at most {c.micro_batch}"
        )

    def _prepare(self, source: ClipSource) -> TrainingClips:
        encoders = _Lazy(self.model, self.ranks.device)
        return prepare_clips(
            source,
            self.spec,
            latents=self.latents,
            embeddings=self.embeddings,
            family=encoders,
            seed=self.recipe.loop.seed,
            ranks=self.ranks,
            report=self.report,
        )

    def _task(self) -> SftTask:
        torch.manual_seed(self.recipe.loop.seed)
        frozen_bf16 = self.recipe.frozen == "bf16" and self.recipe.sft.lora is not None
        transformer = load_transformer(self.model, torch.bfloat16 if frozen_bf16 else torch.float32)
        mean, std = latent_statistics_of(self.model / "vae")
        return SftTask(
            self.recipe.sft,
            transformer,
            SftData(
                clips=self.clips,
                latents=self.latents,
                embeddings=self.embeddings,
                mean=mean,
                std=std,
                channel_weights=self._channel_weights(),
            ),
            flow_shift=self.card.defaults.flow_shift,
            ranks=self.ranks,
            precision=self.options.precision,
            sampler=self._sample,
            compile_model=self.options.compile_model,
        )

    def _channel_weights(self) -> torch.Tensor | None:
        power = self.recipe.sft.gain_power
        if power == 0:
            return None
        vae = load_diffusers_model(AutoencoderKLWan, self.model / "vae", torch.float32, torch.device("cpu"))
        return channel_weights(decoder_gains(vae.requires_grad_(requires_grad=False)), power)

    def _manifest(self, source: ClipSource) -> dict[str, Any]:
        return {
            "recipe": self.recipe.name,
            "recipe_hash": recipe_hash(self.recipe),
            "recipe_content": json.loads(json.dumps(asdict(self.recipe), default=str)),
            "parent": self.digests.whole,
            "parent_name": self.card.name,
            "data": {**source.describe(), "version": self.clips.key, "clips": len(self.clips)},
            "seed": self.recipe.loop.seed,
            "size": f"{self.spec.width}x{self.spec.height}x{self.spec.num_frames} at {self.spec.fps} fps",
            "flow_shift": self.card.defaults.flow_shift,
            "precision": self.options.precision,
            "ranks": self.ranks.count,
        }

    def _identity(self) -> str:
        """What makes two runs the same run: recipe, parent and data, not the machine."""
        return recipe_hash(_Identity(recipe_hash(self.recipe), self.digests.whole, self.clips.key))

    def _check_continued(self) -> None:
        check_continues(
            self.options.folder,
            self.manifest,
            {
                "recipe": lambda m: m["recipe_hash"],
                "parent model": lambda m: m["parent"],
                "data": lambda m: m["data"]["version"],
            },
        )

    def _sample(self, step: int, folder: Path) -> None:
        """Films of the first captions by the serving engine, with the averaged weights, as a contact sheet."""
        model = folder / "model"
        manifest = {**self.manifest, "step": step}
        export_weights(self.model, model, self.trainer.average.weights, manifest, merge=True)
        captions = list(dict.fromkeys(c.caption for c in self.clips.clips))[:_SAMPLED_PROMPTS]
        engine = load_engine(model, device=self.ranks.device.type)
        orders = [FilmOrder(name=str(i), prompt=caption, seed=i) for i, caption in enumerate(captions)]
        films = [(order.prompt, result.frames) for order, result in draw_films(engine, orders)]
        write_sheet(folder / f"sft-{step:06d}.png", films)


@dataclass(frozen=True, slots=True)
class _Identity:
    recipe: str
    parent: str
    data: str


class _Lazy:
    """The encoders, loaded when the first clip needs them and let go with the preparation."""

    def __init__(self, model: Path, device: torch.device) -> None:
        self._model, self._device = model, device

    def __call__(self) -> Wan:
        return self._wan

    @cached_property
    def _wan(self) -> Wan:
        return load_encoders(self._model, self._device)


def latent_statistics_of(vae: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation of each latent channel [C] by a VAE folder's config; the class's own where it names none."""
    config = build_on_meta(AutoencoderKLWan, read_config(vae / "config.json")).config
    return torch.tensor(config["latents_mean"]), torch.tensor(config["latents_std"])


def export_checkpoint(parent: Path, run: Path, *, merge: bool = False) -> Path:
    """Writes the averaged weights of the newest checkpoint of `run` into its folder, and tells where.

    A LoRA stays an adapter (`lora`) unless `merge` adds it to the weights of a whole model (`model`). CheckpointError
    when there is none, or when `parent` is not the model that it was trained on.
    """
    found = latest_checkpoint(run)
    manifest = read_manifest(checkpoints(run)[-1]) if found is not None else None
    if found is None or manifest is None:
        raise CheckpointError(f"{run} has no checkpoint to export; train first")
    if manifest["parent"] != model_digests(parent).whole:
        raise CheckpointError(f"{run} fine-tuned {manifest['parent_name']} with other weights than {parent} has")
    folder = run / ("lora" if lora_of(manifest) is not None and not merge else "model")
    export_weights(parent, folder, found.tensors["average"], manifest, merge=merge)
    return folder


def lora_of(manifest: dict[str, Any]) -> Lora | None:
    """The adapter that a run trained, by its manifest."""
    content = manifest["recipe_content"]["sft"]["lora"]
    return None if content is None else Lora(**content)


def export_weights(
    parent: Path, folder: Path, average: dict[str, torch.Tensor], manifest: dict[str, Any], *, merge: bool
) -> None:
    """Writes averaged weights: all of a transformer's, or a LoRA's alone or merged into the parent's."""
    lora = lora_of(manifest)
    if lora is None:
        export_transformer(folder, parent, average, manifest)
        return
    transformer = adapted(parent, lora, average)
    if merge:
        merge_lora(transformer)
        export_transformer(folder, parent, transformer.state_dict(), manifest)
    else:
        export_lora(folder, transformer, lora, manifest)


def adapted(parent: Path, lora: Lora, weights: dict[str, torch.Tensor]) -> WanTransformer3DModel:
    """The parent's transformer, fp32, with an adapter of these weights beside it."""
    transformer = load_transformer(parent, torch.float32)
    add_lora(transformer, lora)
    parameters = dict(transformer.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
    return transformer


def silent(_line: str) -> None:
    """What ranks other than the first report to."""
