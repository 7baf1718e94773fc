"""How far each Triton twin is from the reference in fp64, through Triton's interpreter: no GPU is needed.

`python -m kernels.accuracy` prints it as JSON; it must be started with TRITON_INTERPRET=1. Every buffer that an
operator allocates is filled with NaN first, so what a kernel forgets to write is seen. bf16 is left out: the
interpreter rounds it wrongly in matrix products, without a word.

The error is max |out - reference| / max |reference| over an output or a gradient; inputs are rounded to the dtype
first, so that it is the twin's own. TOLERANCES are the bounds that tests hold it to.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from kernels.dispatch import Implementation, using
from kernels.flow_step import euler_step, stochastic_step, unipc_step
from kernels.modulated_norm import gated_norm, modulated_norm
from kernels.rope3d import qk_norm_rope

TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3}
"""By dtype: some roundings of the sums in fp32; a unit in the last place of fp16 at the largest value."""

Outputs = Sequence[Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An operator with inputs: `inputs` are drawn in fp64, `call` takes them in any dtype; `grad` wants gradients too.

    Names in `wide` stay in fp32 when the others are rounded, as modulations do in a model.
    """

    operator: str
    shape: str
    inputs: dict[str, Tensor]
    call: Callable[[dict[str, Tensor]], Outputs]
    wide: frozenset[str] = frozenset()
    grad: bool = True


def cases() -> Iterator[Case]:
    """Every operator at odd sizes: one row of 1000 values, and 63 rows of 72 or 18."""
    for length, width in ((1, 1000), (63, 72)):
        yield from _norm_cases(length, width)
    for length, heads, head in ((1, 1, 1000), (63, 3, 6)):
        yield from _rope_cases(length, heads, head)
    for values in (1, 63, 1000):
        yield from _step_cases(values)


def error_of(
    case: Case,
    dtype: torch.dtype,
    *,
    implementation: Implementation = Implementation.INTERPRETER,
    device: str = "cpu",
) -> float:
    """The largest error of the twin's outputs and gradients in `dtype`; infinite for a value that is not finite."""
    rounded = {name: value.to(torch.float32 if name in case.wide else dtype) for name, value in case.inputs.items()}
    with poisoned_buffers():
        there = {name: value.to(device) for name, value in rounded.items()}
        got = [value.cpu() for value in _run(case, there, implementation)]
    want = _run(case, {name: value.double() for name, value in rounded.items()}, Implementation.REFERENCE)
    return max(_error(a, b) for a, b in zip(got, want, strict=True))


@contextmanager
def poisoned_buffers() -> Iterator[None]:
    """Within it torch.empty gives NaN (and large integers), so that nothing unwritten passes for a zero."""
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=False)


def _run(case: Case, inputs: dict[str, Tensor], implementation: Implementation) -> list[Tensor]:
    leaves = {name: value.clone().requires_grad_(case.grad) for name, value in inputs.items()}
    with using(implementation):
        outputs = list(case.call(leaves))
        if not case.grad:
            return outputs
        # Every output counts with weights of its own, the same for twin and reference.
        weights = [torch.randn(o.shape, generator=_generator(i), dtype=torch.float64) for i, o in enumerate(outputs)]
        total = torch.stack([(o.double() * w.to(o.device)).sum() for o, w in zip(outputs, weights, strict=True)]).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()))
    return [o.detach() for o in outputs] + list(gradients)


def _error(got: Tensor, want: Tensor) -> float:
    if not bool(torch.isfinite(got).all()):
        return float("inf")
    if not want.numel():
        return 0.0
    return float((got.double() - want.double()).abs().max() / want.double().abs().max().clamp(min=1e-30))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _draws(seed: int, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    g = _generator(seed)
    return {name: torch.randn(shape, generator=g, dtype=torch.float64) for name, shape in shapes.items()}


def _norm_cases(length: int, width: int) -> Iterator[Case]:
    rows, vectors = (2, length, width), {"weight": (width,), "bias": (width,)}
    for tokens in (1, length):
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
    modulation = (2, 1, width)
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
    yield Case(
        operator="qk_norm_rope",
        shape=f"{length} queries and 2 keys of {heads}x{head}, not turned",
        inputs=_draws(5, q=(1, length, width), k=(1, 2, width), **weights),
        call=lambda v: qk_norm_rope(v["q"], v["k"], v["q_weight"], v["k_weight"], heads=heads),
    )


def _step_cases(values: int) -> Iterator[Case]:
    film = (2, values)
    velocities = {"x": film, "conditional": film, "unconditional": film, "guidance": (2,)}
    guided = ("x", "conditional", "unconditional", "guidance")
    yield Case(
        operator="euler_step",
        shape=f"2x{values}",
        inputs=_draws(6, **velocities),
        call=lambda v: [euler_step(*(v[name] for name in guided), change=-0.05)],
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
    yield Case(
        operator="stochastic_step",
        shape=f"2x{values}, not guided",
        inputs=_draws(8, x=film, conditional=film, noise=film),
        call=lambda v: stochastic_step(v["x"], v["conditional"], noise=v["noise"], keep=0.9, pull=-0.1, deviation=0.3),
        grad=False,
    )


def _as(angles: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    """Angles as a model has them: in fp32, or fp64 for the reference."""
    q = inputs["q"]
    return angles.to(q.device, torch.float64 if q.dtype == torch.float64 else torch.float32)


def main() -> None:
    """Prints {operator: {dtype: largest error}}."""
    worst: dict[str, dict[str, float]] = {}
    for case in cases():
        for dtype in TOLERANCES:
            errors = worst.setdefault(case.operator, {})
            name = str(dtype).removeprefix("torch.")
            errors[name] = max(errors.get(name, 0.0), error_of(case, dtype))
    sys.stdout.write(json.dumps(worst) + "\n")


if __name__ == "__main__":
    main()
