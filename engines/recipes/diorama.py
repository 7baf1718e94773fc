"""Engines of the built-in model, for a CPU."""

from __future__ import annotations

from dataclasses import replace

from engines.profile import ShapeProfile
from engines.quantization.forms import Form
from engines.quantization.spec import Quantization
from engines.recipes.probes import Probes
from engines.recipes.recipe import Budget, EngineRecipe, StepCache

PROFILE = ShapeProfile(
    min_width=32, max_width=256, min_height=32, max_height=256, min_frames=1, max_frames=81, max_rows=32
)
PROBES = Probes(
    prompts=(
        "a red ball bounces on a grassy meadow under a clear blue sky",
        "a cat runs to the left across a desert at sunset",
        "a lamb moves leftward and a penguin bounces up and down on a snowy field at night, camera slowly zooms out",
    ),
    seeds=(11,),
)
# Other films than those that engines are measured on.
CALIBRATION = Probes(
    prompts=(
        "a tractor goes to the right on a grassy meadow under a clear blue sky, the camera pans left",
        "a red sphere rocks on a snowy field under an overcast sky with hills in the background",
        "a sailboat swings and a tropical fish swims to the right on a calm sea under a sunset sky",
        "a bee comes closer over a calm sea in the early morning",
    ),
    seeds=(101,),
)
# What another order of fp32 sums makes of 20 steps, with room; pixels are then a level apart here and there.
EXACT = Budget(latent_error=2e-3, psnr=55.0, ssim=0.999, score_drop=0.002)


def _exact(backend: str, description: str) -> EngineRecipe:
    return EngineRecipe(
        name=f"diorama-{backend}",
        description=description,
        model="diorama",
        device="cpu",
        backend=backend,
        dtype="float32",
        profile=PROFILE,
        probes=PROBES,
        budget=EXACT,
    )


def diorama_fused() -> EngineRecipe:
    """Our operators, nothing compiled: builds at once, runs wherever torch does."""
    return _exact("fused", "fp32 by our operators, uncompiled")


def diorama_aotinductor() -> EngineRecipe:
    """Native code for this processor."""
    return _exact("aotinductor", "fp32 native code by AOTInductor")


def diorama_onnxruntime() -> EngineRecipe:
    """An ONNX graph, optimised when it is loaded."""
    return _exact("onnxruntime", "fp32 by ONNX Runtime")


def diorama_openvino() -> EngineRecipe:
    """An ONNX graph, compiled when it is loaded."""
    return _exact("openvino", "fp32 by OpenVINO")


def diorama_step_cache() -> EngineRecipe:
    """Native code, and no computing at all where a step's velocity is as good when it is extrapolated."""
    return replace(
        _exact("aotinductor", "fp32 native code; steps that bear it are extrapolated"),
        name="diorama-step-cache",
        budget=Budget(latent_error=0.1, psnr=32.0, ssim=0.97, score_drop=0.01),
        step_cache=StepCache(film_error=0.03, calibration=CALIBRATION),
    )


def diorama_int8() -> EngineRecipe:
    """Products of a step in int8 where layers bear it; quicker than fp32 where the processor has VNNI."""
    return _in_fewer_bits(
        "int8", "onnxruntime", "W8A8 by ONNX Runtime, smoothed; sensitive layers in fp32", "int8", smoothing=0.7
    )


def diorama_int8_static() -> EngineRecipe:
    """The same with inputs scaled once and for all, as calibration saw them, which OpenVINO fuses into its products."""
    return _in_fewer_bits(
        "int8-static", "openvino", "W8A8 by OpenVINO, smoothed, static; sensitive layers in fp32", "int8-static",
        smoothing=0.7,
    )  # fmt: skip


def diorama_int8_weights() -> EngineRecipe:
    """A quarter of the weights' bytes, products in fp32."""
    return _in_fewer_bits("int8-weights", "openvino", "weights in int8 by OpenVINO", "int8-weights", smoothing=0.0)


def diorama_int4_weights() -> EngineRecipe:
    """An eighth of the bytes of the weights that bear it, products in fp32."""
    return _in_fewer_bits(
        "int4-weights", "onnxruntime", "weights in int4 by ONNX Runtime; sensitive layers in fp32", "int4-weights",
        smoothing=0.0,
    )  # fmt: skip


def _in_fewer_bits(name: str, backend: str, description: str, form: Form, *, smoothing: float) -> EngineRecipe:
    return replace(
        _exact(backend, description),
        name=f"diorama-{name}",
        budget=Budget(latent_error=0.25, psnr=25.0, ssim=0.9, score_drop=0.02),
        quantization=Quantization(form=form, smoothing=smoothing, step_error=0.025, calibration=CALIBRATION),
    )
