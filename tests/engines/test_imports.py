"""What engines may import, and what importing them may bring along."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import engines

ROOT = Path(engines.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
FORBIDDEN_ROOTS = ("diffusers.pipelines", "diffusers.schedulers", "diffusers.modular_pipelines")
_MEASURED_BESIDE = {"bench/stock.py": ["diffusers.pipelines.wan.pipeline_wan.WanPipeline"]}
TORCH_FREE = (
    "engines",
    "engines.types",
    "engines.errors",
    "engines.card",
    "engines.limits",
    "engines.catalog",
    "engines.cost",
    "engines.video",
    "engines.commands",
    "engines.model_folder",
    "engines.derived_card",
    "engines.families.wan_configs",
)


def imported(tree: ast.AST) -> Iterator[str]:
    """Full dotted names of everything imported anywhere in a module, `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def breaches(source: str) -> list[str]:
    """Imports of diffusers' pipelines or schedulers, by whatever road, and of pickle or torch's unpickler."""
    tree = ast.parse(source)
    found = []
    for name in imported(tree):
        last = name.rsplit(".", 1)[-1]
        if (
            name.startswith(FORBIDDEN_ROOTS)
            or (name.startswith("diffusers") and ("Pipeline" in last or "Scheduler" in last))
            or name == "diffusers"  # the whole package is every pipeline
            or name.split(".")[0] in {"pickle", "cloudpickle", "dill", "shelve"}
        ):
            found.append(name)
    found += [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"torch.load", "torch.save", "np.load"}
    ]
    return found


def test_there_is_something_to_check() -> None:
    """The list of sources is not empty, so that the checks below check something."""
    assert len(SOURCES) > 20


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_engines_import_no_pipeline_scheduler_or_pickle(path: Path) -> None:
    """The denoising loop is ours, and nothing here can unpickle. What we are measured beside is diffusers' own."""
    assert breaches(path.read_text(encoding="utf-8")) == _MEASURED_BESIDE.get(str(path.relative_to(ROOT)), [])


@pytest.mark.parametrize(
    "source",
    [
        "from diffusers import WanPipeline",
        "from diffusers.pipelines.wan.pipeline_wan import prompt_clean",
        "import diffusers.schedulers.scheduling_unipc_multistep",
        "def f():\n    from diffusers import FlowMatchEulerDiscreteScheduler as F",
        "import diffusers",
        "import pickle",
        "import torch\ntorch.load('x')",
    ],
)
def test_the_check_finds_breaches(source: str) -> None:
    """The check above can fail."""
    assert breaches(source)


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_free_modules_import_no_torch(module: str) -> None:
    """What the gateway imports brings neither torch, diffusers, transformers nor codecs along."""
    program = (
        f"import sys, {module}; "
        "print(sorted({'torch', 'diffusers', 'transformers', 'av', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_engine_loads_a_pipeline(tiny_wan: Path) -> None:
    """Making a film runs none of diffusers' pipelines and neither of the schedulers whose numbers it equals.

    (Some of its other scheduler modules come with its model classes.)
    """
    program = (
        "import sys\n"
        "from engines import load_engine\n"
        "from engines.types import GenerationRequest, VideoSpec\n"
        "spec = VideoSpec(width=32, height=32, num_frames=1, fps=8)\n"
        "wanted = GenerationRequest(request_id='a', prompt='a', spec=spec, num_inference_steps=1, guidance_scale=1.0, "
        "flow_shift=3.0, sampler='euler', seed=0)\n"
        f"list(load_engine({str(tiny_wan)!r}).generate([wanted]))\n"
        "print([name for name in sys.modules if name.startswith('diffusers.pipelines.') "
        "or name.startswith('diffusers.') and ('unipc' in name or 'flow_match' in name)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_engines_exports_lazily() -> None:
    """`from engines import load_engine` works, and a wrong name is an AttributeError as of any module."""
    from engines.engine import load_engine

    assert engines.load_engine is load_engine
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        engines.nope  # noqa: B018
