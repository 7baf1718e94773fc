"""A run of policy optimisation: from a model, a recipe, prompts and rewards to a trainer, and to its best weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from engines.engine import Engine
from engines.families.wan import Wan
from post_train.attention import use_training_attention
from post_train.checkpoint import check_continues, check_unused
from post_train.data.embeddings import PromptEmbeddings
from post_train.distributed import Ranks, shard, whole
from post_train.lora import TrainedOnly, add_lora, merge_lora
from post_train.model_parts import load_encoders, load_transformer, model_digests, trainable_card
from post_train.policy.backend import LearningBackend, columns_for
from post_train.policy.methods import DrawnSteps
from post_train.policy.panel import Panel
from post_train.policy.prepared import PreparedWan
from post_train.policy.prompts import PolicyPrompts
from post_train.policy.rollout import Policy, Sampling
from post_train.policy.task import PolicyTask
from post_train.policy.validation import BATCH as VALIDATION_BATCH
from post_train.policy.validation import Validator
from post_train.precision import Precision
from post_train.recipes.grpo import GrpoRecipe
from post_train.recipes.sft import Geometry
from post_train.rewards.base import Reward
from post_train.sft_export import export_lora, export_transformer
from post_train.sft_run import adapted, silent, training_spec
from post_train.trainer import Trainer, recipe_hash

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpoOptions:
    """What the machine and the moment decide, not the recipe; `folder` holds the run."""

    folder: Path
    precision: Precision
    minutes: float
    resume: bool
    compile_model: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Who looks at films: the panel that rewards, and the rewards and prompts that validate."""

    panel: Panel
    validating: Sequence[Reward]
    validation_prompts: tuple[str, ...]


class GrpoRun:
    """A run, ready to train."""

    def __init__(
        self,
        recipe: GrpoRecipe,
        options: GrpoOptions,
        *,
        model: Path,
        prompts: PolicyPrompts,
        audience: Audience,
        ranks: Ranks,
        report: Report,
    ) -> None:
        if recipe.frozen == "bf16" and options.precision != "bf16" and recipe.lora is not None:
            recipe = replace(recipe, frozen="fp32")
        self.recipe, self.options, self.model, self.ranks = recipe, options, model, ranks
        self.report = report if ranks.first else silent
        self.card, self.audience = trainable_card(model), audience
        check_unused(options.folder, resume=options.resume)
        self.digests = model_digests(model)
        self.prompts = prompts
        self.manifest = self._manifest()
        self.transformer = self._transformer()
        self.policy = self._policy()
        self.module = TrainedOnly(self.transformer)
        self.validator = Validator(
            recipe.validation,
            self.policy.engine,
            audience.validating,
            audience.validation_prompts,
            ranks=ranks,
            forwards=lambda: self.task.spent,
            keep_best=self._keep_best,
            report=self.report,
        )
        self.task = PolicyTask(
            recipe.policy,
            self.policy,
            self.module,
            audience.panel,
            prompts=prompts.texts,
            seed=recipe.loop.seed,
            validation=self.validator,
        )
        self.trainer = Trainer(
            self.task,
            recipe.loop,
            options.folder,
            recipe=self._identity(),
            manifest=self.manifest,
            ranks=ranks,
            agreement=True,
        )

    def train(self) -> None:
        """Trains, or goes on, to the end, the time or the validation's verdict; the best weights are in `best`."""
        self._check_continued()
        self.report(f"resumed at step {self.trainer.step}" if self.trainer.resume() else "a new run")
        if self.trainer.step == 0:
            self.trainer.sample()  # what training is to better
        self.trainer.train(minutes=self.options.minutes, report=self.report)
        best = self.validator.best
        if best is not None:
            self.report(
                f"best by validation: step {best.step}, score {best.score:+.3f}; {self.options.folder / 'best'}"
            )

    def effective_batch(self) -> str:
        """What an update learns from, and what is known to be too little."""
        p = self.recipe.policy
        films = p.rollouts.prompts * p.rollouts.size
        told = (
            f"{self.recipe.preset}: {p.rollouts.prompts} prompts x {p.rollouts.size} films = {films} a rollout, "
            f"in {p.updates} update{'s' * (p.updates > 1)}, on {self.ranks.count} rank{'s' * (self.ranks.count > 1)}"
        )
        an_update, floor = films // p.updates, self.recipe.floor
        if floor is not None and an_update < floor:
            told += f"; {an_update} an update, and its smallest published success had {floor}: gains may drown in noise"
        return told

    def _transformer(self) -> WanTransformer3DModel:
        recipe = self.recipe
        torch.manual_seed(recipe.loop.seed)
        frozen_bf16 = recipe.frozen == "bf16" and recipe.lora is not None
        transformer = load_transformer(self.model, torch.bfloat16 if frozen_bf16 else torch.float32)
        if recipe.lora is not None:
            add_lora(transformer, recipe.lora)
        if recipe.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        return transformer

    def _policy(self) -> Policy:
        encoders = load_encoders(self.model, self.ranks.device)
        embeddings, longest = self._embeddings(encoders)
        cross = use_training_attention(self.transformer)
        shard(self.transformer, list(self.transformer.blocks), self.ranks)
        d = self.card.defaults
        parts = replace(encoders.parts, transformer=self.transformer)
        family = PreparedWan(parts, self.ranks.device, embeddings)
        backend = LearningBackend(
            family,
            self.transformer,
            cross,
            precision=self.options.precision,
            columns=columns_for(longest),
            compiled=torch.compile(self.transformer, dynamic=False) if self.options.compile_model else None,
            compiled_rows=self._usual_rows(),
        )
        engine = Engine(card=self.card, family=family, backend=backend)
        method = self.recipe.policy.method
        sampling = Sampling(
            steps=self.recipe.sampling_steps,
            guidance=self.recipe.guidance,
            flow_shift=d.flow_shift,
            sampler=d.sampler,
            negative_prompt=d.negative_prompt,
            spec=training_spec(Geometry(), self.model),
        )
        rule = method.rule if isinstance(method, DrawnSteps) else None
        return Policy(engine, backend, sampling, rule, self.ranks)

    def _embeddings(self, encoders: Wan) -> tuple[PromptEmbeddings, int]:
        """All prompts of the run encoded and on disk, and the tokens of the longest; the first rank does it for all."""
        embeddings = PromptEmbeddings(self.options.folder / "cache", text_encoder=self.digests.text_encoder)
        texts = [*self.prompts.texts, *self.audience.validation_prompts, self.card.defaults.negative_prompt]
        if self.ranks.first:
            made = embeddings.prepare(texts, lambda: encoders)
            if made:
                self.report(f"{made} prompts encoded")
        self.ranks.wait()
        return embeddings, max(embeddings.length(text) for text in texts)

    def _usual_rows(self) -> frozenset[int]:
        """The batches that come again and again: of rollouts, replays and validation, guided or not."""
        policy, rows = self.recipe.policy, 2 if self.recipe.guidance > 1 else 1
        return frozenset({policy.rollout_batch * rows, policy.micro_batch * rows, VALIDATION_BATCH * 2})

    def _keep_best(self, step: int) -> None:
        """Writes the present weights, which are the averaged ones while a validation looks, as `best`."""
        weights = {n: whole(p.detach()) for n, p in self.module.named_parameters()}
        if self.ranks.first:
            manifest = {**self.manifest, "step": step, "validation": asdict(self.validator.looks[-1])}
            self.export(self.options.folder / "best", weights, manifest)

    def export(self, folder: Path, weights: dict[str, torch.Tensor], manifest: dict[str, Any]) -> None:
        """Writes a whole model of `weights`; of a LoRA beside it the adapter, as `FOLDER-lora`."""
        if self.recipe.lora is None:
            export_transformer(folder, self.model, weights, manifest)
            return
        transformer = adapted(self.model, self.recipe.lora, weights)
        export_lora(folder.with_name(f"{folder.name}-lora"), transformer, self.recipe.lora, manifest)
        merge_lora(transformer)
        export_transformer(folder, self.model, transformer.state_dict(), manifest)

    def _manifest(self) -> dict[str, Any]:
        recipe = self.recipe
        return {
            "recipe": recipe.name,
            "preset": recipe.preset,
            "recipe_hash": self._recipe_hash,
            "recipe_content": described(recipe),
            "parent": self.digests.whole,
            "parent_name": self.card.name,
            "data": {
                "prompts": len(self.prompts.texts),
                "source": self.prompts.source,
                "version": self.prompts.version,
            },
            "rewards": self.audience.panel.digests,
            "validated_by": self._validated_by(),
            "seed": recipe.loop.seed,
            "precision": self.options.precision,
            "ranks": self.ranks.count,
        }

    def _validated_by(self) -> dict[str, Any]:
        texts = list(self.audience.validation_prompts)
        judges = [f"{reward.name} {reward.digest}" for reward in self.audience.validating]
        return {"judges": judges, "prompts": hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]}

    def _identity(self) -> str:
        validated = json.dumps(self.manifest["validated_by"], sort_keys=True)
        rewards = " ".join(self.audience.panel.digests)
        content = (self._recipe_hash, self.digests.whole, self.prompts.version, rewards, validated)
        return recipe_hash(_Content([*content, self.options.precision]))

    @property
    def _recipe_hash(self) -> str:
        return recipe_hash(_Content(described(self.recipe)))

    def _check_continued(self) -> None:
        check_continues(
            self.options.folder,
            self.manifest,
            {
                "recipe": lambda m: m["recipe_hash"],
                "parent model": lambda m: m["parent"],
                "prompts": lambda m: m["data"]["version"],
                "rewards": lambda m: " ".join(m["rewards"]),
                "validating judge": lambda m: " ".join(m["validated_by"]["judges"]),
                "validation prompts": lambda m: m["validated_by"]["prompts"],
                "precision": lambda m: m["precision"],
            },
            shown=40,
        )


@dataclass(frozen=True, slots=True)
class _Content:
    content: Any


def described(value: Any) -> Any:
    """A recipe as JSON. Every part tells its kind: two methods may have the same numbers."""
    if is_dataclass(value):
        return {"kind": type(value).__name__, **{f.name: described(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    return value
