"""Which configuration an operator runs with on a GPU: few are tried, for the compiler's report leaves few worth it.

A configuration that spills is out, as is one whose program needs more than the GPU has; of the others those are tried
of which most warps fit on a multiprocessor at a time. What was found is kept in a file by the name of the device.
"""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernels.aot import Compiled, compile_for
from kernels.builds_tiled import tiled_builds
from kernels.configurations import TUNABLE, Configuration, configurations, use_measured

FILE = "kernels.json"
"""Its name in an engine's package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """A multiprocessor: 32-bit registers, bytes of shared memory in all and for one program, warps, and their lanes."""

    registers: int
    shared: int
    shared_of_program: int
    warps: int
    lanes: int = 32


_KIB = 1024
PROCESSORS = {
    "sm_80": Processor(registers=65_536, shared=164 * _KIB, shared_of_program=163 * _KIB, warps=64),
    "sm_89": Processor(registers=65_536, shared=100 * _KIB, shared_of_program=99 * _KIB, warps=48),
    "sm_90": Processor(registers=65_536, shared=228 * _KIB, shared_of_program=227 * _KIB, warps=64),
    "sm_100": Processor(registers=65_536, shared=228 * _KIB, shared_of_program=227 * _KIB, warps=64),
    "sm_120": Processor(registers=65_536, shared=100 * _KIB, shared_of_program=99 * _KIB, warps=48),
    # A compute unit of CDNA 3 or 4: four SIMDs of 512 vector registers a lane, 8 waves each.
    "gfx942": Processor(registers=131_072, shared=64 * _KIB, shared_of_program=64 * _KIB, warps=32, lanes=64),
    "gfx950": Processor(registers=131_072, shared=160 * _KIB, shared_of_program=160 * _KIB, warps=32, lanes=64),
}
# Of a GPU that is not in the list: what the smallest of those that are has.
_LEAST = Processor(registers=65_536, shared=100 * _KIB, shared_of_program=99 * _KIB, warps=48)
_REGISTERS_AT_A_TIME = 256  # NVIDIA gives a warp registers by so many
_RESERVED = _KIB  # of shared memory, for each program, by CUDA itself


def occupancy(made: Compiled, warps: int) -> float:
    """The share of a multiprocessor's warps that can be there at once; 0 for a program that spills or does not fit."""
    processor = PROCESSORS.get(made.target, _LEAST)
    if made.error or made.spills or made.shared > processor.shared_of_program:
        return 0.0
    of_warp = -(-made.registers * processor.lanes // _REGISTERS_AT_A_TIME) * _REGISTERS_AT_A_TIME
    programs = min(
        processor.registers // (of_warp * warps),
        processor.shared // (made.shared + _RESERVED),
        processor.warps // warps,
    )
    return programs * warps / processor.warps


def shortlist(operator: str, target: str, most: int = 3) -> list[tuple[Configuration, float]]:
    """At most so many configurations worth trying, with their least occupancy over all builds.

    The best guess comes first where it fits at all, for a product gains more by large blocks than by many warps; then
    those of which most warps fit.
    """
    found = []
    for configuration in configurations(operator, target):
        made = [compile_for(build, target) for build in tiled_builds(operator, target, configuration)]
        found.append((configuration, min(occupancy(one, configuration.warps) for one in made)))
    guess, *others = found
    return [pair for pair in (guess, *sorted(others, key=lambda pair: -pair[1])) if pair[1] > 0][:most]


def tune(report: Callable[[str], None]) -> tuple[str, dict[str, Configuration]]:
    """The device's name, and the quickest configuration of each operator on it, by the median of some runs.

    OperatorUnavailableError without an NVIDIA GPU. Not run by the project's own tests, which have none.
    """
    import torch  # noqa: PLC0415  with what is below

    from kernels.configurations import target_of  # noqa: PLC0415  with torch
    from kernels.dispatch import Implementation, using  # noqa: PLC0415  with torch
    from kernels.measuring import gpu_here, timed  # noqa: PLC0415  with torch
    from kernels.roofline import SIZES  # noqa: PLC0415  with torch
    from kernels.workloads import conv_workloads, workloads  # noqa: PLC0415  with torch

    device = gpu_here()
    known = [*workloads(SIZES[0], device), *conv_workloads(device)]
    best: dict[str, Configuration] = {}
    for operator in TUNABLE:
        candidates = [configuration for configuration, _ in shortlist(operator, target_of(device))]
        times = dict.fromkeys(range(len(candidates)), 0.0)
        for workload in known:
            if workload.operator == operator:
                for i, configuration in enumerate(candidates):
                    report(f"{operator}: {i + 1} of {len(candidates)}")
                    use_measured(device, {**best, operator: configuration})
                    with using(Implementation.TRITON):
                        times[i] += statistics.median(timed(workload.call))
        if candidates:
            best[operator] = candidates[min(times, key=lambda i: times[i])]
    use_measured(device, best)
    return torch.cuda.get_device_name(device), best


def save_tuned(path: Path, device: str, found: Mapping[str, Configuration]) -> None:
    """Writes what was found on `device` into `path`, whole or not at all; what it has of other devices stays."""
    known = _read(path) if path.exists() else {}
    known[device] = {operator: asdict(configuration) for operator, configuration in found.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_tuned(path: Path, device: str) -> dict[str, Configuration]:
    """What `path` has of `device`, for `use_measured`; nothing when it has not, ValueError when it is no such file."""
    try:
        of_device = _read(path).get(device, {})
        found = {name: Configuration(**fields) for name, fields in of_device.items()}
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no file of tuned kernels ({error}); delete it, or tune again") from None
    for name, one in found.items():
        if name not in TUNABLE or not _fits(name, one):
            raise ValueError(f"{path} has no configuration of {name!r} that can be run; delete it, or tune again")
    return found


def _fits(operator: str, one: Configuration) -> bool:
    """Whether it names the blocks that the operator has, and gives them powers of two."""
    if not isinstance(one.blocks, Mapping):
        return False
    names = configurations(operator, "sm_80")[0].blocks.keys()
    sizes = (*one.blocks.values(), one.warps)
    return one.blocks.keys() == names and all(isinstance(n, int) and n > 0 and n & (n - 1) == 0 for n in sizes)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON ({error}); delete it, or tune again") from None
