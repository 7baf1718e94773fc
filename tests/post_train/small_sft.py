"""Fine-tuning cut down to what a test can run in seconds: the tiny random Wan, five short films, eight steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from engines.video import write_video
from post_train.data.clips import ClipSource, FolderClips
from post_train.data.diorama.world import make_clip
from post_train.distributed import ALONE, Ranks
from post_train.lora import Lora
from post_train.recipes.sft import SftRecipe, wan_sft
from post_train.sft_run import SftOptions, SftRun


def small_sft(*, lora: Lora | None = None, steps: int = 8, batch: int = 4, micro_batch: int = 2) -> SftRecipe:
    """The recipe of real Wans with other numbers; a learning rate that moves tiny weights."""
    full = wan_sft()
    return replace(
        full,
        loop=replace(full.loop, steps=steps, lr=2e-3, warmup_steps=2, decay_steps=4, log_every=1, ema_decay=0.9),
        sft=replace(full.sft, batch=batch, micro_batch=micro_batch, lora=lora),
        frozen="fp32",
    )


def write_clips(folder: Path, count: int = 5) -> Path:
    """Films of the world as a user would bring them: mp4 with a caption beside each."""
    folder.mkdir(parents=True)
    for seed in range(count):
        clip = make_clip(seed, side=32, num_frames=9)
        write_video(clip.frames, folder / f"clip-{seed}.mp4", fps=8)
        (folder / f"clip-{seed}.txt").write_text(clip.captions.full.text)
    return folder


def sft_options(folder: Path, *, resume: bool = False) -> SftOptions:
    """fp32, cached beside the run's folder."""
    return SftOptions(folder=folder, cache=folder.parent / "cache", precision="fp32", minutes=10, resume=resume)


def small_run(
    recipe: SftRecipe,
    model: Path,
    source: ClipSource | Path,
    folder: Path,
    *,
    resume: bool = False,
    ranks: Ranks = ALONE,
) -> SftRun:
    """A run on a folder of clips or on any source."""
    clips = FolderClips(source) if isinstance(source, Path) else source
    return SftRun(
        recipe, sft_options(folder, resume=resume), model=model, source=clips, ranks=ranks, report=lambda _: None
    )
