"""How long operators take on the GPU that is here, beside the least that its data sheet allows.

Nothing in this file has run in the project's own tests, which have no GPU.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch

from kernels.dispatch import Implementation, OperatorUnavailableError, recorded, using
from kernels.roofline import GPUS, SIZES, Gpu, floor_of
from kernels.workloads import Workload, conv_workloads, step_workloads, workloads

_WARM_UP, _RUNS = 3, 20
_LESSER = {"PCIE", "NVL", "40GB", "64GB", "LAPTOP", "D"}
_CACHE_BYTES = 512 * 1024**2  # more than any GPU's last cache holds


def measured(report: Callable[[str], None]) -> list[dict[str, Any]]:
    """Each operator's twin at full size: median and spread in milliseconds, and the share of the floor in the median.

    `fraction` is None on a GPU whose data sheet is not known here. OperatorUnavailableError without an NVIDIA GPU.
    """
    device = gpu_here()
    name = torch.cuda.get_device_name(device)
    gpu = known_gpu(name)
    rows = []
    for workload in _all(device):
        report(f"{workload.operator}, {workload.shape}")
        with using(Implementation.TRITON), recorded() as ran:
            times = timed(workload.call)
        floor = None if gpu is None else _floor_ms(workload, gpu)
        rows.append(
            {
                "operator": workload.operator,
                "shape": workload.shape,
                "device": name,
                "implementation": sorted({implementation.value for _, implementation in ran}),
                "milliseconds": statistics.median(times),
                "spread": [min(times), max(times)],
                "floor": floor,
                "fraction": None if floor is None else floor / statistics.median(times),
            }
        )
    return rows


def gpu_here() -> torch.device:
    """The current GPU; OperatorUnavailableError where there is none."""
    if not torch.cuda.is_available():
        raise OperatorUnavailableError("torch sees no GPU here, so nothing can be measured or tuned")
    return torch.device("cuda", torch.cuda.current_device())


def known_gpu(name: str) -> Gpu | None:
    """The data sheet of a device by the name that it gives itself; "NVIDIA H100 80GB HBM3" is an H100.

    None for one that is not known, and for the slower ones that have a known one's name: H100 PCIe, H100 NVL, A100 with
    40 GB, RTX 5090 Laptop or D.
    """
    words = name.upper().replace("-", " ").split()
    if not _LESSER.isdisjoint(words):
        return None
    return next((gpu for gpu in GPUS if all(word in words for word in gpu.name.upper().split())), None)


def timed(call: Callable[[], object]) -> list[float]:
    """Milliseconds of some runs, by the GPU's own clock, after some that are not counted.

    Before each the cache is filled with something else, as between two calls in a forward.
    """
    other = torch.empty(_CACHE_BYTES, dtype=torch.uint8, device="cuda")
    for _ in range(_WARM_UP):
        call()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(_RUNS)]
    for begin, end in events:
        other.zero_()
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in events]


def _all(device: torch.device) -> Iterator[Workload]:
    for size in SIZES:
        yield from workloads(size, device)
    yield from conv_workloads(device)
    yield from step_workloads(device)


def _floor_ms(workload: Workload, gpu: Gpu) -> float | None:
    if workload.form is None:
        return 1e3 * floor_of(workload.cost, gpu).after
    peak = gpu.int8 if workload.form == "int8" else gpu.fp8
    moved = workload.cost.in_eight_bits / gpu.bandwidth
    return None if peak is None else 1e3 * max(moved, workload.cost.operations / peak)
