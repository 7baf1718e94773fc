"""Muon, the weight average, the learning rate and the losses do what their papers say."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError
from torch import nn

from post_train.ema import WeightAverage
from post_train.losses import flow_matching_errors, logit_normal_levels, noised, shifted_sigmas
from post_train.muon import Muon, orthogonalise
from post_train.recipes import diorama_base
from post_train.trainer import step_generator
from tests.post_train.small_recipes import small_base


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40), (2, 40, 8)])
def test_orthogonalise_brings_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    """Newton-Schulz leaves the singular vectors and moves every value into [0.3, 1.3]."""
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalise(matrices)
    values = torch.linalg.svdvals(result)
    assert float(values.min()) > 0.3
    assert float(values.max()) < 1.3
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    turned = u.mT @ result @ v.mT
    off = turned - torch.diag_embed(torch.diagonal(turned, dim1=-2, dim2=-1))
    assert float(off.abs().max()) < 1e-3


def test_muon_fits_what_it_is_given() -> None:
    """A linear map with a bias is learnt: matrices by Muon, the bias by AdamW, a convolution's kernel as a matrix."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 16, 4))
    matrices = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    optimizer = Muon([{"params": matrices, "orthogonal": True}, {"params": rest}], lr=0.02, weight_decay=0.0)
    x = torch.randn(64, 2, 4, 4)
    y = x.flatten(1) @ torch.randn(32, 4)
    losses = []
    for _ in range(60):
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_the_adamw_half_is_adamw() -> None:
    """For a group that is not orthogonalised the update equals torch's AdamW."""
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    muon = Muon([{"params": [ours]}], lr=0.01, weight_decay=0.1)
    adamw = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1, betas=(0.9, 0.99))
    for _ in range(5):
        gradient = torch.randn(5)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        adamw.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_the_average_forgets_the_start_and_then_lags() -> None:
    """The first updates nearly copy the weights; later ones move by 1 - decay."""
    module = nn.Linear(1, 1, bias=False)
    average = WeightAverage(module, decay=0.9)
    with torch.no_grad():
        module.weight.fill_(1.0)
    for step in range(1, 200):
        average.update(module, step)
    assert float(average.weights["weight"]) == pytest.approx(1.0, abs=1e-3)
    with torch.no_grad():
        module.weight.fill_(2.0)
    average.update(module, 200)
    assert float(average.weights["weight"]) == pytest.approx(1.1, abs=1e-3)


def test_the_learning_rate_rises_then_falls() -> None:
    """Linear warm-up to lr, cosine to lr * final_lr at the end, and no further."""
    loop = replace(small_base().loop, steps=100, warmup_steps=10, lr=1.0, final_lr=0.1)
    rates = [loop.lr_at(step) for step in range(1, 121)]
    assert rates[4] == pytest.approx(0.5)
    assert max(rates) == rates[9] == 1.0
    assert rates[99] == pytest.approx(0.1)
    assert rates[119] == pytest.approx(0.1)
    assert all(a >= b for a, b in pairwise(rates[9:]))


def test_a_steps_randomness_is_its_own() -> None:
    """The same (seed, step) gives the same numbers, another step others."""
    draws = [torch.rand(4, generator=step_generator(1, s)) for s in (7, 7, 8)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_flow_matching_is_zero_for_the_true_velocity() -> None:
    """The error vanishes for noise - x0, and the path ends in the clip and in the noise."""
    x0, noise = torch.randn(2, 3, 2, 4, 4), torch.randn(2, 3, 2, 4, 4)
    assert torch.equal(flow_matching_errors(noise - x0, x0, noise), torch.zeros(2))
    ends = noised(x0, noise, torch.tensor([0.0, 1.0]))
    assert torch.allclose(ends[0], x0[0])
    assert torch.allclose(ends[1], noise[1])


def test_channels_count_by_their_weights() -> None:
    """An error in one channel counts by that channel's weight; weights of one are no weights."""
    x0, noise = torch.zeros(2, 3, 2, 4, 4), torch.zeros(2, 3, 2, 4, 4)
    velocity = torch.zeros_like(x0)
    velocity[:, 1] = 2.0
    weights = torch.tensor([0.5, 1.5, 1.0])
    assert torch.allclose(flow_matching_errors(velocity, x0, noise, weights), torch.full((2,), 4 * 1.5 / 3))
    plain = flow_matching_errors(velocity, x0, noise)
    assert torch.allclose(flow_matching_errors(velocity, x0, noise, torch.ones(3)), plain)


def test_a_run_of_another_length_keeps_its_shape() -> None:
    """Half the steps have half the warm-up and half the decay, and reach the same rates."""
    loop = diorama_base.recipe().loop
    half = loop.lasting(loop.steps // 2)
    assert (half.warmup_steps, half.decay_steps) == (loop.warmup_steps // 2, loop.decay_steps // 2)
    for share in (0.5, 0.9, 1.0):
        assert half.lr_at(round(share * half.steps)) == pytest.approx(loop.lr_at(round(share * loop.steps)))


def test_levels_are_shifted_to_noise_and_keep_their_ends() -> None:
    """The shift maps 0 to 0 and 1 to 1, and 0.5 to 0.75 for a shift of 3; drawn levels lie inside."""
    assert torch.allclose(shifted_sigmas(torch.tensor([0.0, 0.5, 1.0]), 3.0), torch.tensor([0.0, 0.75, 1.0]))
    levels = logit_normal_levels(4096, torch.Generator().manual_seed(0))
    assert float(levels.min()) > 0
    assert float(levels.max()) < 1
    assert float(levels.mean()) == pytest.approx(0.5, abs=0.02)


def test_a_wrong_shape_is_caught_at_the_border() -> None:
    """Losses check the shapes that they are given."""
    with pytest.raises((TypeCheckError, BeartypeCallHintViolation)):
        flow_matching_errors(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3))
