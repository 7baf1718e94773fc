"""Steps that are extrapolated: which ones is measured, they compute nothing, and a film stays its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines import load_engine
from engines.building.accuracy import probe_request
from engines.building.step_cache import bearable_steps, film_errors
from engines.card import read_card
from engines.engine import Engine
from engines.errors import BuildRefused
from engines.package import read_manifest
from engines.recipes.probes import Probes
from engines.recipes.recipe import Budget, StepCache
from engines.samplers.guidance import Velocity
from engines.step_reuse import ComputedStep, StepReuse, extrapolated
from tests.engines.making import films, request

Build = Callable[..., Path]
WANTED = StepCache(film_error=0.2, calibration=Probes(prompts=("a dog on sand",), seeds=(3,), num_inference_steps=8))
LOOSE = Budget(latent_error=1.0, psnr=5.0, ssim=-1.0, score_drop=0.5)


class Counting:
    """A backend that counts how often the transformer is called."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.calls = inner, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def velocity(self, *arguments: Any) -> torch.Tensor:
        self.calls += 1
        return self._inner.velocity(*arguments)


@pytest.fixture
def counted(tiny_wan: Path) -> tuple[Engine, Counting]:
    plain = load_engine(tiny_wan)
    backend = Counting(plain.backend)
    return Engine(card=plain.card, family=plain.family, backend=backend), backend


def test_a_line_is_continued_exactly() -> None:
    """A velocity that is linear in sigma is found to rounding, each half of a guided one and with its scales."""
    g = torch.Generator().manual_seed(0)
    a, b, c, d = (torch.randn(2, 3, 2, 4, 4, generator=g) for _ in range(4))
    scales = torch.tensor([2.0, 3.0])

    def at(sigma: float) -> ComputedStep:
        return ComputedStep(
            sigma=sigma, velocity=Velocity(conditional=a + sigma * b, unconditional=c + sigma * d, scales=scales)
        )

    found = extrapolated(at(0.9), at(0.7), 0.4)
    torch.testing.assert_close(found.guided(), at(0.4).velocity.guided(), atol=1e-5, rtol=1e-5)
    alone = extrapolated(
        *(ComputedStep(sigma=s, velocity=Velocity(conditional=a + s * b)) for s in (0.9, 0.7)), sigma=0.4
    )
    assert alone.unconditional is None
    torch.testing.assert_close(alone.conditional, a + 0.4 * b, atol=1e-5, rtol=1e-5)


def test_reused_steps_compute_nothing(counted: tuple[Engine, Counting]) -> None:
    """One call less for each; with none the film stays the same to the bit, and another length reuses nothing."""
    engine, backend = counted
    (plain,) = films(engine, request("a", num_inference_steps=8))
    assert backend.calls == 8
    (same,) = films(engine.reusing(StepReuse(num_steps=8, steps=frozenset())), request("a", num_inference_steps=8))
    assert np.array_equal(same.latents, plain.latents)
    some = engine.reusing(StepReuse(num_steps=8, steps=frozenset({3, 5})))
    backend.calls = 0
    (other,) = films(some, request("a", num_inference_steps=8))
    assert backend.calls == 6
    assert not np.array_equal(other.latents, plain.latents)
    backend.calls = 0
    films(some, request("a", num_inference_steps=6))
    assert backend.calls == 6


def test_the_choice_is_the_best_there_is() -> None:
    """Against all choices: the most steps within the bound without neighbours, and of those the least error."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        errors = {step: float(e) for step, e in enumerate(rng.lognormal(-3, 1, 10), start=2)}
        bound = float(rng.uniform(0.02, 0.3))
        every = [
            (len(c), -sum(errors[k] ** 2 for k in c), frozenset(c))
            for count in range(6)
            for c in itertools.combinations(errors, count)
            if all(b - a > 1 for a, b in itertools.pairwise(c)) and sum(errors[k] ** 2 for k in c) <= bound**2
        ]
        assert bearable_steps(errors, bound) == max(every, key=lambda e: e[:2])[2]
    assert bearable_steps({2: 0.5}, 0.1) == frozenset()


def test_errors_are_those_of_whole_films(counted: tuple[Engine, Counting]) -> None:
    """Each step's is the distance of the last latents when it alone is extrapolated."""
    engine, _ = counted
    errors = film_errors(engine, WANTED)
    assert sorted(errors) == [2, 3, 4, 5, 6, 7]
    me = probe_request(engine, "a dog on sand", 3, WANTED.calibration)
    (plain,) = films(engine, me)
    (other,) = films(engine.reusing(StepReuse(num_steps=8, steps=frozenset({4}))), me)
    distance = np.linalg.norm(other.latents - plain.latents) / np.linalg.norm(plain.latents)
    assert errors[4] == pytest.approx(float(distance), rel=1e-3)


@pytest.fixture(scope="module")
def cached(build_tiny: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of films of 8 steps, some of them extrapolated."""
    out = tmp_path_factory.mktemp("cached")
    return build_tiny(out, name="tiny-cached", backend="fused", step_cache=WANTED, steps=8, budget=LOOSE)


def test_a_package_reuses_what_was_measured(cached: Path) -> None:
    """The manifest has every step's error and those chosen; the card's films have the recipe's steps."""
    report = read_manifest(cached).step_cache
    assert report["num_steps"] == 8 == read_card(cached).defaults.num_inference_steps
    errors = dict(report["errors"])
    assert report["reused"] == sorted(bearable_steps(errors, WANTED.film_error))
    assert report["reused"]
    engine = load_engine(cached)
    (film,) = films(engine, request("a", num_inference_steps=8))
    (computed,) = films(engine.reusing(None), request("a", num_inference_steps=8))
    assert not np.array_equal(film.latents, computed.latents)


def test_mates_change_no_bit(cached: Path) -> None:
    """Which steps are extrapolated does not depend on who else is in the batch."""
    engine = load_engine(cached, pad_batch_to=3)
    me, mate = (request(n, prompt=p, seed=s, num_inference_steps=8) for n, p, s in (("me", "a cat", 5), ("b", "hm", 6)))
    (alone,) = films(engine, me)
    both = {f.request.request_id: f for f in films(engine, mate, me)}
    assert np.array_equal(both["me"].latents, alone.latents)


def test_steps_that_no_film_has_are_refused(build_tiny: Build, tmp_path: Path) -> None:
    """In a reuse and in a recipe."""
    with pytest.raises(ValueError, match="step 1 of 8 cannot be extrapolated"):
        StepReuse(num_steps=8, steps=frozenset({1}))
    with pytest.raises(ValueError, match="step 8 of 8"):
        StepReuse(num_steps=8, steps=frozenset({8}))
    with pytest.raises(BuildRefused, match="asks for 100000 steps"):
        build_tiny(tmp_path, backend="fused", steps=100_000)
