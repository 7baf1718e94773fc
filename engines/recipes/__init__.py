"""Engine recipes by name: functions that return a whole, typed build."""

from __future__ import annotations

from collections.abc import Callable

from engines.errors import UnknownName
from engines.recipes import diorama
from engines.recipes.recipe import EngineRecipe

RECIPES: dict[str, Callable[[], EngineRecipe]] = {
    "diorama-fused": diorama.diorama_fused,
    "diorama-aotinductor": diorama.diorama_aotinductor,
    "diorama-onnxruntime": diorama.diorama_onnxruntime,
    "diorama-openvino": diorama.diorama_openvino,
    "diorama-int8": diorama.diorama_int8,
}


def find_recipe(name: str) -> EngineRecipe:
    """The recipe of that name; `UnknownName` for another."""
    if name not in RECIPES:
        raise UnknownName("engine recipe", name, RECIPES)
    return RECIPES[name]()
