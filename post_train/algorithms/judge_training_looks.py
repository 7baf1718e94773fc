"""What may be done to a film's pixels without changing what it shows: blur, noise, compression, light.

Legend: F frames, H W size.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """How often each disturbance strikes a clip, 0 to 1; `round_trips` is the share of clips out of a VAE."""

    blur: float
    rescale: float
    jpeg: float
    noise: float
    light: float
    round_trips: float


def _blurred(rng: np.random.Generator, frames: Frames) -> Frames:
    sigma = float(rng.uniform(0.4, 1.6)) * frames.shape[1] / 64
    return np.stack([cv2.GaussianBlur(f, (0, 0), sigma) for f in frames]).astype(np.uint8)


def _rescaled(rng: np.random.Generator, frames: Frames) -> Frames:
    """Down by a factor of up to 2.2 and up again."""
    _, h, w, _ = frames.shape
    factor = float(rng.uniform(1.2, 2.2))
    small = (round(w / factor), round(h / factor))
    back = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
    shrunk = (cv2.resize(f, small, interpolation=cv2.INTER_AREA) for f in frames)
    return np.stack([cv2.resize(f, (w, h), interpolation=back) for f in shrunk]).astype(np.uint8)


def _compressed(rng: np.random.Generator, frames: Frames) -> Frames:
    """JPEG at a quality of 15 to 80, all frames in one picture."""
    f, h, w, _ = frames.shape
    done, code = cv2.imencode(
        ".jpg", frames.reshape(f * h, w, 3), [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 80))]
    )
    assert done
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded.reshape(f, h, w, 3).astype(np.uint8)


def _noisy(rng: np.random.Generator, frames: Frames) -> Frames:
    """Gaussian noise, new on every frame or the same on all."""
    sigma = float(rng.uniform(2, 20))
    shape = frames.shape if rng.random() < 0.7 else (1, *frames.shape[1:])
    noise = rng.standard_normal(shape, np.float32) * sigma
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def _lit(rng: np.random.Generator, frames: Frames) -> Frames:
    """Brightness, contrast and a slight tint: too little to make a day of a night."""
    gain = rng.uniform(0.88, 1.12) * rng.uniform(0.96, 1.04, 3)
    table = np.clip((np.arange(256)[:, None] - 110) * gain + 110 + rng.uniform(-14, 14), 0, 255).astype(np.uint8)
    return np.stack([table[frames[..., c], c] for c in range(3)], -1)


def disturbed(rng: np.random.Generator, frames: Frames, looks: Looks) -> Frames:
    """`frames` uint8 [F, H, W, 3] with none, one or several disturbances."""
    steps = (
        (_lit, looks.light),
        (_blurred, looks.blur),
        (_rescaled, looks.rescale),
        (_noisy, looks.noise),
        (_compressed, looks.jpeg),
    )
    for step, odds in steps:
        if rng.random() < odds:
            frames = step(rng, frames)
    return frames
