"""Recorded parts, executed on a GPU: run by `make gpu-check`."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engines.backends.cuda_graphs import Recorded

pytestmark = pytest.mark.gpu


@torch.inference_mode()
def test_a_recording_plays_the_part() -> None:
    """For every shape the part's own output, from the second call on by a recording; outputs outlive the next call."""
    torch.manual_seed(0)
    part = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)).cuda().half()
    recorded = Recorded(part, most=2)
    inputs = [torch.randn(rows, 64, device="cuda", dtype=torch.half) for rows in (3, 5, 3, 5, 3, 5, 7)]
    got = [recorded(x) for x in inputs]
    for x, y in zip(inputs, got, strict=True):
        torch.testing.assert_close(y, part(x))
    assert recorded.shapes == 1  # of two that are remembered the newest was seen once
