"""Corruptions that spoil how a film looks, on any frames uint8 [F, H, W, 3] with a strength in (0, 1].

They are the ones that judges may be trained on; `unseen_looks` holds those that are kept out.
Legend: F frames, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from post_train.data.diorama.corruptions.base import Frames

Floats = NDArray[np.float32]
Look = Callable[[Frames, float, np.random.Generator], Frames]


def to_frames(values: NDArray[np.floating]) -> Frames:
    """Rounded and cut to 0..255."""
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def each(frames: Frames, change: Callable[[Frames], cv2.typing.MatLike]) -> Frames:
    """`change` on every frame."""
    return np.stack([np.asarray(change(f), np.uint8) for f in frames])


def smooth_field(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> Floats:
    """A smooth random field of mean 0 and deviation about 1, float32 [H, W], with `cells` bumps across."""
    coarse = rng.standard_normal((cells + 2, cells + 2)).astype(np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC).astype(np.float32)


def _scale(frames: Frames) -> float:
    """The unit in which spoilt details are measured, in pixels: 1 at a side of 64."""
    return max(1.0, min(frames.shape[1:3]) / 64)


def noise(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Gaussian noise on every pixel, grey or coloured."""
    shape = frames.shape if rng.random() < 0.6 else (*frames.shape[:3], 1)
    return to_frames(frames + (3 + 50 * strength) * rng.standard_normal(shape, np.float32))


def texture(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A coarse random pattern, standing or boiling, over all of the picture or over parts of it."""
    count, height, width, _ = frames.shape
    cells, boiling = int(rng.integers(6, max(8, height // 2))), rng.random() < 0.6
    fields = [smooth_field(rng, (height, width), cells) for _ in range(count if boiling else 1)]
    pattern = np.stack(fields)[..., None] * rng.uniform(0.3, 1, 3).astype(np.float32)
    if rng.random() < 0.4:
        pattern = pattern * np.clip(smooth_field(rng, (height, width), 2), 0, 1.5)[None, :, :, None]
    return to_frames(frames + (6 + 48 * strength) * pattern)


def blur(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Out of focus, or smeared along one direction."""
    sigma = (0.7 + 2.3 * strength) * _scale(frames)
    if rng.random() < 0.6:
        return each(frames, lambda f: cv2.GaussianBlur(f, (0, 0), sigma))
    size = 2 * round(1.5 * sigma) + 1
    line, angle = np.zeros((size, size), np.float32), rng.uniform(0, np.pi)
    reach = (size // 2) * np.array((np.cos(angle), np.sin(angle)))
    start, end = ([round(float(v)) for v in size // 2 + sign * reach] for sign in (-1, 1))
    cv2.line(line, start, end, 1.0)
    return each(frames, lambda f: cv2.filter2D(f, -1, line / line.sum()))


def over_smooth(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Detail is wiped away while edges stay, as a denoiser does it that goes too far."""
    size = 3 + 2 * round(2 * strength * _scale(frames))
    if rng.random() < 0.5:
        return each(frames, lambda f: cv2.medianBlur(f, size))
    return each(frames, lambda f: cv2.bilateralFilter(f, 2 * size, 40 + 80 * strength, 1 + 2 * strength))


def banding(frames: Frames, strength: float, _rng: np.random.Generator) -> Frames:
    """Few levels a channel, so that gradients become steps."""
    step = 256 / (3 + 9 * (1 - strength))
    return to_frames((np.floor(frames / step) + 0.5) * step)


def jpeg(frames: Frames, strength: float, _rng: np.random.Generator) -> Frames:
    """Blocks of strong JPEG compression."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, round(26 - 23 * strength)]
    out = []
    for frame in frames:
        decoded = cv2.imdecode(cv2.imencode(".jpg", frame, quality)[1], cv2.IMREAD_COLOR)
        assert decoded is not None
        out.append(decoded)
    return np.stack(out).astype(np.uint8)


def colour_shift(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """One tint over everything."""
    tint = rng.standard_normal(3)
    tint = (tint - tint.mean()) / max(1e-3, float(np.abs(tint - tint.mean()).max()))
    return to_frames(frames * (1 + 0.4 * strength * tint) + (5 + 45 * strength) * tint)


def over_saturation(frames: Frames, strength: float, _rng: np.random.Generator) -> Frames:
    """Colours as far from grey as they go."""
    grey = frames.astype(np.float32).mean(-1, keepdims=True)
    return to_frames(grey + (frames - grey) * (1.25 + 2.25 * strength))


def tone(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Too dark, burnt out, too hard or washed out."""
    amount = 0.1 + 0.65 * strength
    values = frames.astype(np.float32)
    match int(rng.integers(4)):
        case 0:
            values = values * (1 - amount)
        case 1:
            values = values * (1 + 1.6 * amount) + 40 * amount
        case 2:
            values = 128 + (values - 128) * (1 + 2.5 * amount)
        case _:
            values = 140 + (values - 140) * (1 - amount)
    return to_frames(values)


def ghosting(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Each frame keeps a part of those before it, or is laid over another moment of the clip."""
    keep = 0.45 + 0.45 * strength
    values = frames.astype(np.float32)
    if rng.random() < 0.3:
        late = np.minimum(np.arange(len(frames)) + int(rng.integers(3, 7)), len(frames) - 1)
        return to_frames((1 - 0.5 * keep) * values + 0.5 * keep * values[late])
    for i in range(1, len(values)):
        values[i] = (1 - keep) * values[i] + keep * values[i - 1]
    return to_frames(values)


def flicker(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Brightness or tint changes from frame to frame."""
    shape = (len(frames), 1, 1, 1 if rng.random() < 0.6 else 3)
    return to_frames(frames * (1 + (0.03 + 0.3 * strength) * rng.standard_normal(shape)).astype(np.float32))


def checkerboard(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """The grid of a badly trained decoder: squares or lines of 1 to 4 pixels."""
    _, height, width, _ = frames.shape
    size = int(rng.integers(1, 5))
    rows, columns = np.arange(height)[:, None] // size, np.arange(width)[None] // size
    kind = int(rng.integers(3))
    grid = (rows + columns if kind == 0 else rows + 0 * columns if kind == 1 else columns + 0 * rows) % 2
    amount = (4 + 26 * strength) * rng.uniform(0.5, 1, 3)
    return to_frames(frames + ((grid * 2.0 - 1)[None, :, :, None] * amount).astype(np.float32))


def low_resolution(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Made small and enlarged again."""
    _, height, width, _ = frames.shape
    factor = 1.6 + 3.4 * strength
    small = (max(2, round(width / factor)), max(2, round(height / factor)))
    up = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[int(rng.integers(2))]
    return each(
        frames,
        lambda f: cv2.resize(cv2.resize(f, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=up),
    )


def melting(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Shapes run: smooth warps, standing or changing over the clip."""
    count, height, width, _ = frames.shape
    reach = (0.8 + 3.2 * strength) * _scale(frames)
    cells = int(rng.integers(3, 9))
    first, last = (np.stack([smooth_field(rng, (height, width), cells) for _ in "xy"]) for _ in range(2))
    along = np.linspace(0, 1, count) if rng.random() < 0.7 else np.zeros(count)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    out = []
    for frame, t in zip(frames, along, strict=True):
        dx, dy = reach * (np.cos(t * np.pi / 2) * first + np.sin(t * np.pi / 2) * last).astype(np.float32)
        out.append(cv2.remap(frame, columns + dx, rows + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))
    return np.stack(out).astype(np.uint8)


def ringing(frames: Frames, strength: float, _rng: np.random.Generator) -> Frames:
    """Sharpened until edges have halos."""
    sigma, amount = 1.2 * _scale(frames), 1 + 4 * strength
    return each(frames, lambda f: cv2.addWeighted(f, 1 + amount, cv2.GaussianBlur(f, (0, 0), sigma), -amount, 0))


def blotches(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Soft spots of wrong colour that come and go."""
    count, height, width, _ = frames.shape
    values = frames.astype(np.float32)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(2 + round(5 * strength)):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.04, 0.14) * height
        cover = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * radius**2))[None, :, :, None]
        start = int(rng.integers(0, max(1, count // 2)))
        span = slice(start, start + int(rng.integers(count // 3, count + 1)))
        share = (0.35 + 0.5 * strength) * cover
        values[span] = (1 - share) * values[span] + share * rng.uniform(0, 255, 3)
    return to_frames(values)


def bulge(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A round lens lies over a part of the picture, which it makes larger or smaller."""
    _, height, width, _ = frames.shape
    y, x = rng.uniform(0.25, 0.75, 2) * (height, width)
    radius = rng.uniform(0.25, 0.5) * min(height, width)
    columns, rows = np.meshgrid(np.arange(width) - x, np.arange(height) - y)
    inside = np.clip(1 - np.hypot(columns, rows) / radius, 0, 1)
    scale = 1 + (0.35 + 0.45 * strength) * inside * (1 if rng.random() < 0.5 else -1)
    across, down = ((v * scale + middle).astype(np.float32) for v, middle in ((columns, x), (rows, y)))
    return each(frames, lambda f: cv2.remap(f, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT))


def misregistration(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """Red, green and blue lie beside one another, as in a bad print."""
    reach = (0.7 + 3 * strength) * _scale(frames)
    angle, size = rng.uniform(0, 2 * np.pi), (frames.shape[2], frames.shape[1])
    out = frames.copy()
    for channel, sign in ((0, 1), (2, -1)):
        matrix = np.array([[1, 0, sign * reach * np.cos(angle)], [0, 1, sign * reach * np.sin(angle)]])
        for index, plane in enumerate(frames[..., channel]):
            out[index, ..., channel] = cv2.warpAffine(plane, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    return out


def random_filter(frames: Frames, strength: float, rng: np.random.Generator) -> Frames:
    """A random small linear filter that also mixes the channels, as broken weights would."""
    mix = np.eye(3) + 0.35 * strength * rng.standard_normal((3, 3))
    kernel = 0.12 * (0.3 + strength) * rng.standard_normal((5, 5))
    kernel[2, 2] += 1 - kernel.sum()
    mixed = frames.astype(np.float32) @ mix.astype(np.float32)
    return to_frames(np.stack([cv2.filter2D(f, -1, kernel) for f in mixed]).astype(np.float32))


LOOKS: dict[str, Look] = {
    f.__name__: f
    for f in (
        noise,
        texture,
        blur,
        over_smooth,
        banding,
        jpeg,
        colour_shift,
        over_saturation,
        tone,
        ghosting,
        flicker,
        checkerboard,
        low_resolution,
        melting,
        ringing,
        blotches,
        bulge,
        misregistration,
        random_filter,
    )
}
