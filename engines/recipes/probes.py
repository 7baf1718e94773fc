"""Films that something is measured on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Prompts and seeds, each with each; `num_inference_steps` is the model's own where it is None."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    num_inference_steps: int | None = None
