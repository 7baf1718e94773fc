"""Our engine without a server: what a worker's child does for a film, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

from beside.bare import serve
from beside.film import FPS, FRAMES, GUIDANCE, NEGATIVE_PROMPT, PROMPT, SIDE
from engines import load_engine
from engines.card import read_card
from engines.types import GenerationRequest, GenerationResult, VideoSpec
from engines.video import write_video


def main(model: Path, film: Path) -> None:
    """Serve films of `model`, each written to `film`."""
    engine = load_engine(model)
    defaults = read_card(model).defaults
    spec = VideoSpec(width=SIDE, height=SIDE, num_frames=FRAMES, fps=FPS)

    def make_film(steps: int, seed: int) -> None:
        request = GenerationRequest(
            request_id="bare",
            spec=spec,
            prompt=PROMPT,
            negative_prompt=NEGATIVE_PROMPT,
            num_inference_steps=steps,
            guidance_scale=GUIDANCE,
            flow_shift=defaults.flow_shift,
            sampler=defaults.sampler,
            seed=seed,
        )
        result = next(event for event in engine.generate([request]) if isinstance(event, GenerationResult))
        write_video(result.frames, film, fps=FPS)

    serve(make_film)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
