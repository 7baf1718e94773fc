"""Films for a comparison, made once: each is kept lossless under a hash of all that decides its pixels.

Legend: F frames, H W pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from engines.types import GenerationRequest, GenerationResult, StepEvent
from engines.whole_writes import write_whole
from post_train.evaluation.arms import Arm
from post_train.evaluation.digests import engine_digest
from post_train.evaluation.prompts import Prompt
from post_train.films import FilmOrder, request_of
from post_train.keys import key_of

_BATCH = 8
# Called with the number of films that are there and the number wanted.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One film that is wanted of a model."""

    prompt: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeFilm:
    """A film: frames uint8 [F, H, W, 3], calls of the transformer that it took, and seconds of computing."""

    ask: Ask
    key: str
    frames: NDArray[np.uint8]
    fps: int
    nfe: int
    seconds: float


def asks_of(prompt: Prompt, seeds: int) -> list[Ask]:
    """The films of `prompt` with `seeds` seeds, which hang on its clip or else its text alone.

    Both sides and every run so start from the same noise, and a caption from the same as its paraphrase.
    """
    origin = prompt.text if prompt.clip is None else f"clip {prompt.clip}"
    first = int.from_bytes(hashlib.blake2b(origin.encode(), digest_size=3).digest(), "big")
    return [Ask(prompt=prompt.text, seed=first + i) for i in range(seeds)]


class FilmCabinet:
    """The films of one arm by the serving sampler, on disk below `root`."""

    def __init__(self, arm: Arm, root: Path) -> None:
        self.arm = arm
        self._root = root

    def key(self, ask: Ask) -> str:
        """The hash of weights, prompt, seed, sampler, size and code."""
        request = self._request(ask, "")
        facts = {
            "weights": self.arm.digest,
            "engine": engine_digest(),
            "prompt": ask.prompt,
            "negative_prompt": request.negative_prompt,
            "seed": ask.seed,
            "shape": str(request.shape_key),
            "guidance_scale": request.guidance_scale,
            "fps": request.spec.fps,
        }
        return key_of(facts)

    def missing(self, asks: Iterable[Ask]) -> list[Ask]:
        """Those of `asks` that are still to be made, each once."""
        return [ask for ask in dict.fromkeys(asks) if not self._path(self.key(ask)).is_file()]

    def fill(self, asks: Sequence[Ask], progress: Progress) -> None:
        """Makes what is missing, a batch at a time; what is killed goes on where it was."""
        missing = self.missing(asks)
        total = len(set(asks))
        progress(total - len(missing), total)
        if not missing:
            return
        from engines import load_engine  # noqa: PLC0415  torch takes seconds to import, and a full cabinet needs none

        # Padded batches: a film is then the same whoever shares its batch, as its key promises.
        engine = load_engine(self.arm.folder, pad_batch_to=_BATCH)
        done = total - len(missing)
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            requests = [self._request(ask, str(i)) for i, ask in enumerate(batch)]
            steps = 0
            for event in engine.generate(requests):
                if isinstance(event, StepEvent):
                    steps = max(steps, event.step)
                elif isinstance(event, GenerationResult):
                    self._keep(batch[int(event.request.request_id)], event, steps, len(batch))
                    done += 1
            progress(done, total)

    def films(self, asks: Iterable[Ask]) -> Iterator[MadeFilm]:
        """The films of `asks`, in order, each read when it is wanted. They must have been made."""
        return (self._read(ask) for ask in asks)

    def _path(self, key: str) -> Path:
        return self._root / key[:2] / f"{key}.png"

    def _request(self, ask: Ask, request_id: str) -> GenerationRequest:
        return request_of(self.arm.card, FilmOrder(name=request_id, prompt=ask.prompt, seed=ask.seed))

    def _keep(self, ask: Ask, result: GenerationResult, steps: int, shared_by: int) -> None:
        """Writes a film as one tall picture of its frames, with what it cost."""
        frames = result.frames
        seconds = sum(result.seconds.get(stage, 0.0) for stage in ("encode", "denoise", "decode")) / shared_by
        facts = {
            "prompt": ask.prompt,
            "seed": ask.seed,
            "num_frames": len(frames),
            "fps": result.request.spec.fps,
            "nfe": steps * (2 if result.request.guided else 1),
            "seconds": seconds,
        }
        info = PngImagePlugin.PngInfo()
        info.add_itxt("film", json.dumps(facts))
        buffer = io.BytesIO()
        Image.fromarray(frames.reshape(-1, *frames.shape[2:])).save(buffer, format="PNG", pnginfo=info)
        write_whole(self._path(self.key(ask)), buffer.getvalue())

    def _read(self, ask: Ask) -> MadeFilm:
        key = self.key(ask)
        path = self._path(key)
        try:
            with Image.open(path) as picture:
                picture.load()
                tall = np.asarray(picture.convert("RGB"))
                facts = json.loads(str(picture.info["film"]))
        except (UnidentifiedImageError, SyntaxError, KeyError, json.JSONDecodeError, OSError) as error:
            if isinstance(error, FileNotFoundError):
                raise
            raise ValueError(f"the kept film {path} is damaged ({error}); delete it and run again") from None
        return MadeFilm(
            ask=ask,
            key=key,
            frames=tall.reshape(facts["num_frames"], -1, *tall.shape[1:]),
            fps=facts["fps"],
            nfe=facts["nfe"],
            seconds=facts["seconds"],
        )
