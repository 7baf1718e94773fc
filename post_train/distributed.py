"""Training by several processes: who takes part, how a model is cut among them, and how its tensors come together.

`torchrun` starts the processes; FSDP2 (torch.distributed.fsdp.fully_shard) keeps of every weight, gradient, average and
optimizer slot one part on each rank. Checkpoints hold whole tensors, so a run goes on with any number of ranks.
"""

from __future__ import annotations

import datetime as dt
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

# Ranks wait for one another while clips are encoded, which may take hours for the slowest.
_TIMEOUT = dt.timedelta(hours=12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The processes of a run and this one's place among them; `mesh` is None for a lone one."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    mesh: DeviceMesh | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean of each value over the ranks, the same everywhere; a NaN of one is a NaN for all."""
        if self.mesh is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return (total / self.count).tolist()

    def gathered(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rows [n, K] of every rank, in the ranks' order, [ranks * n, K]; each brings as many."""
        if self.mesh is None:
            return rows
        own = torch.from_numpy(np.ascontiguousarray(rows)).to(self.device)
        parts = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(parts, own)
        return torch.cat(parts).cpu().numpy()

    def most(self, count: int) -> int:
        """The greatest count of all ranks."""
        if self.mesh is None:
            return count
        told = torch.tensor([count], dtype=torch.int64, device=self.device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return int(told.item())

    def agreed(self, decision: bool) -> bool:
        """The first rank's decision, so that clocks which differ do not part the ranks."""
        if self.mesh is None:
            return decision
        told = torch.tensor([decision], dtype=torch.int32, device=self.device)
        dist.broadcast(told, 0)
        return bool(told.item())

    def wait(self) -> None:
        """Returns when every rank has come here."""
        if self.mesh is not None:
            dist.barrier()


ALONE = Ranks()


def start_ranks(device: torch.device) -> Ranks:
    """Joins the run that torchrun started, or is alone when nothing did; gloo on a CPU, NCCL on GPUs."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Ranks(device=device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    mesh = init_device_mesh(device.type, (count,))
    return Ranks(rank=dist.get_rank(), count=count, device=device, mesh=mesh)


def leave_ranks(ranks: Ranks) -> None:
    """Ends this process's part."""
    if ranks.mesh is not None:
        dist.destroy_process_group()


def shard(model: nn.Module, blocks: Sequence[nn.Module], ranks: Ranks) -> None:
    """Cuts `model` among the ranks, one of `blocks` at a time brought together when it computes, and moves it there.

    Every rank must hold the same weights already. A lone rank keeps the model whole, on its device.
    """
    if ranks.mesh is None:
        model.to(ranks.device)
        return
    # It warns of in-place operations on the output, and there are none: a velocity is only read.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    for block in blocks:
        fully_shard(block, mesh=ranks.mesh)
    # By default the outermost part stays together for a backward pass, which films that are only made never have.
    fully_shard(model, mesh=ranks.mesh, reshard_after_forward=True)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor that is cut among ranks, on the CPU; all ranks must ask for the same ones in one order."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu()


def placed(value: Tensor, like: Tensor) -> Tensor:
    """`value`, whole and the same on every rank, on the device of `like` and cut as `like` is."""
    if not isinstance(like, DTensor):
        return value.to(like.device)
    # Without a source rank nothing is sent: each takes its part of its own copy.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
