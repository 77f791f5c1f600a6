"""Run a packed convolution on a GPU, or in Triton's interpreter.

Triton is imported when the first convolution runs. With `TRITON_INTERPRET=1` set by then, the
kernel runs on the CPU, slowly, which is good for trying it out.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from tonsor.errors import EngineError
from tonsor.kernels.gpu.blocks import Packed

# Pixels of a tile, warps, and stages of the pipeline, of which the fastest is taken on a GPU. Two
# of the stages go into reading the table, which says what is read next.
_TILES = ((64, 4, 5), (128, 4, 5), (128, 8, 3), (128, 8, 5), (256, 8, 3))
_FEW = 32  # pixels of a tile in the interpreter
_INT32 = 2**31 - 1
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def convolve(
    x: Tensor,
    packed: Packed,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    relu: bool = False,
    tf32: bool = False,
) -> Tensor:
    """Convolve `[image, channel, row, column]`, add bias and residual, and cut off below zero.

    Sums are made in float32. `tf32` lets float32 be rounded to 10 bits when it is multiplied, which
    tensor cores need. What comes out is laid out in memory as `x` is. There are no gradients.
    """
    _check(x, packed, bias, residual)
    rows, columns = packed.window.sizes(packed.kernel, (x.shape[2], x.shape[3]))
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    out = torch.empty(
        (x.shape[0], packed.outputs, rows, columns), dtype=x.dtype, device=x.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )  # fmt: skip
    pixels = x.shape[0] * rows * columns
    if not pixels:
        return out
    blocks = len(packed.filters)
    added = out if residual is None else residual
    given = (
        x.detach(), out, packed.weight, packed.table, packed.starts, packed.filters,
        packed.weight if bias is None else bias.detach().contiguous(), added.detach(),
        pixels, x.shape[2], x.shape[3], rows, columns, packed.outputs, blocks,
        *x.stride(), *out.stride(), *added.stride(), *packed.window.stride,
    )  # fmt: skip
    chosen: dict[str, Any] = {
        "BN": packed.block, "BK": packed.step, "RUNS": packed.runs, "FULL": packed.full,
        "INSIDE": not any(map(any, packed.window.padding)), "ALIGNED": packed.aligned,
        "ORDERED": packed.ordered, "BIAS": bias is not None, "RESIDUAL": residual is not None,
        "RELU": relu,
        "WIDE": any(_reach(t) > _INT32 for t in (x, out, added)),
        "PRECISION": "tf32" if tf32 else "ieee",
    }  # fmt: skip
    if interpreted():
        if x.dtype == torch.bfloat16:
            message = (
                "Triton's interpreter can't multiply bfloat16; try float16 or float32 there, or "
                "run on a GPU"
            )
            raise EngineError(message)
        _compiled()[(-(-pixels // _FEW) * blocks,)](*given, **chosen, BM=_FEW)
        return out
    if not x.is_cuda:
        message = (
            f"the Triton kernel runs on a GPU, but the input is on '{x.device}'; move input and "
            "weight to a GPU, or set TRITON_INTERPRET=1 before Python starts to try it slowly"
        )
        raise EngineError(message)
    with torch.cuda.device(x.device):
        _tuned()[lambda tile: (-(-pixels // tile["BM"]) * blocks,)](*given, **chosen)
    return out


def available() -> bool:
    """Whether there are a GPU and a Triton to run the kernel."""
    return torch.cuda.is_available() and importlib.util.find_spec("triton") is not None


def interpreted() -> bool:
    """Whether the kernel runs in Triton's interpreter."""
    return type(_compiled()).__name__ == "InterpretedFunction"


def _triton() -> Any:
    try:
        return importlib.import_module("triton")
    except ImportError as error:
        message = (
            "the kernel for GPUs needs Triton, which can't be imported "
            f"({error}); install it: pip install 'triton>=3.4'"
        )
        raise EngineError(message) from error


@lru_cache(maxsize=1)
def _compiled() -> Any:
    triton = _triton()
    from tonsor.kernels.gpu.kernel import fibre_conv  # which imports Triton, if it is there

    return triton.jit(fibre_conv)


@lru_cache(maxsize=1)
def _tuned() -> Any:
    triton = _triton()
    tiles = [
        triton.Config({"BM": pixels}, num_warps=warps, num_stages=stages)
        for pixels, warps, stages in _TILES
    ]
    about = ["pixels", "outputs", "blocks", "rows", "x_c", "BN", "BK", "RUNS"]
    return triton.autotune(configs=tiles, key=about)(_compiled())


def _reach(x: Tensor) -> int:
    """How far the last element is from the first one."""
    return sum((n - 1) * step for n, step in zip(x.shape, x.stride(), strict=True))


def _check(x: Tensor, packed: Packed, bias: Tensor | None, residual: Tensor | None) -> None:
    if x.dim() != 4 or x.shape[1] != packed.inputs:
        message = (
            f"the layer takes [image, {packed.inputs}, row, column], but the input is "
            f"{tuple(x.shape)}; give it what the packed convolution took"
        )
        raise EngineError(message)
    held = {"weight": packed.weight, "bias": bias, "residual": residual}
    for name, tensor in held.items():
        if tensor is not None and (tensor.dtype != x.dtype or tensor.device != x.device):
            message = (
                f"the input is {x.dtype} on '{x.device}', but the {name} is {tensor.dtype} on "
                f"'{tensor.device}'; bring both to one kind and one device"
            )
            raise EngineError(message)
    if x.dtype not in _DTYPES:
        message = (
            f"the kernel computes in float32, float16 and bfloat16, not in {x.dtype}; convert "
            "input and weight"
        )
        raise EngineError(message)
    if bias is not None and bias.shape != (packed.outputs,):
        message = (
            f"the layer has {packed.outputs} filters, but the bias is {tuple(bias.shape)}; give "
            "one number for each filter"
        )
        raise EngineError(message)
    if residual is not None:
        sides = packed.window.sizes(packed.kernel, (x.shape[2], x.shape[3]))
        whole = (x.shape[0], packed.outputs, *sides)
        if residual.shape != whole:
            message = (
                f"what comes out is {whole}, but the residual is {tuple(residual.shape)}; give one "
                "of the same shape"
            )
            raise EngineError(message)
