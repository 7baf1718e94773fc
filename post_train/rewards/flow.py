"""Dense optical flow of a film, and the measures of motion that need nothing else: VBench's two and the warp error.

Legend: F frames, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]

# VBench's constants (Huang et al., arXiv 2311.17982; vbench 0.1.5, dynamic_degree.py and temporal_flickering.py).
_SAMPLED_FPS = 8
_TOP_SHARE = 0.05
_MOVING = 6.0 / 256.0
_MOVING_PAIRS = 4 / 16.0

_LEAST_SIDE = 32  # of what the flow is estimated on: DIS matches patches of 8 pixels on a pyramid

# More OpenCV threads only fight for the cores that others count on.
cv2.setNumThreads(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class VBenchMotion:
    """VBench's temporal flickering and dynamic degree of one film, never one without the other.

    A frozen film has no flicker at all (1.0), so `temporal_flickering` says something only beside `dynamic_degree`, the
    film's 0 or 1 whose mean over films VBench reports.
    """

    temporal_flickering: float
    dynamic_degree: float


def grey(frames: Frames) -> Frames:
    """Luma, uint8 [F, H, W]."""
    return np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]).astype(np.uint8)


def dense_flow(frames: Frames) -> Floats:
    """Each frame's flow to the next, in pixels (x, y), float32 [F - 1, H, W, 2], by dense inverse search (DIS)."""
    if frames.ndim != 4 or len(frames) < 2 or min(frames.shape[1:3]) < _LEAST_SIDE:
        raise ValueError(
            f"flow needs at least 2 frames of {_LEAST_SIDE} pixels, uint8 [F, H, W, 3], got {list(frames.shape)}"
        )
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    lumas = grey(frames)
    return np.stack([search.calc(a, b, None) for a, b in pairwise(lumas)]).astype(np.float32)  # type: ignore[call-overload]


def top_speeds(flow: Floats) -> Floats:
    """Of each pair the mean of the 5 % greatest magnitudes, in pixels, float32 [F - 1], as VBench takes it."""
    speed = np.sort(np.hypot(flow[..., 0], flow[..., 1]).reshape(len(flow), -1), axis=1)
    count = int(speed.shape[1] * _TOP_SHARE)
    return speed[:, -count:].mean(1).astype(np.float32)


def moves(speeds: Floats, side: int) -> bool:
    """VBench's dynamic degree of one film from its pairs' top speeds; `side` is the shorter one in pixels.

    True as soon as round(4 n / 16) of the pairs of n sampled frames are faster than 6 * side / 256.
    """
    needed = round(_MOVING_PAIRS * (len(speeds) + 1))
    fast = int((speeds > _MOVING * side).sum())
    return len(speeds) > 0 and fast >= needed


def temporal_flickering(frames: Frames) -> float:
    """(255 - mean |I_t - I_t+1|) / 255 over all frames of the film, as VBench takes it."""
    differences = np.abs(np.diff(frames.astype(np.float32), axis=0))
    return (255.0 - float(differences.mean(dtype=np.float64))) / 255.0


def vbench_motion(frames: Frames, fps: int) -> VBenchMotion:
    """Both of VBench's measures; the dynamic degree by DIS flow instead of RAFT, on 8 frames a second."""
    sampled = frames[:: max(1, round(fps / _SAMPLED_FPS))]
    dynamic = len(sampled) > 1 and moves(top_speeds(dense_flow(sampled)), min(frames.shape[1:3]))
    return VBenchMotion(temporal_flickering=temporal_flickering(frames), dynamic_degree=float(dynamic))


def warped_back(frames: Frames, flow: Floats) -> Frames:
    """Each frame's successor brought back to it along `flow`, uint8 [F - 1, H, W, 3]."""
    _, height, width, _ = frames.shape
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.stack(
        [
            cv2.remap(f, columns + v[..., 0], rows + v[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for f, v in zip(frames[1:], flow, strict=True)
        ]
    ).astype(np.uint8)


def warp_residual(frames: Frames, flow: Floats) -> Floats:
    """What the flow does not explain of each pixel: |I_t - warped I_t+1|, mean over channels, float32 [F - 1, H, W]."""
    return np.abs(frames[:-1].astype(np.float32) - warped_back(frames, flow)).mean(-1)
