"""Every operator at odd sizes, for `kernels.accuracy`: one row, 63 rows, 1000 values, and what does not divide."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kernels.accuracy import Case
from kernels.attention import attention, int8_attention
from kernels.conv3d import causal_conv3d
from kernels.flow_step import euler_step, unipc_step
from kernels.masks import BlockCausal, Mask, SlidingTile
from kernels.modulated_norm import gated_norm, modulated_norm
from kernels.quantized import Quantized, quantize_rows, quantized_linear, quantized_norm
from kernels.residual import gated_residual
from kernels.rope3d import qk_norm_rope
from kernels.stochastic import stochastic_score, stochastic_step


def cases() -> Iterator[Case]:
    """Every operator, at sizes that no block divides."""
    for batch, length, width in ((2, 1, 1000), (3, 21, 72)):
        yield from _norm_cases(batch, length, width)
    for length, heads, head in ((1, 1, 1000), (63, 3, 6)):
        yield from _rope_cases(length, heads, head)
    for values in (1, 63, 1000):
        yield from _step_cases(values)
        yield from _stochastic_cases(values)
    yield from _attention_cases()
    yield from _eight_bit_cases()
    yield from _conv_cases()


def _draws(seed: int, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=g, dtype=torch.float64) for name, shape in shapes.items()}


def _norm_cases(batch: int, length: int, width: int) -> Iterator[Case]:
    rows, vectors = (batch, length, width), {"weight": (width,), "bias": (width,)}
    for tokens in sorted({1, length}):
        modulation = (rows[0], tokens, width)
        yield Case(
            operator="modulated_norm",
            shape=f"{rows}, modulations of {tokens}",
            inputs=_draws(1, x=rows, scale=modulation, shift=modulation),
            call=lambda v: [modulated_norm(v["x"], scale=v["scale"], shift=v["shift"])],
            wide=frozenset({"scale", "shift"}),
        )
        yield Case(
            operator="gated_norm",
            shape=f"{rows}, gates of {tokens}",
            inputs=_draws(2, x=rows, branch=rows, gate=modulation, **vectors),
            call=lambda v: gated_norm(v["x"], v["branch"], v["gate"], weight=v["weight"], bias=v["bias"]),
            wide=frozenset({"gate"}),
        )
    modulation = (batch, 1, width)
    yield Case(
        operator="modulated_norm",
        shape=f"{rows}, weight and bias, rms",
        inputs=_draws(15, x=rows, **vectors),
        call=lambda v: [modulated_norm(v["x"], weight=v["weight"], bias=v["bias"], rms=True)],
    )
    yield Case(
        operator="gated_residual",
        shape=f"{rows}",
        inputs=_draws(14, x=rows, branch=rows, gate=modulation),
        call=lambda v: [gated_residual(v["x"], v["branch"], v["gate"])],
        wide=frozenset({"gate"}),
    )
    yield Case(
        operator="gated_norm",
        shape=f"{rows}, no gate, rms",
        inputs=_draws(3, x=rows, branch=rows, scale=modulation, shift=modulation),
        call=lambda v: gated_norm(v["x"], v["branch"], None, scale=v["scale"], shift=v["shift"], rms=True),
        wide=frozenset({"scale", "shift"}),
    )


def _rope_cases(length: int, heads: int, head: int) -> Iterator[Case]:
    width = heads * head
    angles = torch.linspace(0, 7, length * head // 2, dtype=torch.float64).view(length, -1)
    weights = {"q_weight": (width,), "k_weight": (width,)}
    yield Case(
        operator="qk_norm_rope",
        shape=f"{length} tokens of {heads}x{head}",
        inputs=_draws(4, q=(1, length, width), k=(1, length, width), **weights),
        call=lambda v: qk_norm_rope(
            v["q"],
            v["k"],
            v["q_weight"],
            v["k_weight"],
            heads=heads,
            cos=_as(angles.cos(), v),
            sin=_as(angles.sin(), v),
        ),
    )
    # As a model has them: two films, and every other value of a table that has each angle twice.
    twice = angles.repeat_interleave(2, 1)
    yield Case(
        operator="qk_norm_rope",
        shape=f"two films of {length} tokens of {heads}x{head}",
        inputs=_draws(16, q=(2, length, width), k=(2, length, width), **weights),
        call=lambda v: qk_norm_rope(
            v["q"],
            v["k"],
            v["q_weight"],
            v["k_weight"],
            heads=heads,
            cos=_as(twice.cos(), v)[:, 0::2],
            sin=_as(twice.sin(), v)[:, 1::2],
        ),
    )
    yield Case(
        operator="qk_norm_rope",
        shape=f"{length} queries and 2 keys of {heads}x{head}, not turned",
        inputs=_draws(5, q=(1, length, width), k=(1, 2, width), **weights),
        call=lambda v: qk_norm_rope(v["q"], v["k"], v["q_weight"], v["k_weight"], heads=heads),
    )


def _guided(values: int) -> tuple[tuple[int, int], tuple[str, ...], dict[str, tuple[int, ...]]]:
    """The shape of two films, the inputs of a guided step by name, and their shapes."""
    film = (2, values)
    velocities = {"x": film, "conditional": film, "unconditional": film, "guidance": (2,)}
    return film, tuple(velocities), velocities


def _step_cases(values: int) -> Iterator[Case]:
    film, guided, velocities = _guided(values)
    yield Case(
        operator="euler_step",
        shape=f"2x{values}",
        inputs=_draws(6, **velocities),
        call=lambda v: [euler_step(*(v[name] for name in guided), change=-0.05)],
        grad=False,
    )
    yield Case(
        operator="euler_step",
        shape=f"2x{values}, not guided",
        inputs=_draws(17, x=film, conditional=film),
        call=lambda v: [euler_step(v["x"], v["conditional"], change=-0.05)],
        grad=False,
    )
    for corrects in (False, True):
        correction = (0.9, 0.3, -0.1, 0.2) if corrects else (0.0, 0.0, 0.0, 0.0)
        yield Case(
            operator="unipc_step",
            shape=f"2x{values}, {'corrects' if corrects else 'first'}",
            inputs=_draws(7, **velocities, before=film, newest=film, older=film),
            call=lambda v, c=correction: unipc_step(
                *(v[name] for name in guided),
                **{name: v[name] for name in ("before", "newest", "older")},
                coefficients=(0.7, *c, 0.8, 0.3, -0.1),
            ),
            grad=False,
        )


def _stochastic_cases(values: int) -> Iterator[Case]:
    film, guided, velocities = _guided(values)
    yield Case(
        operator="stochastic_step",
        shape=f"2x{values}",
        inputs=_draws(18, **velocities, noise=film),
        call=lambda v: stochastic_step(
            *(v[name] for name in guided), noise=v["noise"], keep=0.9, pull=-0.1, deviation=0.3
        ),
        grad=False,
    )
    yield Case(
        operator="stochastic_step",
        shape=f"2x{values}, not guided",
        inputs=_draws(8, x=film, conditional=film, noise=film),
        call=lambda v: stochastic_step(v["x"], v["conditional"], noise=v["noise"], keep=0.9, pull=-0.1, deviation=0.3),
        grad=False,
    )
    facts = frozenset({"x", "guidance", "taken"})
    yield Case(
        operator="stochastic_score",
        shape=f"2x{values}",
        inputs=_draws(19, **velocities, taken=film),
        call=lambda v: [
            stochastic_score(*(v[name] for name in guided), taken=v["taken"], keep=0.9, pull=-0.1, deviation=0.3)
        ],
        wide=facts,
        fixed=facts,
    )
    yield Case(
        operator="stochastic_score",
        shape=f"2x{values}, not guided",
        inputs=_draws(20, x=film, conditional=film, taken=film),
        call=lambda v: [
            stochastic_score(v["x"], v["conditional"], taken=v["taken"], keep=0.9, pull=-0.1, deviation=0.3)
        ],
        wide=facts,
        fixed=facts,
    )


def _as(angles: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """Angles as a model has them: in fp32, or fp64 for the reference."""
    q = inputs["q"]
    return angles.to(q.device, torch.float64 if q.dtype == torch.float64 else torch.float32)


def _attention_cases() -> Iterator[Case]:
    # (queries, keys, width of a head, mask): all, chunks in a film and behind a cache, tiles.
    shapes: tuple[tuple[int, int, int, Mask | None], ...] = (
        (1, 1, 8, None),
        (63, 100, 24, None),
        (150, 150, 20, BlockCausal(chunk=40)),
        (63, 333, 16, BlockCausal(chunk=9, window=3, sink=2)),
        (96, 96, 16, SlidingTile(grid=(2, 6, 8), tile=(1, 3, 4), window=(2, 1, 2))),
    )
    for queries, keys, width, mask in shapes:
        draws = _draws(9, q=(2, queries, 2, width), k=(2, keys, 2, width), v=(2, keys, 2, width))
        yield Case(
            operator="attention",
            shape=f"{queries} to {keys} of {width}, {mask}",
            inputs=draws,
            call=lambda v, m=mask: [attention(v["q"], v["k"], v["v"], mask=m)],
        )
        yield Case(
            operator="int8_attention",
            shape=f"{queries} to {keys} of {width}, {mask}",
            # Keys with a mean of their own, which is taken away.
            inputs={**draws, "k": draws["k"] + 2},
            call=lambda v, m=mask: [int8_attention(v["q"], v["k"], v["v"], mask=m)],
            grad=False,
        )


def _eight_bit_cases() -> Iterator[Case]:
    for dtype in (torch.int8, torch.float8_e4m3fn):
        for batch, tokens, n_in, n_out in ((2, 1, 1000, 63), (1, 63, 72, 130)):
            rows = (batch, tokens, n_in)
            yield Case(
                operator="quantize_rows",
                shape=f"{rows}, {dtype}",
                inputs=_draws(10, x=rows),
                call=lambda v, d=dtype: [_meant(quantize_rows(v["x"], d))],
                grad=False,
            )
            yield Case(
                operator="quantized_norm",
                shape=f"{rows}, {dtype}",
                inputs=_draws(11, x=rows, scale=(batch, 1, n_in), shift=(batch, 1, n_in)),
                call=lambda v, d=dtype: [_meant(quantized_norm(v["x"], d, scale=v["scale"], shift=v["shift"]))],
                wide=frozenset({"scale", "shift"}),
                grad=False,
            )
            out = (batch, tokens, n_out)
            vectors = {"weight": (n_out, n_in), "bias": (n_out,), "residual": out}
            for each in sorted({1, tokens}):
                yield Case(
                    operator="quantized_linear",
                    shape=f"{rows} to {n_out}, gates of {each}, {dtype}",
                    inputs=_draws(12, x=rows, **vectors, gate=(batch, each, n_out)),
                    call=lambda v, d=dtype: _products(v, d),
                    wide=frozenset({"gate"}),
                    grad=False,
                )


def _products(v: dict[str, Tensor], dtype: torch.dtype) -> list[Tensor]:
    x, weight, out = quantize_rows(v["x"], dtype), quantize_rows(v["weight"], dtype), v["x"].dtype
    return [
        quantized_linear(x, weight, dtype=out),
        quantized_linear(x, weight, v["bias"], dtype=out, gelu=True),
        quantized_linear(x, weight, v["bias"], dtype=out, residual=v["residual"], gate=v["gate"]),
    ]


def _meant(rounded: Quantized) -> Tensor:
    return rounded.values.double() * rounded.scales[..., None].double()


def _conv_cases() -> Iterator[Case]:
    # (channels in and out, frames, rows, columns, filter, padding, frames in the cache)
    shapes = (
        (1, 1, (1, 1, 1), (1, 1, 1), (0, 0), 0),
        (40, 20, (3, 5, 7), (3, 3, 3), (1, 1), 2),
        (40, 3, (1, 5, 7), (3, 3, 3), (1, 0), 1),
        (24, 70, (4, 3, 5), (3, 1, 1), (0, 0), 0),
    )
    for channels, out, size, taps, padding, cached in shapes:
        tensors = {"x": (2, channels, *size), "weight": (out, channels, *taps)}
        if cached:
            tensors["cache"] = (2, channels, cached, *size[1:])
        yield Case(
            operator="causal_conv3d",
            shape=f"{channels} to {out} of {size} by {taps}, {cached} before",
            inputs=_draws(13, **({} if taps == (3, 1, 1) else {"bias": (out,)}), **tensors),
            call=lambda v, p=padding: [
                causal_conv3d(v["x"], v["weight"], v.get("bias"), cache=v.get("cache"), padding=p)
            ],
            grad=False,
        )
