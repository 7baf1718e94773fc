"""Attention by what is installed: torch's own everywhere, flash-attn, xformers and SageAttention on a GPU.

All take q [B, L, H, E], k and v [B, M, H, E], as `kernels.attention` does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.dispatch import Implementation, installed
from kernels.masks import Mask

_HALF = {torch.float16, torch.bfloat16}


def default_for(q: Tensor, *, masked: bool) -> Implementation:
    """What computes attention unless somebody asks: on a GPU a mask wants our twin, which skips what is not seen.

    In fp32 ours would multiply without matrix units. Without a mask flash-attn is preferred where it is installed, and
    torch's own elsewhere.
    """
    if not q.is_cuda:
        return Implementation.SDPA
    if q.dtype not in _HALF:
        return Implementation.SDPA
    if masked:
        return Implementation.TRITON if installed(Implementation.TRITON) else Implementation.SDPA
    flash = _works("flash_attn")
    return Implementation.FLASH_ATTN if flash else Implementation.SDPA


@cache
def _works(package: str) -> bool:
    """Whether it can really be imported: built for another torch it is there, and is of no use."""
    try:
        importlib.import_module(package)
    except (ImportError, OSError):
        return False
    return True


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, scale: float) -> Tensor:
    """torch's scaled_dot_product_attention; a mask costs it a table of all pairs."""
    queries, keys = q.shape[1], k.shape[1]
    seen = None
    if mask is not None:
        places = torch.arange(queries, device=q.device), torch.arange(keys, device=q.device)
        seen = mask.visible(*places, queries, keys)
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale).transpose(1, 2).contiguous()


def _flash_attn(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return _imported("flash_attn").flash_attn_func(q, k, v, softmax_scale=scale)


def _xformers(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return _imported("xformers.ops").memory_efficient_attention(q, k, v, scale=scale)


def _sage(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return _imported("sageattention").sageattn(q, k, v, tensor_layout="NHD", is_causal=False, sm_scale=scale)


def _imported(module: str) -> Any:
    return importlib.import_module(module)


LIBRARIES: dict[Implementation, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    Implementation.FLASH_ATTN: _flash_attn,
    Implementation.XFORMERS: _xformers,
    Implementation.SAGE: _sage,
}
"""Attention without a mask by a library; not run by the project's tests, which have no GPU."""
