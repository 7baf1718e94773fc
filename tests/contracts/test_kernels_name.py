"""Our folder `kernels` is never taken for the Hugging Face package that diffusers and transformers probe for."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from tests.contracts.sources import ROOT

_PROBE = """
from diffusers.utils import is_kernels_available as diffusers_sees
from transformers.utils import is_kernels_available as transformers_sees
import torch
from diffusers import WanPipeline
import sys
pipeline = WanPipeline.from_pretrained(sys.argv[1])
pipeline.set_progress_bar_config(disable=True)
frames = pipeline(prompt="a cat", width=32, height=32, num_frames=5, num_inference_steps=2, output_type="pt").frames
print(diffusers_sees(), transformers_sees(), bool(torch.isfinite(frames).all()))
"""


def test_a_wan_pipeline_runs_from_the_root(tmp_path: Path) -> None:
    """From the repository's root both libraries say that the package is not there, and Wan runs."""
    from tests.tiny_wan import save_tiny_wan

    model = save_tiny_wan(tmp_path / "tiny")
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, str(model)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[-3:] == ["False", "False", "True"]


def test_our_version_is_never_one_that_they_accept() -> None:
    """transformers takes a distribution that ships a top-level `kernels` for its own between 0.18.2 and 0.19."""
    major, minor = (int(p) for p in version("rushes").split(".")[:2])
    assert (major, minor) != (0, 18)
    text = (ROOT / "kernels" / "__init__.py").read_text() if (ROOT / "kernels").is_dir() else ""
    assert "__version__" not in text
