"""Trains a preference head on films of which it is known which looks better, by the ranking loss of HPSv3.

Legend: B films of a batch, F frames, S side in pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from post_train.data.diorama.corruptions import Frames
from post_train.data.model_films import ModelFilms
from post_train.data.preferences import GROUP, Ranked, Variety, group_of_clip, group_with_models
from post_train.muon import Muon
from post_train.precision import Precision, autocast
from post_train.ranking_loss import likelihood_losses, ranking_losses
from post_train.rewards.visual_network import VisualConfig, VisualNetwork

Measure = Callable[[VisualNetwork], dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceConfig:
    """What is trained and on what: `clips` groups of films a step."""

    network: VisualConfig
    variety: Variety
    clips: int
    weight_decay: float
    data_seed: int


def as_video(films: Sequence[Frames]) -> Tensor:
    """uint8 films [F, S, S, 3] of one size to float [B, 3, F, S, S] in [-1, 1]."""
    return torch.from_numpy(np.stack(films)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


class PreferenceTask:
    """Ranks the films of a group among one another; each step's groups are a function of its number.

    `measure` tells how good the present weights are on what they are not trained on; it chooses nothing.
    """

    def __init__(
        self,
        config: PreferenceConfig,
        *,
        precision: Precision,
        films: ModelFilms | None,
        measure: Measure,
        compile_model: bool = False,
    ) -> None:
        self.config, self.films, self.measure = config, films, measure
        self.precision: Precision = precision
        wanted = (config.variety.num_frames, config.variety.side, config.variety.side)
        if films is not None and films.takes[0].shape[1:4] != wanted:
            raise ValueError(
                f"the models' films are {films.takes[0].shape[1:4]} (frames, height, width), this recipe trains on "
                f"{wanted}; make films of that size"
            )
        self.network = VisualNetwork(config.network)
        self._through = torch.compile(self.network, dynamic=False) if compile_model else self.network
        self.module: nn.Module = self.network

    def optimizer(self, lr: float) -> Optimizer:
        kernels, rest = [], []
        for name, p in self.network.named_parameters():
            hidden = p.ndim >= 2 and not name.startswith(("stem.", "out."))
            (kernels if hidden else rest).append(p)
        groups = [{"params": kernels, "orthogonal": True}, {"params": rest}]
        return Muon(groups, lr=lr, weight_decay=self.config.weight_decay)

    def _group(self, step: int, row: int) -> Ranked:
        cfg = self.config
        clip_seed = cfg.data_seed + step * cfg.clips + row
        rng = np.random.default_rng(clip_seed)
        if self.films is not None and rng.random() < cfg.variety.by_models:
            index = int(rng.integers(len(self.films.clip_seeds)))
            return group_with_models(self.films, index, variety=cfg.variety, rng=rng)
        return group_of_clip(clip_seed, variety=cfg.variety, rng=rng)

    def loss(self, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        del generator  # a step's films follow from its number
        groups = [self._group(step, row) for row in range(self.config.clips)]
        video = as_video([f for g in groups for f in g.films])
        with autocast(self.precision):
            mean, log_sigma = self._through(video)
        better, worse = (
            torch.tensor([i * GROUP + pair[side] for i, g in enumerate(groups) for pair in g.pairs]) for side in (0, 1)
        )
        sure, still = log_sigma.detach(), mean.detach()
        # Means learn by HPSv3's loss, whose least is at no deviation whatever the data; deviations by the likelihood.
        losses = ranking_losses(mean[better], sure[better], mean[worse], sure[worse]) + likelihood_losses(
            still[better], log_sigma[better], still[worse], log_sigma[worse]
        )
        right = (mean[better] > mean[worse]).float().mean()
        return losses.mean(), {"right": float(right), "sigma": float(log_sigma.detach().exp().mean())}

    @torch.no_grad()
    def sample(self, step: int, folder: Path) -> None:
        """Writes what `measure` says of the present weights."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.measure(self.network), indent=1)
        (folder / f"visual-{step:06d}.json").write_text(text)
