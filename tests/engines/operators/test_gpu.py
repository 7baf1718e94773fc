"""Whole models with our operators, executed on a GPU: run by `make gpu-check`."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from engines.operators.wan import use_operators
from engines.operators.wan_eight_bits import use_eight_bits
from engines.operators.wan_vae import use_vae_operators
from kernels.configurations import NO_FP8, target_of
from kernels.dispatch import Implementation, recorded
from tests.engines.operators.test_wan import _inputs, _small
from tests.engines.operators.test_wan_vae import _both_ways
from tests.engines.operators.test_wan_vae import _small as _small_vae

pytestmark = pytest.mark.gpu

_BF16 = torch.bfloat16


def _forward(model: torch.nn.Module, dtype: torch.dtype = _BF16) -> torch.Tensor:
    inputs = {
        name: value.to("cuda", dtype) if value.is_floating_point() else value.cuda()
        for name, value in _inputs().items()
    }
    with torch.no_grad(), recorded() as ran:
        out = model(**inputs, return_dict=False)[0]
    assert all(way in {Implementation.TRITON, Implementation.SDPA, Implementation.FLASH_ATTN} for _, way in ran)
    return out.double()


def _apart(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).norm() / want.norm())


@pytest.mark.parametrize("dtype", [torch.float32, _BF16], ids=str)
def test_the_swapped_forward_is_diffusers(dtype: torch.dtype) -> None:
    """By the compiled twins: in fp32 to 1e-5, in bf16 no further from the exact one than diffusers' own is."""
    exact = _forward(_small().to("cuda", torch.float64), torch.float64)
    model = _small().to("cuda", dtype)
    stock = _apart(_forward(model, dtype), exact)
    use_operators(model)
    assert _apart(_forward(model, dtype), exact) <= max(1e-5, 1.5 * stock)


@pytest.mark.parametrize("form", ["int8", "fp8"])
def test_eight_bits_keep_to_their_budget(form: Literal["int8", "fp8"]) -> None:
    """A forward in bf16 whose products are in 8 bits."""
    if form == "fp8" and target_of(torch.device("cuda", 0)) in NO_FP8:
        pytest.skip("this GPU multiplies no fp8")
    model = _small().to("cuda", _BF16)
    want = _forward(model)
    use_eight_bits(model, form)
    assert _apart(_forward(model), want) <= 3e-2


def test_the_swapped_vae_is_diffusers() -> None:
    """In bf16, where the convolutions are the twins, chunk by chunk with caches: no further from the exact one."""
    vae, film = _small_vae().cuda(), (torch.rand(1, 3, 9, 16, 16) * 2 - 1).to("cuda", _BF16)
    exact = _both_ways(vae.double(), film.double())
    stock = _both_ways(vae.to(_BF16), film)
    use_vae_operators(vae)
    with recorded() as ran:
        got = _both_ways(vae, film)
    assert set(ran) == {("causal_conv3d", Implementation.TRITON)}
    for own, theirs, want in zip(got, stock, exact, strict=True):
        assert _apart(own.double(), want) <= 1.5 * _apart(theirs.double(), want)


def test_training_by_operators_is_diffusers() -> None:
    """Gradients of every weight in fp32, through the compiled backward of the norms and torch's attention."""
    grads = []
    for swapped in (False, True):
        model = _small().to("cuda").train()
        if swapped:
            use_operators(model)
        inputs = {name: value.cuda() for name, value in _inputs().items()}
        model(**inputs, return_dict=False)[0].square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, want in grads[0].items():
        assert _apart(grads[1][name].double(), want.double()) <= 1e-4, name
