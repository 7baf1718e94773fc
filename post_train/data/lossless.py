"""Films on disk without loss, as ordinary video files: FFV1 in Matroska, which every decoder of ours reads to the bit.

Legend: F frames, H W pixels.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from engines.whole_writes import appearing_whole

SUFFIX = ".mkv"


def write_lossless(frames: NDArray[np.uint8], path: Path, *, fps: int) -> None:
    """Writes frames uint8 [F, H, W, 3] whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with appearing_whole(path) as part, av.open(str(part), "w", format="matroska") as container:
        stream: Any = container.add_stream("ffv1", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        stream.time_base = Fraction(1, fps)
        for index, picture in enumerate(frames):
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = rgb.reformat(format="bgr0")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
