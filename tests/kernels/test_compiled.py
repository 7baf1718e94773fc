"""Kernels are compiled for GPUs that are not here, and what the compiler says of them is read rightly."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from kernels.accuracy import tolerance
from kernels.aot import CUDA_TARGETS, TARGETS, Build, compile_for, parse_resources
from kernels.bench import bench_kernels, faults
from kernels.builds import builds
from kernels.configurations import TUNABLE
from kernels.dispatch import OperatorUnavailableError

_TABLE = """
Resource usage:
 Common:
  GLOBAL:0
 Function norm_forward:
  REG:56 STACK:104 SHARED:1024 LOCAL:8 CONSTANT[0]:668 TEXTURE:0 SURFACE:0 SAMPLER:0
"""


@pytest.mark.timeout(300)
def test_kernels_compile_without_a_spill() -> None:
    """`rushes bench kernels` for two operators: no fault, the control caught, the matrix instruction of the target."""
    found = _bench("--target", "sm_90", "--operator", "euler_step", "--operator", "quantized_linear")
    assert found["control_caught"] is True
    assert {row["operator"] for row in found["kernels"]} == {"euler_step", "quantized_linear"}
    for row in found["kernels"]:
        _check(row)
    assert all(c["stack"] + c["local"] > 0 for c in found["controls"])


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_compiles_for_every_target(target: str) -> None:
    """All that `rushes bench kernels` prints, for one target after the other."""
    found = _bench("--target", target)
    assert found["control_caught"] is True
    assert len(found["kernels"]) == len(builds(target))
    for row in found["kernels"]:
        _check(row)


def _bench(*options: str) -> dict[str, Any]:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("rushes")), "bench", "kernels", "--json", *options],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def _check(row: dict[str, Any]) -> None:
    """Compiled, no byte spilled, an error within the table, and the target's own instruction where matrices meet."""
    assert row["compiled"], row
    assert (row["stack"], row["local"]) == (0, 0), row
    assert row["registers"] > 0
    assert all(error <= tolerance(row["operator"], getattr(torch, name)) for name, error in row["max_errors"].items())
    multiplies = row["operator"] in TUNABLE and not row["variant"].startswith("rounds")
    assert (row["matrix_instructions"] > 0) == multiplies or "fp32" in row["variant"], row


def test_every_kernel_is_among_the_builds() -> None:
    """Each @triton.jit function of kernels/gpu that is launched (its first argument is a pointer) has a build."""
    built = {build.kernel().fn.__name__ for build in builds("sm_90")}
    folder = Path(__file__).parents[2] / "kernels" / "gpu"
    text = "\n".join(path.read_text() for path in folder.glob("*.py"))
    launched = set(re.findall(r"@triton\.jit\ndef (\w+)\((?: *#[^\n]*)?\s*\w+_ptr\b", text))
    assert launched == built


def test_an_unknown_operator_is_a_sentence() -> None:
    """Refused before anything is compiled, with what there is."""
    with pytest.raises(ValueError, match="operator 'atention' is unknown; use one of attention, causal_conv3d"):
        bench_kernels(["sm_90"], print, ["atention"])


def test_the_resource_table_is_read() -> None:
    """Registers, stack, local and shared bytes from cuobjdump's own words; other words are refused."""
    assert parse_resources(_TABLE) == {"registers": 56, "stack": 104, "local": 8, "shared": 1024}
    with pytest.raises(ValueError, match="no resources"):
        parse_resources("nothing")


def test_faults_are_told() -> None:
    """A kernel that does not compile, one that spills, and a control that was not caught."""
    row = {"operator": "a", "variant": "b", "target": "sm_90", "compiled": True, "error": None, "stack": 0, "local": 0}
    row |= {"matrix_instruction": None, "max_errors": {"float32": 1e-9}}
    assert faults({"kernels": [row], "control_caught": True}) == []
    product = {**row, "operator": "attention", "variant": "all", "matrix_instruction": "wgmma.mma_async"}
    assert faults({"kernels": [product], "control_caught": True}) == []
    broken = [
        {**row, "compiled": False, "error": "no"},
        {**row, "stack": 8},
        {**row, "max_errors": {"float32": 0.5}},
        {**row, "max_errors": {"float16": None}},
        {**product, "matrix_instruction": None},
        {**product, "matrix_instruction": "mma.sync and wgmma.mma_async"},
    ]
    assert faults({"kernels": broken, "control_caught": True}) == [
        "a/b for sm_90: no",
        "a/b for sm_90: registers spilled",
        f"a/b for sm_90: its error in float32 is 0.5, more than {tolerance('a', torch.float32):.1e}",
        f"a/b for sm_90: its error in float16 is None, more than {tolerance('a', torch.float16):.1e}",
        "attention/all for sm_90: it multiplies by no matrix instruction, not by wgmma.mma_async",
        "attention/all for sm_90: it multiplies by mma.sync and wgmma.mma_async, not by wgmma.mma_async",
    ]
    assert "trust no figure" in faults({"kernels": [row], "control_caught": False})[0]


def test_where_kernels_are_interpreted_none_is_compiled() -> None:
    """The one excludes the other within a process, and the sentence says so."""
    assert set(CUDA_TARGETS) < set(TARGETS)
    with pytest.raises(OperatorUnavailableError, match="TRITON_INTERPRET=1 is set"):
        compile_for(builds("sm_90")[0], "sm_90")
    assert all(isinstance(build, Build) for build in builds("sm_90"))


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
