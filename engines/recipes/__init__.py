"""Engine recipes by name: functions that return a whole, typed build."""

from __future__ import annotations

from collections.abc import Callable

from engines.errors import UnknownName
from engines.recipes import diorama, gpu
from engines.recipes.recipe import EngineRecipe

RECIPES: dict[str, Callable[[], EngineRecipe]] = {
    "diorama-fused": diorama.diorama_fused,
    "diorama-aotinductor": diorama.diorama_aotinductor,
    "diorama-onnxruntime": diorama.diorama_onnxruntime,
    "diorama-openvino": diorama.diorama_openvino,
    "diorama-step-cache": diorama.diorama_step_cache,
    "diorama-int8": diorama.diorama_int8,
    "diorama-int8-static": diorama.diorama_int8_static,
    "diorama-int8-weights": diorama.diorama_int8_weights,
    "diorama-int4-weights": diorama.diorama_int4_weights,
    "diorama-cuda": gpu.diorama_cuda,
    "diorama-fused-int8": gpu.diorama_fused_int8,
    "diorama-fused-fp8": gpu.diorama_fused_fp8,
    "diorama-torch-tensorrt": gpu.diorama_torch_tensorrt,
    "diorama-tensorrt": gpu.diorama_tensorrt,
    "diorama-tensorrt-fp8": gpu.diorama_tensorrt_fp8,
    "diorama-rtx": gpu.diorama_rtx,
    "diorama-rtx-fp8": gpu.diorama_rtx_fp8,
    "diorama-rtx-int8": gpu.diorama_rtx_int8,
    "diorama-rtx-nvfp4": gpu.diorama_rtx_nvfp4,
    "wan-1.3b-aotinductor": gpu.wan_1_3b_aotinductor,
    "wan-1.3b-tensorrt": gpu.wan_1_3b_tensorrt,
    "wan-1.3b-tensorrt-fp8": gpu.wan_1_3b_tensorrt_fp8,
    "wan-14b-tensorrt-fp8": gpu.wan_14b_tensorrt_fp8,
    "wan-14b-tensorrt-nvfp4": gpu.wan_14b_tensorrt_nvfp4,
    "wan-14b-tensorrt-int4-weights": gpu.wan_14b_tensorrt_int4_weights,
}


def find_recipe(name: str) -> EngineRecipe:
    """The recipe of that name; `UnknownName` for another."""
    if name not in RECIPES:
        raise UnknownName("engine recipe", name, RECIPES)
    return RECIPES[name]()
