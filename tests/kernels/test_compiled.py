"""Kernels are compiled for GPUs that are not here, and what the compiler says of them is read rightly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.aot import CUDA_TARGETS, TARGETS, Build, compile_for, parse_resources
from kernels.bench import faults
from kernels.builds import builds
from kernels.dispatch import OperatorUnavailableError

_TABLE = """
Resource usage:
 Common:
  GLOBAL:0
 Function norm_forward:
  REG:56 STACK:104 SHARED:1024 LOCAL:8 CONSTANT[0]:668 TEXTURE:0 SURFACE:0 SAMPLER:0
"""


@pytest.mark.timeout(600)
def test_every_kernel_compiles_without_a_spill() -> None:
    """`rushes bench kernels` for one target of each vendor: no fault, the control caught, every operator with an error.

    All targets are for the command itself; it takes the same way for each.
    """
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("rushes")),
            "bench",
            "kernels",
            "--json",
            "--target",
            "sm_90",
            "--target",
            "gfx942",
        ],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["control_caught"] is True
    assert len(found["kernels"]) == 2 * len(builds())
    for row in found["kernels"]:
        assert row["compiled"], row
        assert (row["stack"], row["local"]) == (0, 0), row
        assert row["registers"] > 0
        assert 0 < row["max_error"] < 1e-5
    assert all(c["stack"] + c["local"] > 0 for c in found["controls"])


def test_every_kernel_is_among_the_builds() -> None:
    """Each @triton.jit function of kernels/gpu is compiled by some build."""
    built = {build.kernel().fn.__name__ for build in builds()}
    folder = Path(__file__).parents[2] / "kernels" / "gpu"
    text = "\n".join(path.read_text() for path in folder.glob("*.py"))
    defined = {chunk.split("def ", 1)[1].split("(", 1)[0] for chunk in text.split("@triton.jit")[1:]}
    assert defined == built


def test_the_resource_table_is_read() -> None:
    """Registers, stack, local and shared bytes from cuobjdump's own words; other words are refused."""
    assert parse_resources(_TABLE) == {"registers": 56, "stack": 104, "local": 8, "shared": 1024}
    with pytest.raises(ValueError, match="no resources"):
        parse_resources("nothing")


def test_faults_are_told() -> None:
    """A kernel that does not compile, one that spills, and a control that was not caught."""
    row = {"operator": "a", "variant": "b", "target": "sm_90", "compiled": True, "error": None, "stack": 0, "local": 0}
    assert faults({"kernels": [row], "control_caught": True}) == []
    broken = [{**row, "compiled": False, "error": "no"}, {**row, "stack": 8}]
    assert faults({"kernels": broken, "control_caught": True}) == [
        "a/b for sm_90: no",
        "a/b for sm_90: registers spilled",
    ]
    assert "trust no figure" in faults({"kernels": [row], "control_caught": False})[0]


def test_where_kernels_are_interpreted_none_is_compiled() -> None:
    """The one excludes the other within a process, and the sentence says so."""
    assert set(CUDA_TARGETS) < set(TARGETS)
    with pytest.raises(OperatorUnavailableError, match="TRITON_INTERPRET=1 is set"):
        compile_for(builds()[0], "sm_90")
    assert all(isinstance(build, Build) for build in builds())


def test_an_unknown_target_is_a_sentence() -> None:
    """Exit code 2 and what there is to choose from."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("rushes")), "bench", "kernels", "--target", "sm_42"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "target 'sm_42' is unknown; use one of sm_80" in done.stderr
