"""Adds up what several runs have learnt: each model's difference from its parent, times a share, on one model.

Runs from one parent move its weights in directions that hardly share anything but what helps, so that what each has
learnt adds up while their noise does so as a sum of squares (model soups, arXiv 2203.05482; task arithmetic,
2212.04089; of policies, WARP, 2406.16768). A share below one draws a run back towards its parent.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from engines.catalog import BUILT_IN, built_in
from engines.model_folder import check_weights
from post_train.checkpoint import AVERAGE, read_manifest
from post_train.model_parts import model_digests, trainable_card
from post_train.sft_export import write_model

_README = """# {name}

`{parent_name}` with the sum of what {count} run{s} taught, each times its share (`rushes train merge`).
`manifest.json` names parent and runs by hash. Stock diffusers loads the folder with `WanPipeline.from_pretrained`.
"""
# Of a part's manifest, what tells how it was made.
_TOLD = (
    "recipe",
    "preset",
    "recipe_hash",
    "recipe_content",
    "parent",
    "parent_name",
    "step",
    "seed",
    "data",
    "rewards",
)


@dataclass(frozen=True, slots=True)
class Part:
    """A trained model folder or a run's checkpoint, and how much of its difference from its parent is added."""

    folder: Path
    share: float


class TransformerFiles:
    """The weights of a model's transformer by name, read one at a time; of a checkpoint the averaged ones."""

    def __init__(self, model: Path) -> None:
        self.model, average = model, model / AVERAGE
        self._paths = [average] if average.is_file() else check_weights(model / "transformer")
        self._files: dict[str, Any] = {}
        for path in self._paths:
            file = safe_open(path, "pt")
            self._files |= dict.fromkeys(file.keys(), file)
        self.shapes = {name: tuple(file.get_slice(name).get_shape()) for name, file in self._files.items()}

    @property
    def digest(self) -> str:
        """SHA-256 over the weight files."""
        digest = hashlib.sha256()
        for path in self._paths:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def read(self, name: str) -> Tensor:
        """One weight in fp32."""
        return self._files[name].get_tensor(name).float()


def part_of(word: str) -> Part:
    """`FOLDER=SHARE` as typed. ValueError unless the share is a finite number other than zero."""
    folder, equals, typed = word.rpartition("=")
    try:
        share = float(typed)
    except ValueError:
        share = math.nan
    if not (equals and folder and math.isfinite(share) and share):
        raise ValueError(f"{word!r} is no FOLDER=SHARE with a number other than 0, such as runs/a/best=0.5")
    return Part(Path(folder), share)


def merge(parent: Path, parts: Sequence[Part], folder: Path, *, name: str, guidance: float | None = None) -> float:
    """Writes `folder` anew: `parent` under another name, with the parts' differences from their parents added.

    `guidance` becomes what a request gets that asks for none. Returns the root mean square change of a weight.
    ValueError for a part that has no manifest, whose parent isn't here as it was, or whose weights are others; and for
    a `folder` that holds anything but an earlier merge.
    """
    if not parts:
        raise ValueError("there is nothing to merge; name at least one FOLDER=SHARE")
    _check_free(folder, [parent, *(part.folder for part in parts)])
    card = trainable_card(parent)
    digest = model_digests(parent).whole
    manifests = [_manifest(part.folder) for part in parts]
    origins = [_origin(m, part.folder, parent, digest) for m, part in zip(manifests, parts, strict=True)]
    base = TransformerFiles(parent)
    pairs = [(TransformerFiles(p.folder), TransformerFiles(o)) for p, o in zip(parts, origins, strict=True)]
    for pair in pairs:
        _check_alike(base, *pair)
    weights, moved = _sum(base, pairs, [part.share for part in parts])
    manifest = {
        "recipe": "merge",
        "parent": digest,
        "parent_name": card.name,
        "parts": [
            {"share": part.share, "weights": trained.digest, **{k: m[k] for k in _TOLD if k in m}}
            for part, (trained, _), m in zip(parts, pairs, manifests, strict=True)
        ],
    }
    defaults = card.defaults if guidance is None else replace(card.defaults, guidance_scale=guidance)
    readme = _README.format(name=name, parent_name=card.name, count=len(parts), s="s" * (len(parts) > 1))
    write_model(folder, parent, weights, replace(card, name=name, defaults=defaults), manifest, readme=readme)
    return moved


def _check_free(folder: Path, sources: Sequence[Path]) -> None:
    """Writing anew removes what was there, which must be no more than what this command has written before."""
    if any(source.resolve().is_relative_to(folder.resolve()) for source in sources):
        raise ValueError(f"{folder} is or holds a model that is merged; write to another folder")
    if folder.exists() and any(folder.iterdir()) and (read_manifest(folder) or {}).get("recipe") != "merge":
        raise ValueError(f"{folder} is no earlier merge and not empty; write to another folder")


def _sum(
    base: TransformerFiles, pairs: Sequence[tuple[TransformerFiles, TransformerFiles]], shares: Sequence[float]
) -> tuple[dict[str, Tensor], float]:
    """The weights, and the root mean square of how far they moved."""
    weights, squares, count = {}, 0.0, 0
    for name in sorted(base.shapes):
        start = base.read(name)
        change = torch.zeros_like(start)
        for (trained, origin), share in zip(pairs, shares, strict=True):
            change += share * (trained.read(name) - origin.read(name))
        weights[name] = start + change
        squares, count = squares + float(change.square().sum()), count + change.numel()
    return weights, math.sqrt(squares / count)


def _manifest(folder: Path) -> dict[str, Any]:
    found = read_manifest(folder)
    if found is None:
        raise ValueError(f"{folder} has no manifest.json, so its parent is not known; merge what a run has written")
    return found


def _origin(manifest: dict[str, Any], folder: Path, parent: Path, digest: str) -> Path:
    """The model that a part began as: the merge's own parent, or a built-in one."""
    if manifest.get("parent") == digest:
        return parent
    name = manifest.get("parent_name")
    if name in BUILT_IN and model_digests(built_in(name)).whole == manifest.get("parent"):
        return built_in(name)
    raise ValueError(
        f"{folder} was trained from {name!r} with other weights than {parent.name} and the built-in models have; "
        "only what a run changed of a model that is here can be added"
    )


def _check_alike(base: TransformerFiles, *others: TransformerFiles) -> None:
    for other in others:
        odd = sorted(set(base.shapes.items()) ^ set(other.shapes.items()))
        if odd:
            raise ValueError(
                f"{other.model} and {base.model} differ in weight {odd[0][0]}; only models of one architecture add up"
            )
