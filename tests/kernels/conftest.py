"""Triton's kernels run in its interpreter here, which it must know before the first of them is defined."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"
