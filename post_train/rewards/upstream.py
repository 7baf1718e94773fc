"""Adapters that serve other people's scorers by our schema, each run in an environment of its own.

Their pins exclude one another and our own, and their weights cannot be had where this was written. `status` says which
of them has run on random weights of its own architecture and which is *not run* but written from its source; a scorer
whose package or weights are missing is refused with the sentence that tells what it needs.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from post_train.rewards.base import Dimension, Film, Reward, RewardError, Score
from post_train.rewards.wire import mp4_bytes

_TOGETHER = 4  # frames in one call of an image scorer
_TOP_SHARE = 0.3  # of a film's frames: the mean of the best of them is the film's score


class UpstreamMissingError(RuntimeError):
    """An upstream scorer cannot be loaded here; the message says what it needs."""


def mean_of_best(values: Sequence[float], share: float = _TOP_SHARE) -> tuple[float, list[int]]:
    """The mean of the best `share` of `values` (at least one), and which they are.

    Flash-GRPO's aggregation of an image scorer over a film (arXiv 2605.15980).
    """
    count = max(1, round(share * len(values)))
    best = sorted(range(len(values)), key=lambda i: -values[i])[:count]
    return sum(values[i] for i in best) / count, best


def _file_digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(2**22):
            digest.update(piece)
    return digest.hexdigest()


def folder_digest(folder: Path, note: str) -> str:
    """A short hash of all files of a folder of weights, or of one file, with a note of what reads them."""
    files = [folder] if folder.is_file() else sorted(p for p in folder.rglob("*") if p.is_file())
    whole = hashlib.sha256(note.encode())
    for path in files:
        whole.update(f"{path.name} {_file_digest(path)}\n".encode())
    return whole.hexdigest()[:16]


class _Scorer(ABC):
    """What the adapters share: a name, a digest, one dimension, and one film at a time."""

    def __init__(self, name: str, digest: str, dimension: Dimension) -> None:
        self.name, self.digest, self.dimension = name, digest, dimension

    def score(self, films: Sequence[Film]) -> list[Score]:
        """One score a film."""
        return [self._score(film) for film in films]

    @abstractmethod
    def _score(self, film: Film) -> Score: ...


class HPSv3(_Scorer):
    """HPSv3 (arXiv 2508.03789) by package hpsv3 1.0.0: (mean, log deviation) a frame, the mean of the best 30 % a film.

    `inferencer` is that package's HPSv3RewardInferencer, whose `reward(images, prompts)` gives logits [n, 2]. Frames of
    one film err together, so the film's noise is the mean deviation of the frames that count.
    """

    def __init__(self, inferencer: Any, digest: str) -> None:
        super().__init__("hpsv3", digest, Dimension.VISUAL_QUALITY)
        self.inferencer = inferencer

    def _score(self, film: Film) -> Score:
        import torch  # noqa: PLC0415
        from PIL import Image  # noqa: PLC0415

        pictures = [Image.fromarray(f) for f in film.frames]
        rows: list[list[float]] = []
        with torch.inference_mode():
            for start in range(0, len(pictures), _TOGETHER):
                some = pictures[start : start + _TOGETHER]
                rows += [[float(v) for v in row] for row in self.inferencer.reward(some, [film.prompt] * len(some))]
        if len(rows) != len(pictures) or any(len(row) != 2 for row in rows):
            raise RewardError(self.name, film.name, f"it gave {len(rows)} rows of logits for {len(pictures)} frames")
        value, best = mean_of_best([row[0] for row in rows])
        noise = sum(math.exp(rows[i][1]) for i in best) / len(best)
        return Score(value=value, noise=noise, parts={"mean_of_all": float(np.mean([row[0] for row in rows]))})


class VideoAlign(_Scorer):
    """VideoAlign (arXiv 2501.13918) by its repository: VQ, MQ or TA, z-scored as its checkpoint's configuration says.

    `inference` is its VideoVLMRewardInference, whose `reward(paths, prompts, use_norm=True)` gives a dict a film. It
    states no uncertainty: the noise is 0 and the tie threshold must come from elsewhere.
    """

    def __init__(self, inference: Any, digest: str, dimension: Dimension) -> None:
        super().__init__(f"videoalign-{dimension}", digest, dimension)
        self.inference = inference

    def _score(self, film: Film) -> Score:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.mp4"
            path.write_bytes(mp4_bytes(film.frames, film.fps))
            (found,) = self.inference.reward([str(path)], [film.prompt], use_norm=True)
        parts = {k.lower(): float(found[k]) for k in ("VQ", "MQ", "TA", "Overall")}
        return Score(value=parts[self.dimension.value], noise=0.0, parts=parts)


class VBench(_Scorer):
    """VBench (arXiv 2311.17982) by package vbench 0.1.5, on films of its own input mode: the mean of its dimensions.

    `bench` is that package's VBench, which writes `NAME_eval_results.json` into its output folder. It states no
    uncertainty. Motion is told by smoothness and dynamic degree together, never by one of them.
    """

    dimensions: ClassVar = {
        Dimension.VISUAL_QUALITY: ("aesthetic_quality", "imaging_quality"),
        Dimension.MOTION_QUALITY: ("motion_smoothness", "dynamic_degree"),
        Dimension.TEXT_ALIGNMENT: ("overall_consistency",),
    }
    files: ClassVar = {
        Dimension.VISUAL_QUALITY: (
            "clip_model/ViT-L-14.pt",
            "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth",
            "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth",
        ),
        Dimension.MOTION_QUALITY: ("amt_model/amt-s.pth", "raft_model/models/raft-things.pth"),
        Dimension.TEXT_ALIGNMENT: ("ViCLIP/ViClip-InternVid-10M-FLT.pth",),
    }

    def __init__(self, bench: Any, output: Path, digest: str, dimension: Dimension) -> None:
        super().__init__(f"vbench-{dimension}", digest, dimension)
        self.bench, self.output = bench, output

    def _score(self, film: Film) -> Score:
        wanted = self.dimensions[self.dimension]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "film.mp4"
            path.write_bytes(mp4_bytes(film.frames, film.fps))
            self.bench.evaluate(
                videos_path=str(path),
                name="film",
                prompt_list=[film.prompt],
                dimension_list=list(wanted),
                mode="custom_input",
                local=True,
            )
        found = json.loads((self.output / "film_eval_results.json").read_text())
        parts = {name: float(found[name][0]) for name in wanted}
        return Score(value=sum(parts.values()) / len(parts), noise=0.0, parts=parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where an upstream scorer's parts lie: its weights, a clone of its source, a configuration other than its own.

    A configuration can name a base model on this disk where the package's own would fetch one.
    """

    weights: Path | None = None
    checkout: Path | None = None
    config: Path | None = None


def _device() -> str:
    import torch  # noqa: PLC0415

    return "cuda" if torch.cuda.is_available() else "cpu"


def _load_hpsv3(at: Sources) -> Reward:
    from hpsv3 import HPSv3RewardInferencer  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

    if at.weights is None or not at.weights.is_file():
        raise UpstreamMissingError(f"hpsv3 needs --weights, HPSv3.safetensors of MizzenAI/HPSv3, got {at.weights}")
    config = None if at.config is None else str(at.config)
    inferencer = HPSv3RewardInferencer(config_path=config, checkpoint_path=str(at.weights), device=_device())
    return HPSv3(inferencer, folder_digest(at.weights, "hpsv3 1.0.0"))


def _videoalign(dimension: Dimension) -> Callable[[Sources], Reward]:
    def load(at: Sources) -> Reward:
        if at.checkout is None or not (at.checkout / "inference.py").is_file():
            raise UpstreamMissingError(f"videoalign needs --checkout, a clone of KwaiVGI/VideoAlign, got {at.checkout}")
        if at.weights is None or not at.weights.is_dir():
            raise UpstreamMissingError(f"videoalign needs --weights, the folder of VideoReward, got {at.weights}")
        sys.path.insert(0, str(at.checkout.resolve()))
        from inference import VideoVLMRewardInference  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

        inference = VideoVLMRewardInference(str(at.weights))
        return VideoAlign(inference, folder_digest(at.weights, "videoalign"), dimension)

    return load


def _vbench(dimension: Dimension) -> Callable[[Sources], Reward]:
    def load(at: Sources) -> Reward:
        if at.weights is None or not at.weights.is_dir():
            raise UpstreamMissingError(f"vbench needs --weights, a folder with its scorers' weights, got {at.weights}")
        # What is missing it would fetch by itself, in the middle of a run.
        missing = [name for name in VBench.files[dimension] if not (at.weights / name).is_file()]
        if missing:
            raise UpstreamMissingError(f"vbench-{dimension} needs {', '.join(missing)} in {at.weights}")
        os.environ["VBENCH_CACHE_DIR"] = str(at.weights.resolve())  # read when the package is imported
        import vbench  # noqa: PLC0415  # pyright: ignore[reportMissingImports]

        info = Path(str(vbench.__file__)).parent / "VBench_full_info.json"
        output = Path(tempfile.mkdtemp(prefix="vbench-"))
        bench = vbench.VBench(_device(), str(info), str(output))
        return VBench(bench, output, folder_digest(at.weights, "vbench 0.1.5"), dimension)

    return load


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """An upstream scorer: what must be importable for it, what it needs besides, how it was run, how it is loaded."""

    name: str
    module: str | None
    needs: str
    proof: str
    load: Callable[[Sources], Reward]

    @property
    def importable(self) -> bool:
        return self.module is None or importlib.util.find_spec(self.module) is not None

    def status(self) -> str:
        """What a person must know before relying on it."""
        there = "" if self.importable else f"; its package {self.module} is not installed here"
        return f"{self.proof}{there}. It needs {self.needs}"


_NOT_RUN = "not run: written from its source, never executed by us"
_RANDOM = "run on random weights of its architecture only, not run on the published ones"
_HPSV3 = Adapter(
    name="hpsv3",
    module="hpsv3",
    needs="package hpsv3 1.0.0 with transformers 4.45.2, and 16.5 GB of weights (MizzenAI/HPSv3)",
    proof=_RANDOM,
    load=_load_hpsv3,
)
_VIDEOALIGN = "a clone of KwaiVGI/VideoAlign (no package has it) and the weights KwaiVGI/VideoReward"
_VBENCH = "package vbench 0.1.5 with transformers 4.33.2 and numpy below 2, and its scorers' weights"
UPSTREAM: dict[str, Adapter] = {
    _HPSV3.name: _HPSV3,
    **{
        f"videoalign-{d}": Adapter(
            name=f"videoalign-{d}", module=None, needs=_VIDEOALIGN, proof=_NOT_RUN, load=_videoalign(d)
        )
        for d in Dimension
    },
    **{
        f"vbench-{d}": Adapter(
            name=f"vbench-{d}",
            module="vbench",
            needs=_VBENCH,
            proof=_RANDOM if d is Dimension.MOTION_QUALITY else _NOT_RUN,
            load=_vbench(d),
        )
        for d in Dimension
    },
}


def load_upstream(name: str, at: Sources) -> Reward:
    """The upstream scorer called `name`; UpstreamMissingError says what it needs when that is not here."""
    adapter = UPSTREAM[name]
    if not adapter.importable:
        what = f"package {adapter.module} is missing"
        raise UpstreamMissingError(f"{name} cannot be loaded: {what}. It needs {adapter.needs}")
    try:
        return adapter.load(at)
    except ImportError as error:
        raise UpstreamMissingError(f"{name} cannot be loaded: {error}. It needs {adapter.needs}") from error
