"""The child's own part: writing a film where the disk refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_a_refusing_disk_is_a_storage_error(tmp_path: Path) -> None:
    """Where no file may grow, as on a full disk, writing a film fails as an OSError that names the reason."""
    code = (
        "import numpy as np, pathlib, resource, signal, sys\n"
        ""
        "from engines.types import GenerationRequest, GenerationResult, VideoSpec\n"
        "from server.worker.serving import write_film\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "request = GenerationRequest(request_id='j', prompt='p', spec=VideoSpec(width=64, height=64, num_frames=17,"
        " fps=8), num_inference_steps=1, guidance_scale=1.0, flow_shift=1.0, sampler='euler', seed=0)\n"
        "frames = np.random.default_rng(0).integers(0, 255, (17, 64, 64, 3), dtype=np.uint8)\n"
        "result = GenerationResult(request=request, frames=frames, latents=np.zeros(1, np.float32))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_film(pathlib.Path(sys.argv[1]), result, 'mp4')\n"
        "except OSError as error:\n"
        "    sys.exit(0 if error.errno == 27 else 5)\n"
        "sys.exit(4)\n"
    )
    target = tmp_path / "1.part"
    run = subprocess.run([sys.executable, "-c", code, str(target)], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert list(tmp_path.iterdir()) == []
