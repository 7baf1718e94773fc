"""What curation measures of a clip: its pixels, its caption and what a judge reads off it, never its ground truth.

Legend: F frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from post_train.data.diorama.asked import Asked
from post_train.data.diorama.vocabulary import Camera, Weather
from post_train.rewards.flow import Floats, dense_flow, grey, top_speeds
from post_train.rewards.reading import Reading

Frames = NDArray[np.uint8]

_ASKEW = 3  # pixels: off the grid of 8 that JPEG and most video codecs transform by
_QUALITIES = (40, 55, 70)
_SAMPLED = 4  # every so many frames are recompressed
_STEEPEST = 0.75
_PRESENT = 0.5

cv2.setNumThreads(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipMeasures:
    """One clip's figures.

    `alignment` is the judge's share of the caption that shows; `untold` names what shows and the caption leaves out,
    `unread` words of it that nobody can check. `shake` is the camera's jitter and `speed` the fastest twentieth of the
    picture, both in sides of the frame a frame; `still_share` is the share of frame pairs where nothing moves.
    `brightness` is mean luma (0 to 255), `sharpness` the variance of the Laplacian, `blockiness` the sign of an
    earlier compression, `edge_margin` the least distance of an object from the frame's edge (negative: cut off).
    `attributes` are what the caption asks for, as names to balance by.
    """

    name: str
    alignment: float
    untold: tuple[str, ...]
    unread: tuple[str, ...]
    shake: float
    speed: float
    still_share: float
    brightness: float
    sharpness: float
    blockiness: float
    edge_margin: float
    attributes: tuple[str, ...]


def brightness(frames: Frames) -> float:
    """Mean luma of a clip uint8 [F, H, W, 3]."""
    return float(grey(frames).mean())


def sharpness(frames: Frames) -> float:
    """The least variance of the Laplacian of a frame's luma: one blurred frame makes a blurred clip."""
    return min(float(cv2.Laplacian(f, cv2.CV_32F).var()) for f in grey(frames))


def blockiness(frames: Frames) -> float:
    """How much more a JPEG changes a clip's luma when its blocks lie askew of where they lie now; 1 for no blocks.

    What was compressed once changes little when it is compressed again on the same grid.
    """
    aligned, askew = [], []
    for luma in grey(frames)[::_SAMPLED]:
        for quality in _QUALITIES:
            aligned.append(_recompressed_error(luma, quality))
            askew.append(_recompressed_error(luma[_ASKEW:, _ASKEW:], quality))
    return (float(np.mean(askew)) + 1e-3) / (float(np.mean(aligned)) + 1e-3)


def _recompressed_error(luma: NDArray[np.uint8], quality: int) -> float:
    done, code = cv2.imencode(".jpg", np.ascontiguousarray(luma), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    again = cv2.imdecode(code, cv2.IMREAD_GRAYSCALE)
    assert again is not None
    return float(np.abs(again.astype(np.float32) - luma).mean())


def shake(frames: Frames, flow: Floats) -> float:
    """The median change of the picture's common movement from frame to frame, in sides: pans and zooms have none.

    The movement of a pair is the median of its optical flow where the picture has edges across it: objects move the
    median little, a shaken camera moves it wholly, and plain surfaces, which show no movement, have no say.
    """
    lumas = grey(frames)[:-1].astype(np.float32)
    common = np.array(
        [[_common(f[..., axis], luma, axis) for axis in (0, 1)] for f, luma in zip(flow, lumas, strict=True)]
    )
    if len(common) < 2:
        return 0.0
    return float(np.median(np.linalg.norm(np.diff(common, axis=0), axis=1))) / min(frames.shape[1:3])


def _common(flow: Floats, luma: Floats, axis: int) -> float:
    """The median of one component of the flow over the quarter of the pixels with the steepest luma along it."""
    slope = np.abs(cv2.Sobel(luma, cv2.CV_32F, 1 - axis, axis))
    return float(np.median(flow[slope >= np.quantile(slope, _STEEPEST)]))


def movement(frames: Frames, flow: Floats) -> tuple[float, float]:
    """(mean of the pairs' top speeds in sides a frame, share of pairs of frames that are equal)."""
    still = np.array([np.array_equal(a, b) for a, b in pairwise(frames)])
    return float(top_speeds(flow).mean()) / min(frames.shape[1:3]), float(still.mean())


def edge_margin(reading: Reading) -> float:
    """The least distance from an object's box to the frame's edge while it is seen, in sides; 1 for no object."""
    least = 1.0
    for thing in reading.objects:
        track = thing.track
        seen = track.presence > _PRESENT
        if seen.any():
            half = track.size[seen] / 2
            x, y = track.x[seen], track.y[seen]
            least = min(least, float(np.min([x - half, 1 - x - half, y - half, 1 - y - half])))
    return least


def untold(asked: Asked, reading: Reading) -> tuple[str, ...]:
    """What the judge sees and a caption that should tell everything leaves out, by name."""
    missing = {
        "count": len(reading.objects) > len(asked.objects),
        "camera": asked.camera is None and reading.camera is not Camera.STATIC,
        "weather": asked.weather is None and reading.weather is not Weather.NONE,
        "hills": asked.hills is None and reading.hills,
    }
    return tuple(name for name, left_out in missing.items() if left_out)


def attributes(asked: Asked) -> tuple[str, ...]:
    """What a caption asks for as `kind:value` names; what it leaves open counts as such."""
    names = [f"object:{o.name}" for o in asked.objects]
    names += [f"colour:{o.colour}" for o in asked.objects if o.colour]
    names += [f"action:{o.action}" for o in asked.objects if o.action]
    names.append(f"count:{len(asked.objects)}")
    for kind in ("ground", "sky", "weather", "camera", "hills"):
        names.append(f"{kind}:{getattr(asked, kind)}")
    return tuple(names)


def measured(
    name: str, frames: Frames, asked: Asked, unread: tuple[str, ...], reading: Reading, alignment: float
) -> ClipMeasures:
    """All figures of one clip; `alignment` is a judge's score of it against its caption."""
    flow = dense_flow(frames)
    speed, still = movement(frames, flow)
    return ClipMeasures(
        name=name,
        alignment=alignment,
        untold=untold(asked, reading),
        unread=unread,
        shake=shake(frames, flow),
        speed=speed,
        still_share=still,
        brightness=brightness(frames),
        sharpness=sharpness(frames),
        blockiness=blockiness(frames),
        edge_margin=edge_margin(reading),
        attributes=attributes(asked),
    )
