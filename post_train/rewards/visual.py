"""Visual quality (VQ): a learned preference head that tells how good a film looks and how sure it is.

Legend: B films, F frames, H W pixels.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from engines.whole_writes import write_whole
from post_train.rewards.base import Dimension, Film, RewardError, Score
from post_train.rewards.reader_blocks import Mixing
from post_train.rewards.visual_network import VisualConfig, VisualNetwork

WEIGHTS = Path(__file__).parent / "weights"
_TENSORS, _CARD = "visual.safetensors", "visual.json"
_MULTIPLE = 8
_LOGISTIC = math.pi / math.sqrt(6)


class VisualWeightsError(ValueError):
    """A judge's weights are missing or are not what their card says."""


def save_visual(network: VisualNetwork, folder: Path, card: dict[str, Any]) -> None:
    """Writes the weights as fp16 and the card beside them, each whole or not at all."""
    tensors = {n: p.detach().half().contiguous() for n, p in network.state_dict().items()}
    text = json.dumps({**card, "network": asdict(network.config)}, indent=1)
    for name, content in ((_TENSORS, save(tensors)), (_CARD, text.encode())):
        write_whole(folder / name, content)


def load_visual(folder: Path) -> tuple[VisualNetwork, dict[str, Any], str]:
    """The network in fp32, its card, and the digest of all that decides its scores."""
    tensors, card = folder / _TENSORS, folder / _CARD
    if not (tensors.is_file() and card.is_file()):
        raise VisualWeightsError(
            f"{folder} holds no judge of looks; train one with `rushes train visual --judge {folder.name}`"
        )
    content = tensors.read_bytes()
    facts = json.loads(card.read_text())
    try:
        shape = {**facts["network"], "mixing": Mixing(facts["network"]["mixing"])}
        network = VisualNetwork(VisualConfig(**shape))
        network.load_state_dict({n: v.float() for n, v in load(content).items()})
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise VisualWeightsError(f"{folder} does not hold the weights that its card tells of: {error}") from error
    digest = hashlib.sha256(content + json.dumps(facts["network"], sort_keys=True).encode()).hexdigest()[:16]
    return network.eval().requires_grad_(requires_grad=False), facts, digest


def _views(frames: NDArray[np.uint8]) -> Tensor:
    """The film and its mirror image, float [2, 3, F, H, W] in [-1, 1], cut around the middle to multiples of 8."""
    _, height, width, _ = frames.shape
    cut_h, cut_w = height // _MULTIPLE * _MULTIPLE, width // _MULTIPLE * _MULTIPLE
    top, left = (height - cut_h) // 2, (width - cut_w) // 2
    inside = frames[:, top : top + cut_h, left : left + cut_w]
    film = torch.from_numpy(np.array(inside, order="C")).permute(3, 0, 1, 2).float() / 127.5 - 1
    return torch.stack([film, film.flip(-1)])


class VisualQuality:
    """A Reward. The value is the head's mean over the film and its mirror image; unbounded, as HPSv3's is.

    It is a logit: of two films d apart the better one wins with probability sigmoid(d), which is to say that the
    difference errs by a logistic deviation of pi / sqrt(3), and each score by pi / sqrt(6). The noise joins this with
    the deviation that the head itself tells of and with how far the two views are apart.
    """

    def __init__(self, role: str, *, weights: Path = WEIGHTS) -> None:
        self.network, self.card, self.digest = load_visual(weights / role)
        self.name = f"visual-{role}"
        self.dimension = Dimension.VISUAL_QUALITY

    @torch.no_grad()
    def score(self, films: Sequence[Film]) -> list[Score]:
        """One score a film; RewardError for a film under 16 pixels or two frames, whose looks cannot be told."""
        return [self._score(film) for film in films]

    def _score(self, film: Film) -> Score:
        shape = film.frames.shape
        if len(shape) != 4 or min(shape[1:3]) < 2 * _MULTIPLE or shape[0] < 2 or shape[3] != 3:
            why = f"looks are told of [F, H, W, 3] with at least 2 frames of 16x16, it is {list(shape)}"
            raise RewardError(self.name, film.name, why)
        mean, log_sigma = self.network(_views(film.frames))
        sigma = float(log_sigma.exp().mean())
        apart = float((mean[0] - mean[1]).abs()) / 2
        noise = math.hypot(_LOGISTIC, sigma, apart)
        return Score(value=float(mean.mean()), noise=noise, parts={"sigma": sigma, "mirror": apart})
