"""Films made by checkpoints of different strength, on disk as a judge's training data: one folder a checkpoint.

A folder of them is read in the order of its names, weakest first: `00-early/films.safetensors` with `films.json`.
Legend: N films, F frames, H W pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from engines.card import read_card
from engines.engine import load_engine
from engines.whole_writes import folder_appearing_whole
from post_train.algorithms.judge_training_round_trips import round_trip
from post_train.data.diorama.world import VERSION, make_clip
from post_train.films import FilmOrder, draw_films
from post_train.model_parts import model_digests

_TENSORS, _FACTS = "films.safetensors", "films.json"
_BATCH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmsWanted:
    """Films for the full captions of clips `first_clip` to `first_clip + count - 1`, each with its number as seed.

    `steps` below the model's own make a weaker film of the same checkpoint; None takes the model's own.
    """

    first_clip: int
    count: int
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or self.first_clip < 0:
            raise ValueError(f"films need a clip that is not negative and a count of at least 1, got {self}")

    @property
    def clips(self) -> range:
        """The clips' seeds."""
        return range(self.first_clip, self.first_clip + self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFilms:
    """Films of the same clips by several checkpoints, weakest first; each of `takes` uint8 [N, F, H, W, 3]."""

    clip_seeds: tuple[int, ...]
    takes: tuple[NDArray[np.uint8], ...]
    digest: str


def make_films(model: Path, folder: Path, wanted: FilmsWanted, report: Callable[[str], None]) -> None:
    """Films of `model` by the serving engine, written to `folder` whole or not at all."""
    engine = load_engine(model)
    orders = [
        FilmOrder(name=str(seed), prompt=make_clip(seed, side=32).captions.full.text, seed=seed, steps=wanted.steps)
        for seed in wanted.clips
    ]
    frames: list[NDArray[np.uint8]] = []
    for _, film in draw_films(engine, orders, batch=_BATCH):
        frames.append(film.frames)
        if len(frames) % _BATCH == 0 or len(frames) == wanted.count:
            report(f"{len(frames)} of {wanted.count} films")
    steps = wanted.steps or engine.card.defaults.num_inference_steps
    facts = {"steps": steps, "prompts": [order.prompt for order in orders]}
    _write(folder, np.stack(frames), _facts(model, wanted, facts))


def make_round_trips(model: Path, folder: Path, wanted: FilmsWanted) -> None:
    """The clips themselves through the model's VAE, written likewise: the best that any model with it can draw."""
    d = read_card(model).defaults
    if d.width != d.height:
        raise ValueError(f"clips are square, this model makes {d.width}x{d.height}; name a model of square films")
    vae = AutoencoderKLWan.from_pretrained(model / "vae", torch_dtype=torch.float32, use_safetensors=True).eval()
    clips = [make_clip(seed, side=d.width, num_frames=d.num_frames) for seed in wanted.clips]
    films = round_trip(vae, [c.frames for c in clips])
    facts = {"steps": 0, "prompts": [c.captions.full.text for c in clips]}
    _write(folder, np.stack(films), _facts(model, wanted, facts))


def _facts(model: Path, wanted: FilmsWanted, rest: dict[str, object]) -> dict[str, object]:
    return {**asdict(wanted), "weights": model_digests(model).whole, "world_version": VERSION, **rest}


def _write(folder: Path, films: NDArray[np.uint8], facts: dict[str, object]) -> None:
    with folder_appearing_whole(folder) as part:
        save_file({"frames": torch.from_numpy(np.ascontiguousarray(films))}, part / _TENSORS)
        (part / _FACTS).write_text(json.dumps(facts, indent=1))


def read_films(folder: Path) -> ModelFilms:
    """All checkpoints' films under `folder`; ValueError when there are none or they are not of the same clips."""
    found = sorted(p.parent for p in folder.glob(f"*/{_FACTS}"))
    if not found:
        raise ValueError(f"{folder} holds no films; make some with `rushes train films --out {folder}/00-NAME`")
    digest, takes, clips = hashlib.sha256(), [], []
    for one in found:
        facts = json.loads((one / _FACTS).read_text())
        if facts["world_version"] != VERSION:
            raise ValueError(
                f"{one} was made for world {facts['world_version']}, this is {VERSION}; make its films anew"
            )
        digest.update(json.dumps(facts, sort_keys=True).encode())
        takes.append(load_file(one / _TENSORS)["frames"].numpy())
        clips.append((facts["first_clip"], facts["count"]))
    if len(set(clips)) > 1 or len({t.shape for t in takes}) > 1:
        raise ValueError(f"the films in {folder} are not of the same clips and size: {clips}; make them alike")
    first, count = clips[0]
    return ModelFilms(clip_seeds=tuple(range(first, first + count)), takes=tuple(takes), digest=digest.hexdigest()[:16])
