"""The card of a plain diffusers Wan folder, worked out from its model_index.json and component configs.

Torch-free. The result has the layout of `rushes.json` and is validated as one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from engines.errors import InvalidModel
from engines.model_folder import read_config, read_index

# What the samplers here compute; a scheduler config that says otherwise would give another film than stock diffusers.
_FLOW_UNIPC = {
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "solver_order": 2,
    "solver_type": "bh2",
    "predict_x0": True,
    "lower_order_final": True,
    "final_sigmas_type": "zero",
    "disable_corrector": [],
    "solver_p": None,
}
_FLOW_EULER = {"invert_sigmas": False, "stochastic_sampling": False}
_NEITHER = {
    "num_train_timesteps": 1000,
    "use_dynamic_shifting": False,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "shift_terminal": None,
    "thresholding": False,
}
# Diffusers fills what a config leaves out from the class, where these two are otherwise.
_UNIPC_CLASS_DEFAULTS = {"prediction_type": "epsilon", "use_flow_sigmas": False}

MAX_EDGE = 1280
MAX_STEPS = 100


def derive_card(folder: Path) -> dict[str, Any]:
    """Defaults and limits for a Wan text-to-video folder without a card; another pipeline is `InvalidModel`."""
    index = read_index(folder)
    if index.get("_class_name") != "WanPipeline":
        raise InvalidModel(
            f"{folder.name} is a {index.get('_class_name')!r}; without a rushes.json only WanPipeline "
            "(text to video) is understood"
        )
    vae = read_config(folder / "vae" / "config.json")
    patch = _patch_size(read_config(folder / "transformer" / "config.json"))
    temporal = _scale(vae, "scale_factor_temporal", 4)
    multiple = _scale(vae, "scale_factor_spatial", 8) * patch[1]
    sampler, flow_shift = read_sampler(folder)
    # The 5B model of Wan 2.2 (expand_timesteps) was published for 720p at 24 fps, all others for 480p at 16.
    ti2v = bool(index.get("expand_timesteps"))
    width, height, frames, fps = (1280, 704, 121, 24) if ti2v else (832, 480, 81, 16)
    max_edge = MAX_EDGE // multiple * multiple
    return {
        "name": re.sub(r"[^\w.@-]", "-", folder.resolve().name) or "wan",
        "family": "wan",
        "description": "A Wan text-to-video model; limits derived from its configs.",
        "defaults": {
            "width": width // multiple * multiple,
            "height": height // multiple * multiple,
            "num_frames": (frames - 1) // temporal * temporal + 1,
            "fps": fps,
            "num_inference_steps": 50,
            "guidance_scale": 5.0,
            "flow_shift": flow_shift,
            "sampler": sampler,
            "negative_prompt": "",
        },
        "limits": {
            "spatial_multiple": multiple,
            "temporal_multiple": temporal,
            "min_width": multiple,
            "max_width": max_edge,
            "min_height": multiple,
            "max_height": max_edge,
            "min_frames": 1,
            "max_frames": 120 // temporal * temporal + 1,
            "min_fps": 1,
            "max_fps": 60,
            "max_steps": MAX_STEPS,
            "max_guidance_scale": 30.0,
            "max_flow_shift": 100.0,
            "max_prompt_chars": 4000,
            "max_work": 1280 * 720 * 121 * 50,
        },
    }


def read_sampler(folder: Path) -> tuple[str, float]:
    """The sampler and flow shift that stock diffusers would use for this folder, if it is one that we compute."""
    config = read_config(folder / "scheduler" / "scheduler_config.json")
    name = config.get("_class_name")
    if name == "UniPCMultistepScheduler":
        _same(config, {**_NEITHER, **_FLOW_UNIPC}, name, _UNIPC_CLASS_DEFAULTS)
        return "unipc", config.get("flow_shift", 1.0)
    if name == "FlowMatchEulerDiscreteScheduler":
        _same(config, {**_NEITHER, **_FLOW_EULER}, name, {})
        return "euler", config.get("shift", 1.0)
    raise InvalidModel(
        f"the scheduler {name!r} is not one that is computed here (UniPCMultistepScheduler, "
        "FlowMatchEulerDiscreteScheduler); add a rushes.json that names a sampler"
    )


def _same(config: dict[str, Any], expected: dict[str, Any], name: str, defaults: dict[str, Any]) -> None:
    for key, value in expected.items():
        seen = config.get(key, defaults.get(key, value))
        if seen != value:
            raise InvalidModel(f"{name} with {key}={seen!r} is not computed here, only {key}={value!r}")


def _scale(vae: dict[str, Any], key: str, default: int) -> int:
    value = vae.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 64:
        raise InvalidModel(f"the VAE's {key} is {value!r:.60}; it must be a whole number from 1 to 64")
    return value


def _patch_size(transformer: dict[str, Any]) -> tuple[int, int, int]:
    patch = transformer.get("patch_size", [1, 2, 2])
    if not (isinstance(patch, list) and len(patch) == 3 and all(type(p) is int and 0 < p <= 64 for p in patch)):
        raise InvalidModel(f"the transformer's patch_size is {patch!r}; it must be three whole numbers from 1 to 64")
    if patch[0] != 1 or patch[1] != patch[2]:
        raise InvalidModel(f"the transformer's patch_size is {patch!r}; only [1, n, n] is supported")
    return patch[0], patch[1], patch[2]
