"""Which backends this machine has: one row each, for `rushes engines list` and `rushes doctor`. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

Proof = Literal["run", "compiled", "not run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendHere:
    """A backend: what it needs, what of that is installed, and how far it is proven by this project's own tests."""

    name: str
    needs: str
    extra: str | None
    installed: str | None
    proof: Proof
    note: str

    @property
    def state(self) -> str:
        """In a word or two: the installed version, or how to get it."""
        if self.installed is not None:
            return self.installed
        return f"absent: pip install 'rushes[{self.extra}]'"


_KNOWN: tuple[tuple[str, str, str | None, Proof, str], ...] = (
    ("eager", "torch", None, "run", "the reference, on a CPU; on a GPU once, in training"),
    ("fused", "torch", None, "run", "our operators: run on a CPU, compiled for seven GPUs"),
    ("fused-int8", "torch", None, "run", "the same in 8 bits: by references on a CPU, compiled for seven GPUs"),
    ("fused-fp8", "torch", None, "run", "the same in fp8: by references on a CPU, compiled for GPUs that have it"),
    ("aotinductor", "torch", None, "run", "on a CPU; not on a GPU"),
    ("onnxruntime", "onnxruntime", "onnxruntime", "run", "on a CPU"),
    ("openvino", "openvino", "openvino", "run", "on a CPU"),
    ("torch-tensorrt", "torch-tensorrt", "tensorrt", "not run", "written for a GPU host"),
    ("tensorrt", "tensorrt", "tensorrt", "not run", "its graph, profile and network definition alone are tested"),
    ("tensorrt-rtx", "tensorrt-rtx", "tensorrt-rtx", "compiled", "for sm_80 to sm_120; no engine has been run"),
)


def backends_here() -> list[BackendHere]:
    """All backends, in the order of their names' first mention in the documentation."""
    return [
        BackendHere(name=name, needs=needs, extra=extra, installed=_installed(needs), proof=proof, note=note)
        for name, needs, extra, proof, note in _KNOWN
    ]


def _installed(distribution: str) -> str | None:
    try:
        return f"{distribution} {version(distribution)}"
    except PackageNotFoundError:
        return None
