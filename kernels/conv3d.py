"""Causal 3-D convolution with a cache of the frames before, channels-last; see `reference.causal_conv3d`.

What diffusers does in three steps (the cache and the frames joined, padded, convolved) reads and writes every frame
twice more; here the filter looks for a frame where it lies.
Legend: B batch, C and O channels, T frames, H rows, W columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import reference
from kernels.configurations import configuration_of
from kernels.dispatch import Implementation, chosen, is_twin, triton_installed
from kernels.launching import launch, next_power_of_2, pointers

_LAST = torch.channels_last_3d


@torch.library.custom_op("rushes::causal_conv3d", mutates_args=())
def _causal_conv3d(x: Tensor, weight: Tensor, bias: Tensor | None, cache: Tensor | None, padding: list[int]) -> Tensor:
    rows, columns = padding
    way = chosen("causal_conv3d", x, _default_for(x, weight))
    if way is Implementation.ONEDNN:
        return _by_onednn(x, weight, bias, cache, rows, columns)
    if not is_twin(way):
        return _laid_out(reference.causal_conv3d(x, weight, bias, cache, rows, columns))
    return _launch(x, weight, bias, cache, rows, columns)


@_causal_conv3d.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, cache: Tensor | None, padding: list[int]) -> Tensor:  # noqa: ARG001
    return _out_of(x, weight, *padding)


def causal_conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    cache: Tensor | None = None,
    padding: tuple[int, int] = (0, 0),
) -> Tensor:
    """[B, O, T, H', W'] channels-last of x [B, C, T, H, W] by a weight [O, C, t, h, w].

    `cache` [B, C, P, H, W] holds up to t - 1 frames before the first; those that are missing are zeros, as are
    `padding` rows and columns on each side. For inference: no gradients. ValueError for shapes that do not fit.
    """
    if x.ndim != 5 or weight.ndim != 5 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"x is {list(x.shape)} and the weight {list(weight.shape)}; "
            "they must be [batch, channels, frames, rows, columns] and [out, channels, taps of each]"
        )
    if min(size + 2 * pad - taps for size, pad, taps in zip(x.shape[3:], padding, weight.shape[3:], strict=True)) < 0:
        raise ValueError(
            f"frames of {list(x.shape[3:])} with padding {padding} are smaller than {list(weight.shape[3:])}"
        )
    if cache is not None and (
        (*cache.shape[:2], *cache.shape[3:]) != (*x.shape[:2], *x.shape[3:]) or cache.shape[2] >= weight.shape[2]
    ):
        raise ValueError(
            f"the cache is {list(cache.shape)}; x of {list(x.shape)} needs the same but for frames, "
            f"of which a filter of {weight.shape[2]} looks back at {weight.shape[2] - 1}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"the bias is {list(bias.shape)}; the weight needs [{weight.shape[0]}]")
    cache = None if cache is None else cache.contiguous(memory_format=_LAST)
    x, weight = (t.contiguous(memory_format=_LAST) for t in (x, weight))
    return _causal_conv3d(x, weight, bias, cache, list(padding))


def _default_for(x: Tensor, weight: Tensor) -> Implementation:
    """What convolves unless somebody asks: our twin in 16 bits on a GPU, oneDNN in fp32 on a CPU that has it.

    In fp32 our twin multiplies without matrix units, cuDNN with them (by TF32, unless torch is told otherwise). On a
    CPU torch takes a loop of its own for films as small as latents, which is slower than oneDNN by three or four.
    """
    if x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return Implementation.ONEDNN
    ours = x.is_cuda and x.dtype in {torch.float16, torch.bfloat16} and triton_installed()
    return Implementation.TRITON if ours else Implementation.REFERENCE


def _by_onednn(
    x: Tensor, weight: Tensor, bias: Tensor | None, cache: Tensor | None, row_padding: int, column_padding: int
) -> Tensor:
    missing = weight.shape[2] - 1 - (0 if cache is None else cache.shape[2])
    # Joined as they lie in memory, channels last: torch would join them channels first and turn the whole round.
    films = [t.permute(0, 2, 3, 4, 1) for t in ((x,) if cache is None else (cache, x))]
    if missing:
        batch, _, rows, columns, channels = films[-1].shape
        films.insert(0, x.new_zeros((batch, missing, rows, columns, channels)))
    seen = x if len(films) == 1 else torch.cat(films, 1).permute(0, 4, 1, 2, 3)
    padding, ones = [0, row_padding, column_padding], [1, 1, 1]
    out = torch.ops.aten.mkldnn_convolution(seen, weight, bias, padding, ones, ones, 1)
    return _laid_out(out)


def _laid_out(out: Tensor) -> Tensor:
    """Channels-last by the strides that are promised; of a single channel or pixel torch leaves them open."""
    _, channels, frames, rows, columns = out.shape
    row = columns * channels
    strides = (frames * rows * row, 1, rows * row, row, channels)
    return out.contiguous(memory_format=_LAST).as_strided(out.shape, strides)


def _out_of(x: Tensor, weight: Tensor, row_padding: int, column_padding: int) -> Tensor:
    rows = x.shape[3] + 2 * row_padding - weight.shape[3] + 1
    columns = x.shape[4] + 2 * column_padding - weight.shape[4] + 1
    return x.new_empty((x.shape[0], x.shape[2], rows, columns, weight.shape[0])).permute(0, 4, 1, 2, 3)


def _launch(
    x: Tensor, weight: Tensor, bias: Tensor | None, cache: Tensor | None, row_padding: int, column_padding: int
) -> Tensor:
    from kernels.gpu.conv3d import causal_conv3d as kernel  # noqa: PLC0415  it loads Triton

    batch, channels, frames, rows, columns = x.shape
    out = _out_of(x, weight, row_padding, column_padding)
    pixels = batch * frames * out.shape[3] * out.shape[4]
    configuration = configuration_of("causal_conv3d", x)
    # The last convolution makes three colours; a block of them need be no wider than a product can be.
    block_n = min(configuration.blocks["BLOCK_N"], max(16, next_power_of_2(weight.shape[0])))
    blocks = {**configuration.blocks, "BLOCK_N": block_n}
    launch(
        kernel,
        (-(-pixels // blocks["BLOCK_M"]), -(-weight.shape[0] // block_n)),
        *pointers(x, x, cache, weight, bias, out),
        pixels,
        frames,
        0 if cache is None else cache.shape[2],
        rows,
        columns,
        channels,
        weight.shape[0],
        row_padding,
        column_padding,
        *out.shape[3:],
        TAPS_T=weight.shape[2],
        TAPS_H=weight.shape[3],
        TAPS_W=weight.shape[4],
        CACHE=cache is not None,
        BIAS=bias is not None,
        **blocks,
        warps=configuration.warps,
        stages=configuration.stages,
    )
    return out
