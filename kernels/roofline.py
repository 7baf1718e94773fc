"""What each operator of a forward of Wan must move and compute, before fusion and after, and how long at least.

A floor is max(bytes / bandwidth, operations / peak) by the GPU's data sheet (Williams et al., Roofline, 2009): nothing
here was measured. Before fusion is what diffusers 0.42 does op by op, with bf16 activations and fp32 modulations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

_BF16, _FP32 = 2, 4
_HEAD = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """Of a data sheet: bytes a second, and dense operations a second in bf16, int8 and fp8 (summed in fp32)."""

    name: str
    bandwidth: float
    bf16: float
    int8: float
    fp8: float | None

    @property
    def eight_bits(self) -> float:
        """Of the better 8-bit format."""
        return max(self.int8, self.fp8 or 0.0)


GPUS = (
    Gpu(name="A100", bandwidth=2.039e12, bf16=312e12, int8=624e12, fp8=None),
    Gpu(name="L40S", bandwidth=0.864e12, bf16=362e12, int8=733e12, fp8=733e12),
    Gpu(name="H100", bandwidth=3.35e12, bf16=989e12, int8=1979e12, fp8=1979e12),
    Gpu(name="H200", bandwidth=4.8e12, bf16=989e12, int8=1979e12, fp8=1979e12),
    Gpu(name="B200", bandwidth=8.0e12, bf16=2250e12, int8=4500e12, fp8=4500e12),
    Gpu(name="RTX 5090", bandwidth=1.792e12, bf16=209.5e12, int8=838e12, fp8=419e12),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WanSize:
    """A Wan at a size of film: layers, width, values of the feed-forward, tokens of the film and of the prompt."""

    name: str
    layers: int
    width: int
    inner: int
    tokens: int
    text: int = 512


# 81 frames of 480 x 832: latents of 21 x 60 x 104, and a token is 1 x 2 x 2 of them.
SIZES = (
    WanSize(name="1.3B", layers=30, width=1536, inner=8960, tokens=21 * 30 * 52),
    WanSize(name="14B", layers=40, width=5120, inner=13_824, tokens=21 * 30 * 52),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of an operator in a block: bytes before fusion, after it and with 8 bits; operations, and if 8 bits do them.

    `int8_share` of them are int8 even where nothing else is in 8 bits: the scores of `int8_attention`.
    """

    operator: str
    before: float
    after: float
    in_eight_bits: float
    operations: float = 0.0
    multiplies: bool = False
    int8_share: float = 0.0


def block_costs(size: WanSize) -> list[Cost]:
    """A block's operators in their order, of one film."""
    values, prompt = size.tokens * size.width, size.text * size.width
    return [
        _norms(
            "modulated_norm", values, before=_FLOAT + _NORM + 2 * _FP32_PASS + _HALF, after=2 * _BF16, quantizes=True
        ),
        *_products("q, k, v", size.tokens, size.width, size.width, count=3),
        # RMS norm of both, and cos and sin by halves: two products, a sum and a strided store each.
        _with_angles(_norms("qk_norm_rope", 2 * values, before=2 * _BF16 + 30, after=2 * _BF16), size.tokens),
        _attention("attention", size.tokens, size.tokens, size.width),
        # What attention gave is rounded for the product after it.
        _norms("quantize_rows", 2 * values, before=0, after=0, eight=_BF16 + 1),
        *_products("out", size.tokens, size.width, size.width),
        _norms("gated_norm, affine", values, before=_GATED + _FLOAT + _NORM + _HALF, after=4 * _BF16, quantizes=True),
        *_products("cross q", size.tokens, size.width, size.width),
        *_products("cross k, v", size.text, size.width, size.width, count=2, rounded=False),
        _norms("qk_norm_rope, cross", values + prompt, before=2 * _BF16, after=2 * _BF16),
        _attention("attention, cross", size.tokens, size.text, size.width),
        *_products("cross out", size.tokens, size.width, size.width),
        _norms(
            "gated_norm, modulated",
            values,
            before=3 * _BF16 + _FLOAT + _NORM + 2 * _FP32_PASS + _HALF,
            after=4 * _BF16,
            quantizes=True,
        ),
        *_products("feed-forward in", size.tokens, size.width, size.inner),
        # In 8 bits the product before ends with it, and what is left is the rounding of its rows.
        _norms("gelu", size.tokens * size.inner, before=2 * _BF16, after=2 * _BF16, eight=_BF16 + 1),
        *_products("feed-forward out", size.tokens, size.inner, size.width),
        _norms("gated_residual", values, before=_GATED + 8, after=3 * _BF16, eight=0),
    ]


# Bytes a value, of what diffusers does op by op: a cast up, a norm in fp32, a pass in fp32, a cast down, and
# x.float() + branch * gate with its casts.
_FLOAT, _NORM, _FP32_PASS, _HALF = _BF16 + _FP32, 2 * _FP32, 2 * _FP32, _FP32 + _BF16
_GATED = _FLOAT + (_BF16 + _FP32) + 3 * _FP32 + _HALF


def _norms(
    name: str, values: float, *, before: float, after: float, eight: float | None = None, quantizes: bool = False
) -> Cost:
    """What reads and writes values; one that quantizes reads them and writes a byte, its residual having been added."""
    eight = eight if eight is not None else (_BF16 + 1 if quantizes else after)
    return Cost(operator=name, before=values * before, after=values * after, in_eight_bits=values * eight)


def _with_angles(cost: Cost, tokens: int) -> Cost:
    """With cos and sin of every token, which diffusers holds twice over in fp32: each line of them is read once."""
    angles = 2.0 * _FP32 * _HEAD * tokens
    return replace(
        cost, before=cost.before + angles, after=cost.after + angles, in_eight_bits=cost.in_eight_bits + angles
    )


def _products(name: str, rows: int, n_in: int, n_out: int, *, count: int = 1, rounded: bool = True) -> list[Cost]:
    moved = _BF16 * (rows * n_in + n_in * n_out + rows * n_out)
    # What a product in 8 bits adds at its end, the residual, it also reads.
    eight = rows * n_in + n_in * n_out + (2 if name.endswith("out") else 1) * _BF16 * rows * n_out
    return [
        Cost(
            operator=f"product, {name}",
            before=count * moved,
            after=count * moved,
            in_eight_bits=count * (eight if rounded else moved),
            operations=2.0 * count * rows * n_in * n_out,
            multiplies=rounded,
        )
    ]


def _attention(name: str, queries: int, keys: int, width: int) -> Cost:
    moved = _BF16 * width * (2.0 * queries + 2.0 * keys)
    return Cost(operator=name, before=moved, after=moved, in_eight_bits=moved, operations=4.0 * queries * keys * width)


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Seconds that a GPU takes at least, before fusion, after it, and after it with products in 8 bits."""

    before: float
    after: float
    in_eight_bits: float


def floor_of(cost: Cost, gpu: Gpu) -> Floor:
    """Of one operator in one block."""
    eight_peak = gpu.eight_bits if cost.multiplies else gpu.bf16
    computed = cost.operations * ((1 - cost.int8_share) / gpu.bf16 + cost.int8_share / gpu.int8)
    return Floor(
        before=max(cost.before / gpu.bandwidth, computed),
        after=max(cost.after / gpu.bandwidth, computed),
        in_eight_bits=max(cost.in_eight_bits / gpu.bandwidth, cost.operations / eight_peak),
    )


def forward_floor(size: WanSize, gpu: Gpu) -> Floor:
    """Of all blocks of one forward of one film; what is before and after them is less than a hundredth."""
    floors = [floor_of(cost, gpu) for cost in block_costs(size)]

    def total(of: Callable[[Floor], float]) -> float:
        return size.layers * sum(of(floor) for floor in floors)

    return Floor(
        before=total(lambda f: f.before), after=total(lambda f: f.after), in_eight_bits=total(lambda f: f.in_eight_bits)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvSize:
    """A convolution of the VAE's decoder: channels, and rows and columns of a chunk of `frames`."""

    channels: int
    frames: int
    rows: int
    columns: int


# The residual blocks of Wan 2.1's decoder at 480 x 832, from the latents outward, in chunks of one latent frame.
CONVS = (
    ConvSize(channels=384, frames=1, rows=60, columns=104),
    ConvSize(channels=384, frames=2, rows=120, columns=208),
    ConvSize(channels=192, frames=4, rows=240, columns=416),
    ConvSize(channels=96, frames=4, rows=480, columns=832),
)


def conv_cost(size: ConvSize) -> Cost:
    """Of one 3x3x3 convolution with its cache of two frames: joined, padded and convolved, or read where they lie."""
    frame = _BF16 * size.channels * size.rows * size.columns
    padded = _BF16 * size.channels * (size.rows + 2) * (size.columns + 2)
    seen = size.frames + 2
    weight = _BF16 * 27 * size.channels**2
    after = frame * seen + weight + frame * size.frames
    before = 2 * frame * seen + (frame + padded) * seen + padded * seen + weight + frame * size.frames
    return Cost(
        operator="causal_conv3d",
        before=before,
        after=after,
        in_eight_bits=after,
        operations=2.0 * 27 * size.channels**2 * size.frames * size.rows * size.columns,
    )


LATENTS = 16 * 21 * 60 * 104
"""Values of the latents of 81 frames of 480 x 832."""
# Reads and writes of a value, as the samplers are written and in one pass; guidance alone has eight.
_STEPS = {"euler_step": (13, 4), "unipc_step": (59, 9), "stochastic_step": (23, 5)}


def step_costs() -> list[Cost]:
    """Guidance and a step of each sampler for one film, in fp32."""
    return [
        Cost(
            operator=operator,
            before=_FP32 * LATENTS * before,
            after=_FP32 * LATENTS * after,
            in_eight_bits=_FP32 * LATENTS * after,
        )
        for operator, (before, after) in _STEPS.items()
    ]
