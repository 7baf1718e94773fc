"""Engines for an NVIDIA GPU, of the built-in model and of published Wan models. None has been built or run yet.

Their budgets are what half precision and 8 bits are expected to keep, and not what was seen.
"""

from __future__ import annotations

from engines.profile import ShapeProfile
from engines.quantization.forms import Form
from engines.quantization.spec import Quantization
from engines.recipes import diorama
from engines.recipes.probes import Probes
from engines.recipes.recipe import Budget, EngineRecipe

WAN_1_3B, WAN_14B = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "Wan-AI/Wan2.1-T2V-14B-Diffusers"
# 480p both ways up and square, one guided film at a time.
WAN_PROFILE = ShapeProfile(
    min_width=256, max_width=832, min_height=256, max_height=832, min_frames=1, max_frames=81, max_rows=2
)
WAN_PROBES = Probes(
    prompts=(
        "a cat walks through tall grass in the evening sun, the camera follows it slowly",
        "waves break on black rocks under a grey sky, seen from a cliff",
    ),
    seeds=(11,),
)
WAN_CALIBRATION = Probes(
    prompts=(
        "a woman in a red coat opens an umbrella on a rainy street at night",
        "a train crosses a stone bridge in the mountains, aerial view",
    ),
    seeds=(101,),
)
HALF = Budget(latent_error=0.15, psnr=28.0, ssim=0.92, score_drop=0.01)
FEWER_BITS = Budget(latent_error=0.35, psnr=22.0, ssim=0.85, score_drop=0.02)


def diorama_cuda() -> EngineRecipe:
    """Native code in fp16 with our operators, recorded."""
    return _diorama("diorama-cuda", "fp16 native code by AOTInductor, CUDA graphs", "aotinductor")


def diorama_fused_int8() -> EngineRecipe:
    """Our kernels with products in int8, uncompiled."""
    return _diorama("diorama-fused-int8", "W8A8 by our operators, uncompiled", "fused-int8")


def diorama_fused_fp8() -> EngineRecipe:
    """The same in fp8 (Ada, Hopper and later)."""
    return _diorama("diorama-fused-fp8", "fp8 by our operators, uncompiled", "fused-fp8")


def diorama_torch_tensorrt() -> EngineRecipe:
    """A program whose graph TensorRT compiles."""
    return _diorama("diorama-torch-tensorrt", "fp16 by torch-tensorrt", "torch-tensorrt")


def diorama_tensorrt() -> EngineRecipe:
    """A network in fp16, for the GPU at hand."""
    return _diorama("diorama-tensorrt", "fp16 by TensorRT", "tensorrt")


def diorama_tensorrt_fp8() -> EngineRecipe:
    """Products in fp8 (Ada, Hopper and later)."""
    return _diorama("diorama-tensorrt-fp8", "fp8 by TensorRT, sensitive layers in fp16", "tensorrt", "fp8")


def diorama_rtx() -> EngineRecipe:
    """The same by TensorRT for RTX."""
    return _diorama("diorama-rtx", "fp16 by TensorRT for RTX", "tensorrt-rtx")


def diorama_rtx_fp8() -> EngineRecipe:
    """Products in fp8 (Ada and Blackwell)."""
    return _diorama("diorama-rtx-fp8", "fp8 by TensorRT for RTX, sensitive layers in fp16", "tensorrt-rtx", "fp8")


def diorama_rtx_int8() -> EngineRecipe:
    """Products in int8 (Ampere and later)."""
    return _diorama(
        "diorama-rtx-int8", "W8A8 by TensorRT for RTX, sensitive layers in fp16", "tensorrt-rtx", "int8-static"
    )


def diorama_rtx_nvfp4() -> EngineRecipe:
    """Products in four bits (Blackwell)."""
    return _diorama("diorama-rtx-nvfp4", "NVFP4 by TensorRT for RTX, sensitive layers in fp16", "tensorrt-rtx", "nvfp4")


def wan_1_3b_aotinductor() -> EngineRecipe:
    """Native code in bf16."""
    return _wan("wan-1.3b-aotinductor", WAN_1_3B, "bf16 native code by AOTInductor", "aotinductor")


def wan_1_3b_tensorrt() -> EngineRecipe:
    """A network in bf16."""
    return _wan("wan-1.3b-tensorrt", WAN_1_3B, "bf16 by TensorRT", "tensorrt")


def wan_1_3b_tensorrt_fp8() -> EngineRecipe:
    """Products in fp8."""
    return _wan("wan-1.3b-tensorrt-fp8", WAN_1_3B, "fp8 by TensorRT, sensitive layers in bf16", "tensorrt", "fp8")


def wan_14b_tensorrt_fp8() -> EngineRecipe:
    """Products in fp8; the reference in fp32 wants a GPU with 80 GB."""
    return _wan("wan-14b-tensorrt-fp8", WAN_14B, "fp8 by TensorRT, sensitive layers in bf16", "tensorrt", "fp8")


def wan_14b_tensorrt_int4_weights() -> EngineRecipe:
    """Weights in int4, 7 GB in place of 28."""
    return _wan(
        "wan-14b-tensorrt-int4-weights", WAN_14B, "weights in int4 by TensorRT, rest bf16", "tensorrt", "int4-weights"
    )


def wan_14b_tensorrt_nvfp4() -> EngineRecipe:
    """Products in four bits (Blackwell)."""
    return _wan("wan-14b-tensorrt-nvfp4", WAN_14B, "NVFP4 by TensorRT, sensitive layers in bf16", "tensorrt", "nvfp4")


def _diorama(name: str, description: str, backend: str, form: Form | None = None) -> EngineRecipe:
    return EngineRecipe(
        name=name,
        description=description,
        model="diorama",
        device="cuda",
        backend=backend,
        dtype="float16",
        profile=diorama.PROFILE,
        probes=diorama.PROBES,
        budget=HALF if form is None and backend not in {"fused-int8", "fused-fp8"} else FEWER_BITS,
        quantization=_quantization(form, diorama.CALIBRATION),
        cuda_graphs=True,
    )


def _wan(name: str, model: str, description: str, backend: str, form: Form | None = None) -> EngineRecipe:
    return EngineRecipe(
        name=name,
        description=description,
        model=model,
        device="cuda",
        backend=backend,
        dtype="bfloat16",
        profile=WAN_PROFILE,
        probes=WAN_PROBES,
        budget=HALF if form is None else FEWER_BITS,
        quantization=_quantization(form, WAN_CALIBRATION),
    )


def _quantization(form: Form | None, calibration: Probes) -> Quantization | None:
    if form is None:
        return None
    smoothing = 0.0 if form in {"int4-weights", "fp8", "nvfp4"} else 0.7  # floats have a range for outliers
    return Quantization(form=form, smoothing=smoothing, step_error=0.03, calibration=calibration)
