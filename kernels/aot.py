"""Ahead-of-time compilation of the Triton kernels for GPUs that are not there, and what the compiler says of each.

A cubin's own resource table (`cuobjdump -res-usage`) tells registers, shared memory, stack and local memory; bytes of
local memory or stack are registers that were spilled. The assembly tells which matrix instruction was made.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernels.dispatch import OperatorUnavailableError, interpreting, triton_installed

CUDA_TARGETS = ("sm_80", "sm_89", "sm_90", "sm_100", "sm_120")
HIP_TARGETS = ("gfx942", "gfx950")
TARGETS = (*CUDA_TARGETS, *HIP_TARGETS)
_DIVISIBLE = [["tt.divisibility", 16]]
_MATRIX = re.compile(r"wgmma\.mma_async|tcgen05\.mma|mma\.sync|v_mfma|v_wmma")


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """A kernel made ready for compilation: `kernel` loads it, `signature` types its arguments in order.

    Names in `constants` are compile-time values; `aligned` integer arguments are multiples of 16 (pointers always are).
    """

    operator: str
    variant: str
    kernel: Callable[[], Any]
    signature: Mapping[str, str]
    constants: Mapping[str, Any]
    aligned: frozenset[str] = frozenset()
    options: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The operator and what is special about this build of it."""
        return f"{self.operator}/{self.variant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """What came of a build for a target. Bytes of stack, local and shared memory; `error` is None when it compiled."""

    build: Build
    target: str
    seconds: float
    registers: int = 0
    stack: int = 0
    local: int = 0
    shared: int = 0
    matrix_instruction: str | None = None
    matrix_instructions: int = 0
    error: str | None = None

    @property
    def spills(self) -> bool:
        """Whether registers went to memory."""
        return self.stack > 0 or self.local > 0


def compile_for(build: Build, target: str) -> Compiled:
    """Compiles `build` for a target of `TARGETS`, or another GPU's by its name: sm_86, gfx90a.

    ValueError for what is no such name; OperatorUnavailableError without Triton, or where it was loaded to interpret.
    """
    if not triton_installed():
        raise OperatorUnavailableError("Triton is not installed; install the extra gpu: pip install 'rushes[gpu]'")
    if interpreting():
        raise OperatorUnavailableError("TRITON_INTERPRET=1 is set; kernels that are interpreted are not compiled")
    import triton  # noqa: PLC0415  an extra
    from triton.errors import TritonError  # noqa: PLC0415  an extra

    source, architecture = _source(build), _target(target)
    began = time.monotonic()
    try:
        made = triton.compile(source, target=architecture, options=dict(build.options))
    except (TritonError, RuntimeError, ValueError) as error:  # the passes raise the latter two
        told = " ".join(str(error).split())[-300:]
        return Compiled(build=build, target=target, seconds=time.monotonic() - began, error=told or repr(error))
    seconds = time.monotonic() - began
    if "cubin" in made.asm:
        facts = _of_cubin(made.asm["cubin"])
        text = made.asm["ptx"]
    else:
        text = made.asm["amdgcn"]
        facts = _of_amdgcn(text)
    found = _MATRIX.findall(text)
    return Compiled(
        build=build,
        target=target,
        seconds=seconds,
        matrix_instruction=" and ".join(sorted(set(found))) or None,
        matrix_instructions=len(found),
        registers=facts["registers"],
        stack=facts["stack"],
        local=facts["local"],
        shared=max(facts["shared"], made.metadata.shared),
    )


def _source(build: Build) -> Any:
    from triton.compiler import ASTSource  # noqa: PLC0415  an extra

    kernel = build.kernel()
    place = {name: i for i, name in enumerate(kernel.arg_names)}
    signature = dict(build.signature) | dict.fromkeys(build.constants, "constexpr")
    missing = place.keys() ^ signature.keys()
    if missing:
        raise ValueError(f"{build.name} does not type {sorted(missing)} as its kernel has them")
    pointers = {name for name, kind in build.signature.items() if kind.startswith("*")}
    return ASTSource(
        kernel,
        {name: signature[name] for name in kernel.arg_names},
        {(place[name],): value for name, value in build.constants.items()},
        {(place[name],): _DIVISIBLE for name in pointers | build.aligned},
    )


def _target(name: str) -> Any:
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415  an extra

    if re.fullmatch(r"sm_\d{2,3}", name):
        return GPUTarget("cuda", int(name.removeprefix("sm_")), 32)
    if re.fullmatch(r"gfx9\w+", name):
        return GPUTarget("hip", name, 64)
    raise ValueError(f"target {name!r} is no GPU's; use one of {', '.join(TARGETS)}")


def _of_cubin(cubin: bytes) -> dict[str, int]:
    from triton import knobs  # noqa: PLC0415  an extra

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        told = subprocess.run(  # noqa: S603  Triton's own binary
            [knobs.nvidia.cuobjdump.path, "-res-usage", str(path)], check=True, capture_output=True, text=True
        )
    return parse_resources(told.stdout + told.stderr)


def parse_resources(text: str) -> dict[str, int]:
    """The figures of cuobjdump's resource table, of its last function; ValueError when it has none."""
    lines = [line for line in text.splitlines() if "REG:" in line]
    if not lines:
        raise ValueError(f"cuobjdump told of no resources: {text[-200:]!r}")
    found = dict(re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", lines[-1]))
    return {
        "registers": int(found["REG"]),
        "stack": int(found["STACK"]),
        "local": int(found["LOCAL"]),
        "shared": int(found["SHARED"]),
    }


def _of_amdgcn(text: str) -> dict[str, int]:
    def figure(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", text)
        return int(found.group(1)) if found else 0

    spilled = figure("vgpr_spill_count") + figure("sgpr_spill_count")
    return {
        "registers": figure("vgpr_count"),
        "stack": figure("private_segment_fixed_size"),
        "local": 4 * spilled,
        "shared": figure("group_segment_fixed_size"),
    }
