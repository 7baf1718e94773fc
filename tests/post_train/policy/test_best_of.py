"""The best of n films of a model, made resumably, is a folder of clips that fine-tuning reads without loss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from engines.engine import load_engine
from engines.types import VideoSpec
from post_train.data.clips import FolderClips
from post_train.data.diorama.parse import parse_prompt
from post_train.data.wild_prompts import wild_prompts
from post_train.films import FilmOrder, draw_films
from post_train.policy.best_of import BestOf, Choice, gains, write_best_of
from post_train.policy.panel import Panel, Seat
from post_train.rewards.base import Dimension, Film, RewardError, Score

PROMPTS = ["a red ball", "a cat walks"]


class Brightness:
    """A real measure of the pixels: the brighter film is the better."""

    name, digest, dimension = "brightness", "b" * 8, Dimension.VISUAL_QUALITY

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.seen = 0
        self._fails_at = fails_at

    def score(self, films: Sequence[Film]) -> list[Score]:
        self.seen += len(films)
        value = float("nan") if self._fails_at is not None and self.seen > self._fails_at else 0.0
        return [Score(value=float(f.frames.mean()) + value, noise=0.0) for f in films]


class Redness(Brightness):
    """Another: the share of red."""

    name, digest, dimension = "redness", "r" * 8, Dimension.MOTION_QUALITY

    def score(self, films: Sequence[Film]) -> list[Score]:
        return [Score(value=float(f.frames[..., 0].mean() / f.frames.mean()), noise=0.0) for f in films]


def _make(
    folder: Path, model: Path, *rewards: Brightness, prompts: list[str] = PROMPTS, batch: int = 2
) -> list[Choice]:
    panel = Panel([Seat(reward=r, weight=1.0) for r in rewards])
    try:
        return write_best_of(
            folder,
            prompts,
            BestOf(count=3, batch=batch, first_seed=5),
            engine=load_engine(model),
            model_digest="m",
            panel=panel,
            tell=lambda _: None,
        )
    finally:
        panel.close()


def test_the_best_is_kept_to_the_bit(tiny_wan: Path, tmp_path: Path) -> None:
    """Each prompt keeps the film with the highest score; the clip that training reads is that film, pixel for pixel."""
    choices = _make(tmp_path / "best", tiny_wan, Brightness())
    clips = list(FolderClips(tmp_path / "best"))
    assert [c.caption for c in clips] == PROMPTS
    engine = load_engine(tiny_wan)
    for index, (choice, clip) in enumerate(zip(choices, clips, strict=True)):
        orders = [FilmOrder(name=str(s), prompt=choice.prompt, seed=s) for s in range(5 + 3 * index, 8 + 3 * index)]
        films = {o.seed: r.frames for o, r in draw_films(engine, orders, batch=2)}
        brightness = {seed: float(frames.mean()) for seed, frames in films.items()}
        assert choice.seed == max(brightness, key=brightness.__getitem__)
        assert choice.rewards == pytest.approx([brightness[choice.seed]])
        assert choice.means == pytest.approx([np.mean(list(brightness.values()))])
        frames = clip.frames(VideoSpec(width=32, height=32, num_frames=9, fps=8))
        assert np.array_equal(frames, films[choice.seed])


def test_rewards_of_any_unit_choose_together(tiny_wan: Path, tmp_path: Path) -> None:
    """Among several rewards the film wins whose deviations add up to the most, whatever scale each is on."""
    both = _make(tmp_path / "both", tiny_wan, Brightness(), Redness())
    engine = load_engine(tiny_wan)
    for index, choice in enumerate(both):
        orders = [FilmOrder(name=str(s), prompt=choice.prompt, seed=s) for s in range(5 + 3 * index, 8 + 3 * index)]
        frames = [result.frames.astype(float) for _, result in draw_films(engine, orders, batch=3)]
        bright = np.array([f.mean() for f in frames])
        red = np.array([f[..., 0].mean() for f in frames]) / bright
        total = sum((x - x.mean()) / x.std() for x in (bright, red))
        assert choice.advantages == pytest.approx(total, abs=1e-3)
        assert choice.seed == orders[int(total.argmax())].seed


def test_what_was_gained_is_told(tiny_wan: Path, tmp_path: Path) -> None:
    """The last line sets the means of the films kept beside those of all."""
    reward = Brightness()
    chosen = _make(tmp_path / "best", tiny_wan, reward)
    kept, made = (np.mean([getattr(c, of)[0] for c in chosen]) for of in ("rewards", "means"))
    assert kept > made
    told = gains(Panel([Seat(reward=reward, weight=1.0)]), chosen)
    assert told == f"kept: vq {kept:.4g}; all that were made: vq {made:.4g}"


def test_what_was_made_is_not_made_again(tiny_wan: Path, tmp_path: Path) -> None:
    """A run that broke off at its second prompt makes only that when it goes on, and ends as an undisturbed one."""
    folder = tmp_path / "best"
    with pytest.raises(RewardError, match="brightness"):
        _make(folder, tiny_wan, Brightness(fails_at=3))
    with (folder / "choices.jsonl").open("a") as file:
        file.write('{"prompt": "a ca')  # what a kill in the middle of a line leaves
    assert not (folder / "metadata.jsonl").exists()
    again = Brightness()
    choices = _make(folder, tiny_wan, again)
    assert again.seen == 3
    assert choices == _make(tmp_path / "whole", tiny_wan, Brightness())
    lines = (folder / "choices.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == PROMPTS


def test_films_of_several_prompts_are_made_together(tiny_wan: Path, tmp_path: Path) -> None:
    """A batch that holds several prompts' films chooses as one that holds a few of one prompt's, whatever is left."""
    prompts = [*PROMPTS, "a blue cube"]
    apart = _make(tmp_path / "apart", tiny_wan, Brightness(), prompts=prompts)
    together = _make(tmp_path / "together", tiny_wan, Brightness(), prompts=prompts, batch=6)
    assert [(c.prompt, c.file, c.seed) for c in together] == [(c.prompt, c.file, c.seed) for c in apart]
    for one, other in zip(together, apart, strict=True):
        assert one.rewards == pytest.approx(other.rewards, abs=0.1)


def test_another_beginning_is_refused(tiny_wan: Path, tmp_path: Path) -> None:
    """A folder is not continued with other prompts, and no prompt is asked for twice."""
    _make(tmp_path / "best", tiny_wan, Brightness(), prompts=PROMPTS[:1])
    with pytest.raises(ValueError, match="was begun with another prompts"):
        _make(tmp_path / "best", tiny_wan, Brightness())
    with pytest.raises(ValueError, match="each must be there once"):
        _make(tmp_path / "other", tiny_wan, Brightness(), prompts=["a", "a"])


def test_prompts_are_captions_that_a_judge_can_read() -> None:
    """As many as are asked for, each once, in seed order, all readable."""
    prompts = wild_prompts(100, 12, num_frames=9)
    assert len(set(prompts)) == 12
    assert all(parse_prompt(p).readable for p in prompts)
    assert wild_prompts(100, 5, num_frames=9) == prompts[:5]
