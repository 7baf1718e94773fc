"""The film that is asked of both servers and of both bare engines."""

from __future__ import annotations

PROMPT = "a small red ball rolls over a grassy meadow under a clear blue sky"
NEGATIVE_PROMPT = "low quality, blurry, distorted"
SIDE = 64
FRAMES = 9
FPS = 8
GUIDANCE = 3.0
