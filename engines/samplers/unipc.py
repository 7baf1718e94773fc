"""UniPC of order 2 with B(h) = e^h - 1 ("bh2") on predicted clean latents (arXiv:2302.04867).

B batch, C channels, T latent frames, H W latent size.

With alpha = 1 - sigma, lambda = log(alpha / sigma), h = lambda' - lambda, and x0 = x - sigma * v, a step first corrects
the latents it stands on with the x0 just seen (UniC), then predicts the next from that x0 and the one before (UniP):

    x' = (sigma'/sigma) x - alpha' (e^-h - 1) m0 - alpha' (e^-h - 1) * sum_k rho_k (m_k - m0) / r_k

The coefficients are float32 scalars computed on the CPU by the formulae in diffusers' order, so that results agree with
its `UniPCMultistepScheduler` to the last bit where the velocities do.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engines.samplers.base import SamplerState, Schedule
from engines.samplers.sigmas import unipc_schedule

ORDER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class UniPCState(SamplerState):
    """`cleans` are the last two x0 predictions, oldest first; `before` is where the last step started from."""

    cleans: tuple[torch.Tensor, ...] = ()
    before: torch.Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """Scalars of the update from sigmas[index] to sigmas[index + 1]; `ratio` is r of the x0 before (order 2 only)."""

    keep: torch.Tensor  # sigma' / sigma
    pull: torch.Tensor  # alpha' (e^-h - 1)
    growth: torch.Tensor  # e^-h - 1
    minus_h: torch.Tensor
    ratio: torch.Tensor | None


class UniPC:
    """Predictor and corrector, lower order in the first and last step; equals diffusers' `UniPCMultistepScheduler`."""

    def schedule(self, num_steps: int, flow_shift: float) -> Schedule:
        return unipc_schedule(num_steps, flow_shift)

    def start(self, noise_BCTHW: torch.Tensor, schedule: Schedule) -> UniPCState:
        return UniPCState(schedule=schedule, index=0, latents=noise_BCTHW)

    def step(self, state: UniPCState, velocity_BCTHW: torch.Tensor) -> UniPCState:
        sigma = state.schedule.sigmas[state.index].item()
        clean_BCTHW = state.latents - sigma * velocity_BCTHW
        here_BCTHW = _corrected(state, clean_BCTHW)
        cleans = (*state.cleans, clean_BCTHW)[-ORDER:]
        return UniPCState(
            schedule=state.schedule,
            index=state.index + 1,
            latents=_predicted(here_BCTHW, cleans, state.schedule, state.index),
            cleans=cleans,
            before=here_BCTHW,
        )


def linear_form(state: UniPCState) -> tuple[float, ...]:
    """The next step as sums of tensors: (s, c0, c1, c2, c3, p0, p1, p2), for an operator that does it in one pass.

    clean = x - s v; here = c0 before + c1 newest + c2 older + c3 clean, or x when all four are zero; and the next
    latents are p0 here + p1 clean + p2 newest. `newest` and `older` are the x0 of the last two steps.
    """
    sigmas, index = state.schedule.sigmas, state.index
    corrector = (0.0,) * 4 if state.before is None else _corrector_form(state)
    span = _span(sigmas, index, order_at(index, state.schedule.num_steps))
    pull, slope = span.pull.item(), 0.0
    if span.ratio is not None:
        slope = 0.5 * pull / span.ratio.item()
    return (sigmas[index].item(), *corrector, span.keep.item(), slope - pull, -slope)


def _corrector_form(state: UniPCState) -> tuple[float, float, float, float]:
    index = state.index - 1
    span = _span(state.schedule.sigmas, index, order_at(index, state.schedule.num_steps))
    pull = span.pull.item()
    if span.ratio is None:
        return span.keep.item(), 0.5 * pull - pull, 0.0, -0.5 * pull
    rho_before, rho_now = _corrector_weights(span, span.ratio)
    of_slope = pull * rho_before / span.ratio.item()
    return span.keep.item(), of_slope + pull * rho_now - pull, -of_slope, -pull * rho_now


def order_at(index: int, num_steps: int) -> int:
    """The order of step `index`: 1 for want of history in the first and for stability in the last, else 2."""
    return min(ORDER, num_steps - index, index + 1)


def _predicted(x_BCTHW: torch.Tensor, cleans: tuple[torch.Tensor, ...], schedule: Schedule, index: int) -> torch.Tensor:
    order = order_at(index, schedule.num_steps)
    span = _span(schedule.sigmas, index, order)
    m0 = cleans[-1]
    first_BCTHW = span.keep.item() * x_BCTHW - span.pull.item() * m0
    if span.ratio is None:
        return first_BCTHW
    slope_BCTHW = (cleans[-2] - m0) / span.ratio.item()
    return first_BCTHW - span.pull.item() * (0.5 * slope_BCTHW)


def _corrected(state: UniPCState, clean_BCTHW: torch.Tensor) -> torch.Tensor:
    """Redo the last prediction, now that the x0 at its end is known; the first step has none to redo."""
    if state.before is None:
        return state.latents
    index = state.index - 1
    order = order_at(index, state.schedule.num_steps)
    span = _span(state.schedule.sigmas, index, order)
    m0 = state.cleans[-1]
    first_BCTHW = span.keep.item() * state.before - span.pull.item() * m0
    if span.ratio is None:
        return first_BCTHW - span.pull.item() * (0.5 * (clean_BCTHW - m0))
    rho_before, rho_now = _corrector_weights(span, span.ratio)
    slope_BCTHW = (state.cleans[-2] - m0) / span.ratio.item()
    return first_BCTHW - span.pull.item() * (rho_before * slope_BCTHW + rho_now * (clean_BCTHW - m0))


def _span(sigmas: torch.Tensor, index: int, order: int) -> _Span:
    sigma, sigma_next = sigmas[index], sigmas[index + 1]
    h = _log_snr(sigma_next) - _log_snr(sigma)
    growth = torch.expm1(-h)
    ratio = (_log_snr(sigmas[index - 1]) - _log_snr(sigma)) / h if order == ORDER else None
    return _Span(keep=sigma_next / sigma, pull=(1 - sigma_next) * growth, growth=growth, minus_h=-h, ratio=ratio)


def _corrector_weights(span: _Span, ratio: torch.Tensor) -> tuple[float, float]:
    """Solve the order-2 conditions [[1, 1], [r, 1]] rho = b for the weights of the old and the new slope."""
    phi = span.growth / span.minus_h - 1
    phi_next = phi / span.minus_h - 1 / 2
    conditions = torch.stack([torch.ones(2), torch.stack([ratio, torch.ones(())])])
    targets = torch.stack([phi / span.growth, phi_next * 2 / span.growth])
    rho = torch.linalg.solve(conditions, targets)
    return rho[0].item(), rho[1].item()


def _log_snr(sigma: torch.Tensor) -> torch.Tensor:
    return torch.log(1 - sigma) - torch.log(sigma)
