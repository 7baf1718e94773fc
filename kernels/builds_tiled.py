"""The operators that multiply matrices, as they are compiled ahead of time: attention, 8-bit products, convolution.

Values are bf16; a head has 128 of them, as in every Wan.
"""

from __future__ import annotations

from typing import Any

from kernels.aot import Build
from kernels.configurations import NO_FP8, Configuration, configurations, narrowed

_HEAD = 128
_MASKS = {"all": 0, "block-causal": 1, "sliding tile": 2}
_NUMBERS = ("a", "b", "c", "tiles_t", "tiles_h", "tiles_w", "window_t", "window_h", "window_w")
_FORMATS = {"int8": "*i8", "fp8": "*fp8e4nv"}
# What follows a product in a block of Wan: nothing but the bias, GELU, or the gated residual.
_EPILOGUES = {"bias": (False, False), "GELU": (True, False), "gated residual": (False, True)}


def tiled_builds(operator: str, target: str, configuration: Configuration | None = None) -> list[Build]:
    """Every build of one of `configurations.TUNABLE` for a target, as it is guessed best there unless told."""
    chosen = configuration or configurations(operator, target)[0]
    if operator in {"attention", "int8_attention"}:
        return [_attention(operator, name, kind, chosen) for name, kind in _MASKS.items()]
    if operator == "quantized_linear":
        return [
            _linear(f"{name}, {epilogue}", kind, gelu=gelu, gated=gated, configuration=chosen)
            for name, kind in _FORMATS.items()
            if name == "int8" or target not in NO_FP8
            for epilogue, (gelu, gated) in _EPILOGUES.items()
        ]
    return [
        _conv("3x3x3, cache", (3, 3, 3), chosen, cache=True),
        _conv("3x3x3, first chunk", (3, 3, 3), chosen, cache=False),
        _conv("3x1x1, cache", (3, 1, 1), chosen, cache=True),
    ]


def unusual_builds(target: str) -> list[Build]:
    """What operators take besides what Wan has: the widest and the narrowest heads of attention."""
    exact, int8 = (configurations(name, target)[0] for name in ("attention", "int8_attention"))
    return [
        _attention("attention", "block-causal, heads of 256", 1, exact, head=256),
        _attention("attention", "all, heads of 8", 0, exact, head=8),
        _attention("int8_attention", "block-causal, heads of 256", 1, int8, head=256),
        _attention("int8_attention", "all, heads of 8", 0, int8, head=8),
    ]


def quantizing_builds(target: str) -> list[Build]:
    """Rounding to 8 bits: of queries and keys by blocks, and of rows."""
    blocks = configurations("int8_attention", target)[0].blocks
    sides = (("queries", blocks["BLOCK_Q"], False), ("keys", blocks["BLOCK_K"], True))
    rows = [
        Build(
            operator="quantize_rows",
            variant=f"{name}, 14B feed-forward",
            kernel=_rows_kernel,
            signature={"x_ptr": "*bf16", "out_ptr": kind, "scale_ptr": "*fp32", "width": "i32"},
            constants={"BLOCK": 16_384},
            aligned=frozenset({"width"}),
            options={"num_warps": 16},
        )
        for name, kind in _FORMATS.items()
        if name == "int8" or target not in NO_FP8
    ]
    return [*(_blocks(name, block, mean=mean) for name, block, mean in sides), *rows]


def _attention(operator: str, name: str, kind: int, configuration: Configuration, *, head: int = _HEAD) -> Build:
    int8 = operator == "int8_attention"
    scores = "*i8" if int8 else "*bf16"
    configuration = narrowed(configuration, 2 * head)
    return Build(
        operator=operator,
        variant=name,
        kernel=_attention_kernel,
        signature={
            "q_ptr": scores,
            "k_ptr": scores,
            "v_ptr": "*bf16",
            "q_scale_ptr": "*fp32",
            "k_scale_ptr": "*fp32",
            "out_ptr": "*bf16",
            **dict.fromkeys(("queries", "keys", "heads", "width", *_NUMBERS), "i32"),
            "scale": "fp32",
        },
        constants={"MASK": kind, "INT8": int8, "WIDTH": max(head, 32 if int8 else 16), **configuration.blocks},
        aligned=frozenset({"width"}),
        options=_options(configuration),
    )


def _linear(name: str, kind: str, *, gelu: bool, gated: bool, configuration: Configuration) -> Build:
    return Build(
        operator="quantized_linear",
        variant=name,
        kernel=_linear_kernel,
        signature={
            "x_ptr": kind,
            "x_scale_ptr": "*fp32",
            "w_ptr": kind,
            "w_scale_ptr": "*fp32",
            "bias_ptr": "*bf16",
            "residual_ptr": "*bf16",
            "gate_ptr": "*fp32",
            "out_ptr": "*bf16",
            **dict.fromkeys(("rows", "n_out", "n_in", "tokens", "gate_batch", "gate_token"), "i32"),
        },
        constants={
            "BIAS": True,
            "GELU": gelu,
            "RESIDUAL": gated,
            "GATE": gated,
            "GROUP": 8,
            **configuration.blocks,
        },
        aligned=frozenset({"n_out", "n_in", "gate_batch"}),
        options=_options(configuration),
    )


def _conv(name: str, taps: tuple[int, int, int], configuration: Configuration, *, cache: bool) -> Build:
    sizes = ("pixels", "frames", "cached", "rows", "columns", "n_in", "n_out")
    places = ("row_padding", "column_padding", "out_rows", "out_columns")
    return Build(
        operator="causal_conv3d",
        variant=name,
        kernel=_conv_kernel,
        signature={
            **dict.fromkeys(("x_ptr", "cache_ptr", "w_ptr", "bias_ptr", "out_ptr"), "*bf16"),
            **dict.fromkeys((*sizes, *places), "i32"),
        },
        constants={
            **dict(zip(("TAPS_T", "TAPS_H", "TAPS_W"), taps, strict=True)),
            "CACHE": cache,
            "BIAS": True,
            **configuration.blocks,
        },
        aligned=frozenset({"n_in", "n_out"}),
        options=_options(configuration),
    )


def _blocks(name: str, block: int, *, mean: bool) -> Build:
    return Build(
        operator="int8_attention",
        variant=f"rounds {name}",
        kernel=_blocks_kernel,
        signature={
            "x_ptr": "*bf16",
            "mean_ptr": "*fp32",
            "out_ptr": "*i8",
            "scale_ptr": "*fp32",
            **dict.fromkeys(("tokens", "heads", "width", "segment"), "i32"),
        },
        constants={"MEAN": mean, "WIDTH": _HEAD, "BLOCK": block},
        aligned=frozenset({"width"}),
        options={"num_warps": 4},
    )


def _options(configuration: Configuration) -> dict[str, int]:
    return {"num_warps": configuration.warps, "num_stages": configuration.stages}


def _attention_kernel() -> Any:
    from kernels.gpu.attention import attention_forward  # noqa: PLC0415  it loads Triton

    return attention_forward


def _blocks_kernel() -> Any:
    from kernels.gpu.attention import quantize_blocks  # noqa: PLC0415  it loads Triton

    return quantize_blocks


def _linear_kernel() -> Any:
    from kernels.gpu.quantized import quantized_linear  # noqa: PLC0415  it loads Triton

    return quantized_linear


def _rows_kernel() -> Any:
    from kernels.gpu.quantized import quantize_rows  # noqa: PLC0415  it loads Triton

    return quantize_rows


def _conv_kernel() -> Any:
    from kernels.gpu.conv3d import causal_conv3d  # noqa: PLC0415  it loads Triton

    return causal_conv3d
