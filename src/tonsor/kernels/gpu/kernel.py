"""The kernel: a convolution as one product of matrices, whose left one is read from the input.

A program computes a tile of `BM` pixels by one block of filters. It goes through the chunks of the
block's list; of each it reads `[pixel, tap]` of the input, where the window is inside of it, and
`[tap, filter]` of the weights. All strides are given, so any layout of the input will do.

It is a plain function here, which `launch` compiles: whoever imports this needs no Triton. Inside,
only what is built into the language is used, none of Triton's own functions.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    tl: Any
    constexpr = Any
else:
    tl = constexpr = None
    with suppress(ImportError):
        import triton.language as tl
        from triton.language import constexpr


def fibre_conv(
    x, out, weight, table, starts, filters, bias, residual,
    pixels, rows, columns, out_rows, out_columns, outputs, blocks,
    x_n, x_c, x_h, x_w, out_n, out_c, out_h, out_w, res_n, res_c, res_h, res_w,
    stride_h, stride_w,
    BM: constexpr, BN: constexpr, BK: constexpr,
    RUNS: constexpr, FULL: constexpr, ALIGNED: constexpr, INSIDE: constexpr, ORDERED: constexpr,
    BIAS: constexpr, RESIDUAL: constexpr, RELU: constexpr,
    WIDE: constexpr, PRECISION: constexpr,
):  # fmt: skip
    """Convolve; `rows` and `columns` are the input's, `INSIDE` that the window never leaves it."""
    program = tl.program_id(0)
    # The blocks of the same pixels run one after the other, and find the input in the cache.
    block, tile = program % blocks, program // blocks
    if WIDE:
        tile = tile.to(tl.int64)
    pixel = tile * BM + tl.arange(0, BM)
    there = pixel < pixels
    image = pixel // (out_rows * out_columns)
    place = pixel % (out_rows * out_columns)
    row, column = place // out_columns, place % out_columns
    base = image * x_n + row * stride_h * x_h + column * stride_w * x_w
    ahead = tl.arange(0, BK)
    lane = tl.arange(0, BN)
    acc = tl.full((BM, BN), 0.0, tl.float32)
    for chunk in range(tl.load(starts + block), tl.load(starts + block + 1)):
        if RUNS:
            entry = table + chunk * 4
            channel = tl.load(entry)
            if ALIGNED:
                channel = tl.multiple_of(channel, 16)
            down, right = tl.load(entry + 1), tl.load(entry + 2)
            if WIDE:
                channel, down, right = (
                    channel.to(tl.int64), down.to(tl.int64), right.to(tl.int64)
                )  # fmt: skip
            offset = (channel + ahead) * x_c + down * x_h + right * x_w
            inside = there
            if not INSIDE:
                y, z = row * stride_h + down, column * stride_w + right
                inside = inside & (y >= 0) & (y < rows) & (z >= 0) & (z < columns)
            inside = inside[:, None]
            if not FULL:
                inside = inside & (ahead < tl.load(entry + 3))[None, :]
        else:
            entry = table + (chunk * BK + ahead) * 4
            channel = tl.load(entry)
            down, right = tl.load(entry + 1), tl.load(entry + 2)
            if WIDE:
                channel, down, right = (
                    channel.to(tl.int64), down.to(tl.int64), right.to(tl.int64)
                )  # fmt: skip
            offset = channel * x_c + down * x_h + right * x_w
            inside = there[:, None]
            if not FULL:
                inside = inside & (tl.load(entry + 3) > 0)[None, :]
            if not INSIDE:
                y = (row * stride_h)[:, None] + down[None, :]
                z = (column * stride_w)[:, None] + right[None, :]
                inside = inside & (y >= 0) & (y < rows) & (z >= 0) & (z < columns)
        read = tl.load(x + base[:, None] + offset[None, :], mask=inside, other=0.0)
        by = tl.load(weight + (chunk * BK + ahead)[:, None] * BN + lane[None, :])
        acc = tl.dot(read, by, acc, input_precision=PRECISION)
    if ORDERED:
        index = block * BN + lane
        wanted = index < outputs
    else:
        index = tl.load(filters + block * BN + lane)
        wanted = index >= 0
    if BIAS:
        acc += tl.load(bias + index, mask=wanted, other=0.0).to(tl.float32)[None, :]
    both = there[:, None] & wanted[None, :]
    if WIDE:
        index = index.to(tl.int64)
    if RESIDUAL:
        at = (image * res_n + row * res_h + column * res_w)[:, None] + (index * res_c)[None, :]
        acc += tl.load(residual + at, mask=both, other=0.0).to(tl.float32)
    if RELU:
        # A comparison that NaN survives, as it does in torch.
        acc = tl.where(acc < 0.0, 0.0, acc)
    at = (image * out_n + row * out_h + column * out_w)[:, None] + (index * out_c)[None, :]
    tl.store(out + at, acc.to(out.dtype.element_ty), mask=both)
