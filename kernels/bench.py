"""What `rushes bench kernels` finds: every operator compiled for every target, and its error in the interpreter.

*Compiled* and *run by the interpreter* are all the proof that a machine without a GPU can give; speed is not in it.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from kernels.accuracy import tolerance
from kernels.aot import Compiled, compile_for
from kernels.builds import builds, control
from kernels.configurations import TUNABLE
from kernels.dispatch import OperatorUnavailableError
from kernels.roofline_tables import conv_rows, forward_rows, roofline_rows, step_rows

MATRIX_INSTRUCTIONS = {
    "sm_80": "mma.sync",
    "sm_89": "mma.sync",
    "sm_90": "wgmma.mma_async",
    "sm_100": "tcgen05.mma",
    "sm_120": "mma.sync",
    "gfx942": "v_mfma",
    "gfx950": "v_mfma",
}
"""What each target multiplies matrices by."""


def bench_kernels(
    targets: Sequence[str], report: Callable[[str], None], operators: Sequence[str] = ()
) -> dict[str, Any]:
    """`kernels`, one object for each build and target, and `control_caught`: whether every kernel that must spill did.

    Of all operators unless some are named. ValueError for a name that is none; OperatorUnavailableError without Triton.
    """
    made = {target: builds(target) for target in targets}
    known = sorted({build.operator for group in made.values() for build in group})
    for name in operators:
        if name not in known:
            raise ValueError(f"operator {name!r} is unknown; use one of {', '.join(known)}")
    # First, for it says at once if Triton is missing.
    controls = [compile_for(control(target), target) for target in targets]
    report("errors against fp64, by the interpreter")
    errors = interpreted_errors(operators)
    rows = []
    for target, group in made.items():
        for build in group:
            if not operators or build.operator in operators:
                report(f"{build.name} for {target}")
                rows.append(_row(compile_for(build, target), errors.get(build.operator)))
    return {
        "triton": _triton_version(),
        "kernels": rows,
        "control_caught": bool(controls) and all(c.error is None and c.spills for c in controls),
        "controls": [_row(c, None) for c in controls],
        "roofline": roofline_rows(),
        "forwards": forward_rows(),
        "convolutions": conv_rows(),
        "steps": step_rows(),
    }


def interpreted_errors(operators: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """{operator: {dtype: largest error}}, by a process of its own: in one, Triton is either interpreted or compiled."""
    done = subprocess.run(  # noqa: S603  this Python, our own module
        [sys.executable, "-m", "kernels.accuracy", *operators],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1"},
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
        raise OperatorUnavailableError(f"the interpreter failed: {lines[-1]}")
    return json.loads(done.stdout)


def faults(found: dict[str, Any]) -> list[str]:
    """What is wrong with findings, in sentences; none when all is well.

    A kernel must compile without a spill, multiply by its target's own instruction and no other, and have erred in the
    interpreter by no more than `accuracy.TOLERANCES`.
    """
    told = [
        f"{row['operator']}/{row['variant']} for {row['target']}: {fault}"
        for row in found["kernels"]
        if (fault := _fault(row))
    ]
    return (
        told if found["control_caught"] else [*told, "a kernel that must spill was not caught: trust no figure above"]
    )


def _fault(row: dict[str, Any]) -> str | None:
    if not row["compiled"]:
        return row["error"]
    if row["stack"] or row["local"]:
        return "registers spilled"
    wanted = matrix_instruction(row["operator"], row["variant"], row["target"])
    if wanted is not None and row["matrix_instruction"] != wanted:
        return f"it multiplies by {row['matrix_instruction'] or 'no matrix instruction'}, not by {wanted}"
    for name, error in (row["max_errors"] or {}).items():
        allowed = tolerance(row["operator"], getattr(torch, name))
        if error is None or not error <= allowed:
            return f"its error in {name} is {error}, more than {allowed:.1e}"
    return None


def matrix_instruction(operator: str, variant: str, target: str) -> str | None:
    """What a build must multiply by; None where nothing is multiplied, or by fp32 (which NVIDIA's have none for)."""
    multiplies = operator in TUNABLE and not variant.startswith("rounds") and "fp32" not in variant
    return MATRIX_INSTRUCTIONS.get(target) if multiplies else None


def _row(made: Compiled, errors: dict[str, float] | None) -> dict[str, Any]:
    # JSON has no infinity: an error that is none is null.
    told = errors and {name: error if math.isfinite(error) else None for name, error in errors.items()}
    return {
        "operator": made.build.operator,
        "variant": made.build.variant,
        "target": made.target,
        "compiled": made.error is None,
        "error": made.error,
        "seconds": round(made.seconds, 2),
        "registers": made.registers,
        "stack": made.stack,
        "local": made.local,
        "shared": made.shared,
        "matrix_instruction": made.matrix_instruction,
        "matrix_instructions": made.matrix_instructions,
        "max_error": None if told is None else told["float32"],
        "max_errors": told,
    }


def _triton_version() -> str:
    from importlib.metadata import version  # noqa: PLC0415  only here

    return version("triton")
