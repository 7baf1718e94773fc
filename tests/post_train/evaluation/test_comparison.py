"""The figures of a comparison equal what plain arithmetic makes of the same scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from post_train.evaluation.arms import Arm, find_arm
from post_train.evaluation.comparison import Comparison, Plan, Side, compare
from post_train.evaluation.diversity import diversity
from post_train.evaluation.films import Ask, FilmCabinet, asks_of
from post_train.evaluation.prompts import Prompt, PromptKind, PromptSet
from post_train.evaluation.report import markdown
from post_train.evaluation.scale import measure_scale, read_scale, write_scale
from post_train.evaluation.scoring import FilmScores, Scorer
from post_train.evaluation.summary import summary
from post_train.rewards.base import Dimension, RewardError, Score
from tests.post_train.evaluation.simple_rewards import simple_judges

CLIPS = 40
PROMPTS = PromptSet(
    name="made up",
    prompts=tuple(
        prompt
        for clip in range(CLIPS)
        for prompt in (
            Prompt(text=f"full {clip}", kind=PromptKind.FAMILIAR, clip=clip),
            Prompt(text=f"told {clip}", kind=PromptKind.PARAPHRASE, clip=clip),
        )
    ),
)


def _scores(ask: Ask, better: float) -> FilmScores:
    rng = np.random.default_rng((ask.seed, ask.prompt.startswith("told"), int(better * 10)))
    told = 0.1 if ask.prompt.startswith("told") else 0.0
    values = {
        Dimension.TEXT_ALIGNMENT: 0.6 + better / 10 - told,
        Dimension.MOTION_QUALITY: 3.0,
        Dimension.VISUAL_QUALITY: 1.0,
    }
    parts = {
        Dimension.TEXT_ALIGNMENT: {"object": values[Dimension.TEXT_ALIGNMENT]},
        Dimension.MOTION_QUALITY: {"dynamic_degree": 1.0, "temporal_flickering": 0.9},
        Dimension.VISUAL_QUALITY: {},
    }
    scores = {d: Score(value=v + float(rng.normal(0, 0.2)), noise=0.05, parts=parts[d]) for d, v in values.items()}
    return FilmScores(ask=ask, scores=scores, nfe=40, seconds=2.0)


def _side(arm: Arm, better: float, folder: Path) -> Side:
    asks = [a for p in PROMPTS.prompts for a in asks_of(p, 2)]
    found = {a: _scores(a, better) for a in asks}
    distances = 0.1 * (1 + better) + np.array([0.0, 0.02, 0.04])  # films of A lie as far apart again
    return Side(arm=arm, cabinet=FilmCabinet(arm, folder), found=found, distances=distances)


@pytest.fixture
def comparison(tiny_wan: Path, tmp_path: Path) -> Comparison:
    arm = find_arm(str(tiny_wan))
    a, b = _side(arm, 1.0, tmp_path), _side(arm, 0.0, tmp_path)
    plan = Plan(prompts=PROMPTS, seeds=2, films=tmp_path, scores=tmp_path)
    judges = simple_judges()
    scale = measure_scale(arm, judges, "made up", [f for f in b.found.values() if f.ask.prompt.startswith("full")])
    return compare(a, b, plan, judges, scale)


def _values(side: Side, dimension: Dimension, word: str = "full") -> np.ndarray:
    rows = [
        [side.found[a].scores[dimension].value for a in asks_of(p, 2)]
        for p in PROMPTS.prompts
        if p.text.startswith(word)
    ]
    return np.array(rows)


def test_means_differences_and_gsb(comparison: Comparison) -> None:
    """Every figure is recomputed from the single scores."""
    told = summary(comparison)
    total = np.zeros((CLIPS, 2))
    for dimension in Dimension:
        a, b = (_values(side, dimension) for side in (comparison.a, comparison.b))
        assert told["a"][dimension.value] == pytest.approx(a.mean())
        assert told["differences"][dimension.value]["mean"] == pytest.approx((a - b).mean())
        total += (a - b) / b.std(ddof=1)
    threshold = np.sqrt(2 * sum((0.05 / _values(comparison.b, d).std(ddof=1)) ** 2 for d in Dimension))
    assert told["tie_threshold"] == pytest.approx(threshold)
    good, bad = (total > threshold).sum(), (total < -threshold).sum()
    assert (told["good"], told["bad"], told["n"]) == (good, bad, CLIPS)
    assert told["gsb"] == pytest.approx((good - bad) / total.size)
    assert told["gsb_low"] < told["gsb"] < told["gsb_high"]


def test_sensitivity_to_the_wording(comparison: Comparison) -> None:
    """Captions minus paraphrases of the same clips, with the interval that the closed form gives over clips."""
    told = summary(comparison)["b"]["prompt_sensitivity"]
    full, reworded = (_values(comparison.b, Dimension.TEXT_ALIGNMENT, word) for word in ("full", "told"))
    per_clip = (full - reworded).mean(axis=1)
    half = 1.96 * per_clip.std() / np.sqrt(CLIPS)
    assert told["mean"] == pytest.approx(per_clip.mean())
    assert told["low"] == pytest.approx(per_clip.mean() - half, abs=0.1 * half)
    assert told["high"] == pytest.approx(per_clip.mean() + half, abs=0.1 * half)


def test_the_report_names_every_figure(comparison: Comparison) -> None:
    """Flicker never without dynamic degree, auto-GSB by that name, the sign as it is promised."""
    text = markdown(summary(comparison))
    for word in ("auto-GSB", "dynamic degree", "temporal flicker", "diversity", "NFE", "prompt sensitivity", "spread"):
        assert word in text


def test_diversity_is_compared_prompt_by_prompt(comparison: Comparison) -> None:
    """What one prompt varies more than another is not the arms' difference."""
    found = summary(comparison)
    assert found["a"]["diversity"] == pytest.approx(0.22)
    assert found["b"]["diversity"] == pytest.approx(0.12)
    assert found["differences"]["diversity"] == pytest.approx({"mean": 0.1, "low": 0.1, "high": 0.1})


def test_distance_of_films() -> None:
    """None between equal films, all between black and white, and next to none by noise alone."""
    black, white = np.zeros((5, 32, 32, 3), np.uint8), np.full((5, 32, 32, 3), 255, np.uint8)
    noise = np.random.default_rng(0).integers(0, 40, black.shape).astype(np.uint8)
    moved = black.copy()
    moved[:, 8:24, 8:24] = 255
    assert diversity([black, black]) == 0
    assert diversity([black, white]) == pytest.approx(1)
    first, second = noise, noise[:, ::-1]
    assert diversity([first, second]) < 0.02
    assert diversity([black, moved]) > 0.3
    odd = (5, 30, 36, 3)
    assert diversity([np.zeros(odd, np.uint8), np.full(odd, 255, np.uint8)]) == pytest.approx(1)


def test_a_scale_of_one_score_is_refused(tiny_wan: Path) -> None:
    """Films that all have one score give no unit to count in, unless only a provisional one is wanted."""
    arm = find_arm(str(tiny_wan))
    same = {d: Score(value=1.0, noise=0.0) for d in Dimension}
    found = [FilmScores(ask=Ask(prompt="x", seed=i), scores=same, nfe=1, seconds=1.0) for i in range(3)]
    with pytest.raises(ValueError, match=r"all 3 films of .* have one ta; no scale can be taken"):
        measure_scale(arm, simple_judges(), "x", found)
    provisional = measure_scale(arm, simple_judges(), "x", found, provisional=True)
    assert {s.deviation for s in provisional.dimensions.values()} == {1.0}


def test_a_scale_of_another_base_is_refused(
    comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_tiny_wan
) -> None:
    """Once the shipped base has other weights, figures in its old deviations are no longer given."""
    from post_train.evaluation import scale as module

    path = tmp_path / "scale.json"
    frozen = comparison.scale.model_copy(update={"model": "base"})
    write_scale(path, frozen)
    monkeypatch.setattr(module, "shipped_folder", lambda _: comparison.b.arm.folder)
    assert read_scale(path, simple_judges()) == frozen
    monkeypatch.setattr(module, "shipped_folder", lambda _: make_tiny_wan(5))
    with pytest.raises(ValueError, match="was frozen on other weights than the 'base' of this installation"):
        read_scale(path, simple_judges())
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="is no frozen scale"):
        read_scale(path, simple_judges())


def test_a_reward_that_fails_stops_the_run(tiny_wan: Path, tmp_path: Path) -> None:
    """Not a number is an error that names reward and film; nothing is kept as a score."""
    judges = simple_judges()
    judges.rewards[0].measure = lambda _: float("nan")  # type: ignore[attr-defined]
    cabinet = FilmCabinet(find_arm(str(tiny_wan)), tmp_path / "films")
    asks = [Ask(prompt="a red ball", seed=1)]
    cabinet.fill(asks, lambda *_: None)
    with pytest.raises(RewardError, match=r"reward 'pixels' gave no score for film '.*a red ball'"):
        Scorer(judges, tmp_path / "scores").score(cabinet, asks, lambda *_: None)
    assert not list((tmp_path / "scores").rglob("*.json"))
