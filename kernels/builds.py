"""What is compiled ahead of time: every operator at the widths of Wan 1.3B and 14B in bf16, and one that must spill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kernels.aot import Build
from kernels.builds_tiled import quantizing_builds, tiled_builds, unusual_builds
from kernels.configurations import TUNABLE
from kernels.launching import next_power_of_2, warps_for

_WANS = {"1.3B": 1536, "14B": 5120}  # widths of Wan 2.1


def builds(target: str) -> list[Build]:
    """Every operator's kernels, as they are compiled for `target`."""
    out: list[Build] = []
    for model, width in _WANS.items():
        out += [*_norms(model, width), *_alone(model, width), _residual(model, width), *_ropes(model, width)]
    tiled = [build for operator in TUNABLE for build in tiled_builds(operator, target)]
    return [*out, *_steps(), *_stochastic(), *tiled, *unusual_builds(target), *quantizing_builds(target)]


def control(target: str) -> Build:
    """The norm with fewer registers than its values need, so that it must spill: what the check has to catch.

    NVIDIA's compiler takes a limit; AMD's gets one from the number of waves that must fit.
    """
    forward = next(b for b in _norms("1.3B", 1536) if b.variant.endswith("forward"))
    limit = {"num_warps": 1, "maxnreg": 32} if target.startswith("sm_") else {"num_warps": 1, "waves_per_eu": 8}
    return replace(forward, operator="control", variant="must spill", options=limit)


def _norms(model: str, width: int) -> list[Build]:
    block = next_power_of_2(width)
    # Before cross-attention a block has a gate and a norm with weights, before its feed-forward a modulated norm.
    affine = {"GATE": True, "SCALE": False, "SHIFT": False, "WEIGHT": True, "BIAS": True}
    modulated = {"GATE": False, "SCALE": True, "SHIFT": True, "WEIGHT": False, "BIAS": False}
    integers = ("tokens", "width", "gate_batch", "gate_token", "scale_batch", "scale_token")
    rest = dict.fromkeys(integers, "i32") | {"eps": "fp32"}
    activations, modulations = "*bf16", "*fp32"
    forward = {
        "x_ptr": activations,
        "branch_ptr": activations,
        "gate_ptr": modulations,
        "scale_ptr": modulations,
        "shift_ptr": modulations,
        "weight_ptr": modulations,
        "bias_ptr": modulations,
        "residual_ptr": activations,
        "out_ptr": activations,
        "out_scale_ptr": modulations,
    }
    backward = {
        "gradient_ptr": activations,
        "residual_gradient_ptr": activations,
        "x_ptr": activations,
        "branch_ptr": activations,
        **dict.fromkeys(("gate_ptr", "scale_ptr", "weight_ptr", "bias_ptr"), modulations),
        **dict.fromkeys(("dx_ptr", "dbranch_ptr"), activations),
        **dict.fromkeys(("dgate_ptr", "dscale_ptr", "dshift_ptr", "dweight_ptr", "dbias_ptr"), modulations),
    }
    return [
        Build(
            operator="gated_norm",
            variant=f"{model} {kind} {way}",
            kernel=kernel,
            signature=signature | rest,
            constants=flags | {"BRANCH": True, "RMS": False, "BLOCK": block} | more,
            aligned=frozenset({"width", "gate_batch", "scale_batch"}),
            options={"num_warps": warps_for(block)},
        )
        for kind, flags in (("affine", affine), ("modulated", modulated))
        for way, kernel, signature, more in (
            ("forward", _norm_forward, forward, {"QUANTIZE": False}),
            ("backward", _norm_backward, backward, {"ROWS": 16}),
        )
    ]


def _alone(model: str, width: int) -> list[Build]:
    """The modulated norm with no branch to add, and the same with its row leaving in int8."""
    fused = next(b for b in _norms(model, width) if b.variant.endswith("modulated forward"))
    constants = {**fused.constants, "BRANCH": False}
    rounded = {**fused.signature, "out_ptr": "*i8"}
    return [
        replace(fused, operator="modulated_norm", variant=model, constants=constants),
        replace(
            fused,
            operator="quantized_norm",
            variant=f"{model} int8",
            signature=rounded,
            constants={**constants, "QUANTIZE": True},
        ),
    ]


def _residual(model: str, width: int) -> Build:
    block = next_power_of_2(width)
    return Build(
        operator="gated_residual",
        variant=model,
        kernel=_residual_kernel,
        signature={
            **dict.fromkeys(("x_ptr", "branch_ptr", "out_ptr"), "*bf16"),
            "gate_ptr": "*fp32",
            **dict.fromkeys(("tokens", "width", "gate_batch", "gate_token"), "i32"),
        },
        constants={"GATE": True, "BLOCK": block},
        aligned=frozenset({"width", "gate_batch"}),
        options={"num_warps": warps_for(block)},
    )


def _ropes(model: str, width: int) -> list[Build]:
    block = next_power_of_2(width // 2)
    pointers = ("q_ptr", "k_ptr", "q_weight_ptr", "k_weight_ptr")
    signature = {
        **dict.fromkeys(pointers, "*bf16"),
        "cos_ptr": "*fp32",
        "sin_ptr": "*fp32",
        "q_out_ptr": "*bf16",
        "k_out_ptr": "*bf16",
        **dict.fromkeys(("q_rows", "tokens", "width", "half_head", "angle_token", "angle_pair"), "i32"),
        "eps": "fp32",
    }
    return [
        Build(
            operator="qk_norm_rope",
            variant=f"{model} {'rotated' if rope else 'norm only'}",
            kernel=_rope,
            signature=signature,
            constants={"ROPE": rope, "BLOCK": block},
            aligned=frozenset({"width", "half_head", "angle_token"}),
            options={"num_warps": warps_for(2 * block)},
        )
        for rope in (True, False)
    ]


# Latents are fp32, velocities come in the model's dtype.
_VELOCITIES = {"x_ptr": "*fp32", "conditional_ptr": "*bf16", "unconditional_ptr": "*bf16", "guidance_ptr": "*fp32"}
_STEP_CONSTANTS = {"GUIDED": True, "BLOCK": 1024}


def _steps() -> list[Build]:
    """Sampler steps with guidance."""
    shared: dict[str, Any] = {"aligned": frozenset({"count"}), "options": {"num_warps": 4}}
    history = ("before_ptr", "newest_ptr", "older_ptr", "clean_ptr", "here_ptr", "next_ptr")
    return [
        Build(
            operator="euler_step",
            variant="guided",
            kernel=_kernel_of("euler_kernel"),
            signature={**_VELOCITIES, "out_ptr": "*fp32", "count": "i32", "change": "fp32"},
            constants=_STEP_CONSTANTS,
            **shared,
        ),
        Build(
            operator="unipc_step",
            variant="guided, corrects",
            kernel=_kernel_of("unipc_kernel"),
            signature={
                **_VELOCITIES,
                **dict.fromkeys(history, "*fp32"),
                "count": "i32",
                **dict.fromkeys(("s", "c0", "c1", "c2", "c3", "p0", "p1", "p2"), "fp32"),
            },
            constants=_STEP_CONSTANTS | {"CORRECTS": True},
            **shared,
        ),
    ]


def _stochastic() -> list[Build]:
    """A stochastic sampler's step, and the score of one that was taken."""
    rest = {"count": "i32", **dict.fromkeys(("keep", "pull", "deviation"), "fp32")}
    kernels = (
        ("stochastic_step", "guided", "stochastic_kernel", (), ("noise_ptr", "out_ptr", "squares_ptr")),
        ("stochastic_score", "guided, forward", "score_kernel", (), ("taken_ptr", "squares_ptr")),
        ("stochastic_score", "guided, backward", "score_backward_kernel", ("gradient_ptr",), ("taken_ptr",)),
    )
    return [
        Build(
            operator=operator,
            variant=variant,
            kernel=_kernel_of(kernel),
            signature={
                **dict.fromkeys(before, "*fp32"),
                **_VELOCITIES,
                **dict.fromkeys(after, "*fp32"),
                # What the velocities get is in their dtype.
                **(dict.fromkeys(("ours_ptr", "theirs_ptr"), "*bf16") if before else {}),
                **rest,
            },
            constants=_STEP_CONSTANTS,
            aligned=frozenset({"count"}),
            options={"num_warps": 4},
        )
        for operator, variant, kernel, before, after in kernels
    ]


def _kernel_of(name: str) -> Callable[[], Any]:
    def load() -> Any:
        from kernels.gpu import flow_step, stochastic  # noqa: PLC0415  they load Triton

        return getattr(flow_step, name, None) or getattr(stochastic, name)

    return load


def _residual_kernel() -> Any:
    from kernels.gpu.residual import gated_residual  # noqa: PLC0415  it loads Triton

    return gated_residual


def _norm_forward() -> Any:
    from kernels.gpu.norm import norm_forward  # noqa: PLC0415  it loads Triton

    return norm_forward


def _norm_backward() -> Any:
    from kernels.gpu.norm import norm_backward  # noqa: PLC0415  it loads Triton

    return norm_backward


def _rope() -> Any:
    from kernels.gpu.rope import qk_norm_rope_forward  # noqa: PLC0415  it loads Triton

    return qk_norm_rope_forward
