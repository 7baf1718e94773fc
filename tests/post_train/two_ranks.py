"""A script run by torchrun on two gloo processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def told_by_two_ranks(script: str, root: Path, *words: Path) -> list[dict[str, Any]]:
    """Runs `script` with `words` in two processes; what each wrote as `rank-N.json` into `root`."""
    (root / "worker.py").write_text(script)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(root / "worker.py"), *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((root / f"rank-{r}.json").read_text()) for r in (0, 1)]
