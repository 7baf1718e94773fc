"""Triton's kernels run in its interpreter here, which it must know before the first of them is defined.

`make gpu-check` says beforehand that they are to be compiled, and runs the tests marked `gpu` alone.
"""

from __future__ import annotations

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
