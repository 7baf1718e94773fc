"""What is asked of a quantized engine."""

from __future__ import annotations

from dataclasses import dataclass

from engines.quantization.forms import Form
from engines.recipes.probes import Probes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """Linear layers of a step in fewer bits, in a `form` of `engines.quantization.forms`.

    `smoothing` moves the scale of outlying input channels into the weights first, by that power of it (SmoothQuant,
    Xiao et al., arXiv 2211.10438; 0 moves none). Inputs are looked at on the films of `calibration`.
    Layers are left in floating point, the most sensitive first, until the error of one step that the others cause is
    estimated to be at most `step_error`.
    """

    form: Form
    smoothing: float
    step_error: float
    calibration: Probes
