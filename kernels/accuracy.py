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

TOLERANCES = {torch.float32: 2e-6, torch.float16: 1e-3}
"""By dtype: some roundings of the sums in fp32; a unit in the last place of fp16 at the largest value."""
ROUNDED_RMS = 1e-3
"""How far what 8 bits give may be on the whole, as a share of the largest, in fp32."""
EIGHT_BITS = frozenset({"int8_attention", "quantize_rows", "quantized_norm", "quantized_linear"})
"""Operators that round to 8 bits, where a value between two numbers may go either way: 1 / 127 of the largest."""

Outputs = Sequence[Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An operator with inputs: `inputs` are drawn in fp64, `call` takes them in any dtype; `grad` wants gradients too.

    Names in `wide` stay in fp32 when the others are rounded, as modulations do in a model; those in `fixed` have no
    gradients.
    """

    operator: str
    shape: str
    inputs: dict[str, Tensor]
    call: Callable[[dict[str, Tensor]], Outputs]
    wide: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()
    grad: bool = True


def tolerance(operator: str, dtype: torch.dtype) -> float:
    """How far the twin of `operator` may be from the reference in `dtype`."""
    return 1 / 127 if operator in EIGHT_BITS else TOLERANCES[dtype]


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
    # On the same device, whose configuration says which values share a scale of int8.
    exact = {name: value.to(device, torch.float64) for name, value in rounded.items()}
    want = [value.cpu() for value in _run(case, exact, Implementation.REFERENCE)]
    errors = [_error(a, b) for a, b in zip(got, want, strict=True)]
    if case.operator in EIGHT_BITS and dtype == torch.float32:
        # Single values may be rounded the other way; a scale that is wrong shows in all of them.
        errors += [float("inf") for a, b in zip(got, want, strict=True) if _rms(a, b) > ROUNDED_RMS]
    return max(errors)


@contextmanager
def poisoned_buffers() -> Iterator[None]:
    """Within it torch.empty gives NaN (and large integers), so that nothing unwritten passes for a zero."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _run(case: Case, inputs: dict[str, Tensor], implementation: Implementation) -> list[Tensor]:
    leaves = {
        name: value.clone().requires_grad_(case.grad and name not in case.fixed) for name, value in inputs.items()
    }
    with using(implementation):
        outputs = list(case.call(leaves))
        if not case.grad:
            return outputs
        # Every output counts with weights of its own, the same for twin and reference.
        weights = [
            torch.randn(o.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
            for i, o in enumerate(outputs)
        ]
        total = torch.stack([(o.double() * w.to(o.device)).sum() for o, w in zip(outputs, weights, strict=True)]).sum()
        gradients = torch.autograd.grad(total, [leaf for leaf in leaves.values() if leaf.requires_grad])
    return [o.detach() for o in outputs] + list(gradients)


def _error(got: Tensor, want: Tensor) -> float:
    if not bool(torch.isfinite(got).all()):
        return float("inf")
    if not want.numel():
        return 0.0
    return float((got.double() - want.double()).abs().max() / want.double().abs().max().clamp(min=1e-30))


def _rms(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want.double()).square().mean().sqrt() / want.double().abs().max().clamp(min=1e-30))


def main() -> None:
    """Prints {operator: {dtype: largest error}}, of the operators that are named or of all."""
    from kernels.accuracy_cases import cases  # noqa: PLC0415  it needs what is above

    named = set(sys.argv[1:])
    worst: dict[str, dict[str, float]] = {}
    for case in cases():
        if named and case.operator not in named:
            continue
        for dtype in TOLERANCES:
            errors = worst.setdefault(case.operator, {})
            name = str(dtype).removeprefix("torch.")
            errors[name] = max(errors.get(name, 0.0), error_of(case, dtype))
    sys.stdout.write(json.dumps(worst) + "\n")


if __name__ == "__main__":
    main()
