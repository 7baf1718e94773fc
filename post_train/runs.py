"""Runs of the built-in model's recipes: from a recipe and a run folder to a trainer, and from a run to weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from transformers import PreTrainedTokenizerFast, UMT5EncoderModel

from engines.whole_writes import folder_appearing_whole, write_whole
from post_train.algorithms.base_training import BaseTask
from post_train.algorithms.channel_weights import channel_weights, decoder_gains
from post_train.algorithms.vae import VaeTask
from post_train.checkpoint import CheckpointError, latest_checkpoint
from post_train.contact_sheet import write_sheet
from post_train.data.diorama.record import Split
from post_train.data.diorama.world import VERSION, make_clip
from post_train.data.latents import LatentCache, latent_statistics
from post_train.ema import WeightAverage
from post_train.export import Parts, export_pipeline
from post_train.held_out_sheet import held_out_films
from post_train.model_card import model_card
from post_train.model_parts import model_digests
from post_train.precision import CPU, Precision
from post_train.recipes.diorama_base import BaseRecipe
from post_train.recipes.diorama_vae import VaeRecipe
from post_train.small_wan import train_tokenizer
from post_train.trainer import Trainer, recipe_hash
from post_train.widening import widen_vae

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What the machine, not the recipe, decides; `folder` holds the run.

    A new run takes its first weights from the model at `start_from` if there is one; a run that goes on ignores it.
    `device`, `workers` and `made_beside` are for the base and its latents (see LatentCache).
    """

    folder: Path
    precision: Precision
    compile_model: bool
    minutes: float
    start_from: Path | None = None
    device: torch.device = CPU
    workers: int = 0
    made_beside: bool = False


def train_vae(recipe: VaeRecipe, options: RunOptions, report: Report) -> None:
    """Trains the VAE, or goes on with it, and writes its averaged weights as `model/` of the run folder.

    It may start from a narrower VAE than the recipe's, which is widened.
    """
    torch.manual_seed(recipe.loop.seed)
    task = VaeTask(
        recipe.vae,
        total_steps=recipe.loop.steps,
        precision=options.precision,
        compile_model=options.compile_model,
    )
    if options.start_from is not None:
        widen_vae(load_vae(options.start_from), task.vae, torch.Generator().manual_seed(recipe.loop.seed))
    trainer = Trainer(task, recipe.loop, options.folder, recipe=recipe_hash(recipe))
    report(f"resumed at step {trainer.step}" if trainer.resume() else "a new run")
    trainer.train(minutes=options.minutes, report=report)
    save_vae(
        task.vae, trainer.average, options.folder / "model", side=recipe.vae.side, num_frames=recipe.vae.num_frames
    )


def save_vae(vae: AutoencoderKLWan, average: WeightAverage, folder: Path, *, side: int, num_frames: int) -> None:
    """Writes the averaged VAE with its latents' statistics; rounded to fp16 first, as it will be shipped.

    Latents cached with it are then the very latents of the shipped encoder.
    """
    average.copy_to(vae)
    vae.half().float()
    mean, std = latent_statistics(vae, side=side, num_frames=num_frames)
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    with folder_appearing_whole(folder) as part:
        vae.save_pretrained(part)


def load_vae(folder: Path) -> AutoencoderKLWan:
    """The VAE of a finished VAE run or of a pipeline folder, for encoding."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder} holds no VAE; train one with `rushes train diorama-vae` or name a model's vae folder"
        )
    vae = AutoencoderKLWan.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True)
    return vae.eval().requires_grad_(requires_grad=False)


class BaseRun:
    """A base run: its task, trainer and latents, wired together."""

    def __init__(self, recipe: BaseRecipe, options: RunOptions, *, vae: Path) -> None:
        torch.manual_seed(recipe.loop.seed)
        self.recipe, self.options = recipe, options
        start = options.start_from
        if start is not None and not (start / "manifest.json").is_file():
            raise CheckpointError(f"{start} is no model of a base run; name a folder that `--export` wrote")
        self.vae = load_vae(vae)
        self.cache = LatentCache(
            options.folder.parent / "latents",
            self.vae,
            recipe.base.latents,
            precision=options.precision,
            compile_model=options.compile_model,
            device=options.device,
            workers=options.workers,
            made_beside=options.made_beside,
        )
        self.tokenizer = _tokenizer(options.folder / "tokenizer", recipe, options.start_from)
        self.parent = kept_parent(options.folder / "parent.json", start and (lambda: _model_facts(start)))
        config = self.vae.config
        self.task = BaseTask(
            recipe.base,
            self.tokenizer,
            self.cache,
            latents_mean=torch.tensor(config["latents_mean"]),
            latents_std=torch.tensor(config["latents_std"]),
            channel_weights=channel_weights(decoder_gains(self.vae), recipe.base.gain_power),
            precision=options.precision,
            sampler=self._sample,
            compile_model=options.compile_model,
            device=options.device,
        )
        seen = lineage(self.parent, 0)["clips_seen"]
        self.trainer = Trainer(
            self.task,
            recipe.loop,
            options.folder,
            recipe=recipe_hash(recipe),
            steps_before=seen // recipe.base.batch,
        )

    def _start_from(self, model: Path) -> None:
        """Takes the weights of a shipped model: exact to fp16, without optimizer or average."""
        transformer = WanTransformer3DModel.from_pretrained(
            model / "transformer", torch_dtype=torch.float32, use_safetensors=True
        )
        text_encoder = UMT5EncoderModel.from_pretrained(model / "text_encoder", dtype=torch.float32)
        self.task.transformer.load_state_dict(transformer.state_dict())
        self.task.text_encoder.load_state_dict(text_encoder.state_dict())
        self.trainer.average = WeightAverage(self.task.module, self.recipe.loop.ema_decay)

    def train(self, report: Report) -> None:
        """Trains, or goes on with it."""
        if self.options.start_from is not None:
            self._start_from(self.options.start_from)
        report(f"resumed at step {self.trainer.step}" if self.trainer.resume() else "a new run")
        self.trainer.train(minutes=self.options.minutes, report=report)

    def export(self, folder: Path) -> None:
        """Writes the newest checkpoint's averaged weights as a pipeline folder."""
        if latest_checkpoint(self.options.folder) is None:
            raise CheckpointError(f"{self.options.folder} has no checkpoint to export; train first")
        self.trainer.resume()
        self.trainer.average.copy_to(self.task.module)
        self._write(folder, self.trainer.step)

    def _write(self, folder: Path, step: int) -> None:
        parts = Parts(
            tokenizer=self.tokenizer,
            text_encoder=self.task.text_encoder,
            transformer=self.task.transformer,
            vae=self.vae,
        )
        manifest = self._manifest(step)
        export_pipeline(folder, parts, self.recipe.card, manifest, readme=model_card(manifest))

    def _manifest(self, step: int) -> dict[str, Any]:
        loop, base = self.recipe.loop, self.recipe.base
        return {
            "recipe": "diorama-base",
            "recipe_hash": self.trainer.recipe,
            "world_version": VERSION,
            "latents": self.cache.key,
            "step": step,
            **lineage(self.parent, step * base.batch),
            "seed": loop.seed,
            "precision": self.options.precision,
        }

    def _sample(self, _task: BaseTask, step: int, folder: Path) -> None:
        """Films of held-out captions by the serving engine, as a contact sheet."""
        model = folder / "model"
        self._write(model, step)
        write_sheet(folder / f"base-{step:06d}.png", held_out_films(model, 8))


def kept_parent(path: Path, parent: Callable[[], dict[str, Any]] | None) -> dict[str, Any] | None:
    """What a run's first weights were, asked for once and kept with the run at `path`; None when it began from nothing.

    A run that goes on ignores another `parent`: the weights are its own by then.
    """
    if parent is not None and not path.is_file():
        write_whole(path, (json.dumps(parent(), sort_keys=True) + "\n").encode())
    return json.loads(path.read_text()) if path.is_file() else None


def lineage(parent: dict[str, Any] | None, clips: int) -> dict[str, Any]:
    """What an origin says of a run's parent, and of all clips seen: the parent's and its own `clips`."""
    before = parent or {"digest": None, "clips_seen": 0}
    return {"parent": before["digest"], "clips_seen": before["clips_seen"] + clips}


def _model_facts(model: Path) -> dict[str, Any]:
    """The hash of a model and the clips it has seen."""
    seen = json.loads((model / "manifest.json").read_text()).get("clips_seen", 0)
    return {"digest": model_digests(model).whole, "clips_seen": seen}


def _tokenizer(folder: Path, recipe: BaseRecipe, start_from: Path | None) -> PreTrainedTokenizerFast:
    """The run's tokenizer: that of the model it starts from, or trained once on wild captions; kept with the run."""
    if start_from is not None and not folder.is_dir():
        with folder_appearing_whole(folder) as part:
            shutil.copytree(start_from / "tokenizer", part, dirs_exist_ok=True)
    if not folder.is_dir():
        texts = (
            make_clip(recipe.base.latents.first_seed + i, side=32, split=Split.WILD).captions
            for i in range(recipe.tokenizer_clips)
        )
        tokenizer = train_tokenizer(
            (t for c in texts for t in (c.full.text, c.short.text)), recipe.base.text_encoder.vocabulary
        )
        with folder_appearing_whole(folder) as part:
            tokenizer.save_pretrained(part)
    return PreTrainedTokenizerFast.from_pretrained(folder)
