"""Writes a fine-tuned model: its parent's folder with another transformer, or a LoRA file beside nothing.

Text encoder, VAE, tokenizer and scheduler are the parent's files, byte for byte; the transformer is stored in the
precision that the parent's is.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from engines.card import CARD_FILE, CARD_VERSION, ModelCard, read_card
from engines.components import build_on_meta
from engines.model_folder import check_weights, read_config, read_header
from engines.whole_writes import folder_appearing_whole
from post_train.lora import Lora, save_lora

_LONGEST_NAME = 100  # what a card allows
_STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NOT_INHERITED = {"transformer", "manifest.json", "README.md", CARD_FILE}
_README = """# {name}, fine-tuned

`{parent_name}` after {step} steps of `{recipe}` on {count} {what}.
`manifest.json` names parent, data and recipe by hash. Stock diffusers loads {how}.
"""


def stored_dtype(transformer: Path) -> torch.dtype:
    """The dtype that a transformer's matrices are stored in."""
    for path in check_weights(transformer):
        for entry in read_header(path).values():
            if len(entry["shape"]) > 1:
                return _STORED.get(entry["dtype"], torch.float32)
    return torch.float32


def export_transformer(folder: Path, parent: Path, weights: dict[str, torch.Tensor], manifest: dict[str, Any]) -> None:
    """Writes `folder` anew as `parent` with a transformer of `weights`, whole or not at all; see `write_model`."""
    readme = _readme(manifest, how="the folder with `WanPipeline.from_pretrained`")
    write_model(folder, parent, weights, fine_tuned_card(read_card(parent), manifest), manifest, readme=readme)


def write_model(
    folder: Path,
    parent: Path,
    weights: dict[str, torch.Tensor],
    card: ModelCard,
    manifest: dict[str, Any],
    *,
    readme: str,
) -> None:
    """Writes `folder` anew as `parent` with another transformer, card, origin and readme, whole or not at all.

    ValueError for a weight that its stored precision cannot hold, or when `folder` is the parent.
    """
    if folder.resolve() == parent.resolve():
        raise ValueError(f"{folder} is the model that was trained further; export to another folder")
    with folder_appearing_whole(folder) as part:
        for item in sorted(parent.iterdir()):
            if item.name not in _NOT_INHERITED and not item.name.startswith("."):
                copy = shutil.copytree if item.is_dir() else shutil.copy2
                copy(item, part / item.name)
        _save_transformer(part / "transformer", parent / "transformer", weights)
        (part / CARD_FILE).write_text(json.dumps({"version": CARD_VERSION, **asdict(card)}, indent=2) + "\n")
        _write_origin(part, manifest, readme)


def fine_tuned_card(parent: ModelCard, manifest: dict[str, Any]) -> ModelCard:
    """The parent's card under the new model's name, with the size that it was trained at as its default."""
    given = {k: v for k, v in manifest["recipe_content"].get("geometry", {}).items() if v is not None}
    name = fine_tuned_name(str(manifest["parent_name"]), str(manifest["recipe"]))
    return replace(parent, name=name, defaults=replace(parent.defaults, **given))


def fine_tuned_name(parent: str, recipe: str) -> str:
    """What a fine-tuned model is called when it is served: by its parent and its recipe, and never as its parent."""
    return recipe if recipe.startswith(f"{parent}-") else f"{parent}-{recipe}"[:_LONGEST_NAME]


def export_lora(folder: Path, transformer: WanTransformer3DModel, lora: Lora, manifest: dict[str, Any]) -> None:
    """Writes the adapter of `transformer` as a folder for `WanPipeline.load_lora_weights`, whole or not at all."""
    with folder_appearing_whole(folder) as part:
        save_lora(transformer, lora, part)
        _write_origin(part, manifest, _readme(manifest, how="it into the parent's pipeline with `load_lora_weights`"))


def _save_transformer(target: Path, source: Path, weights: dict[str, torch.Tensor]) -> None:
    config = {k: v for k, v in read_config(source / "config.json").items() if not k.startswith("_")}
    dtype = stored_dtype(source)
    stored = {name: value.to(dtype) for name, value in weights.items()}
    for name, value in stored.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"weight {name} does not fit {dtype}, which the parent's are stored in")
    empty = build_on_meta(WanTransformer3DModel, config)
    empty.load_state_dict(stored, assign=True)
    empty.save_pretrained(target, safe_serialization=True)


def _write_origin(folder: Path, manifest: dict[str, Any], readme: str) -> None:
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    (folder / "README.md").write_text(readme)


def _readme(manifest: dict[str, Any], *, how: str) -> str:
    what = next(kind for kind in ("clips", "prompts") if kind in manifest["data"])
    return _README.format(
        name=manifest["parent_name"],
        parent_name=manifest["parent_name"],
        step=manifest["step"],
        recipe=manifest["recipe"],
        count=manifest["data"][what],
        what=what,
        how=how,
    )
