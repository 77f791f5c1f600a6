"""The Triton kernel as a way to run a layer on a GPU."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.deploy.layers import FusedConv, pads_of
from tonsor.errors import DeployError
from tonsor.kernels.gpu.blocks import Packed, pack
from tonsor.kernels.gpu.devices import Device, Rate, device_of
from tonsor.kernels.gpu.launch import convolve
from tonsor.kernels.gpu.roofline import Layer, choose
from tonsor.kernels.gpu.window import Window
from tonsor.surgery.fibre_conv import FibreConv, taken_down
from tonsor.surgery.shifts import autocast

_RATES: dict[torch.dtype, Rate] = {
    torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16",
}  # fmt: skip
_MOVED = ("weight", "table", "starts", "filters")


class GpuConv(nn.Module):
    """Runs a layer by the Triton kernel, from weights that were packed for it.

    `last` says whether images are brought to it with their channels last, or first. In graphs, with
    gradients, and where the kernel can't run, such as on a CPU, the layer runs as it was.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, fused: FusedConv, *, last: bool = True) -> None:
        super().__init__()
        conv = fused.conv
        if fused.rank != 2 or conv.padding_mode != "zeros":
            message = (
                "the Triton kernel runs convolutions along two dimensions that are padded with "
                f"zeros, but this is {conv}; leave it to the other ways"
            )
            raise DeployError(message)
        self.reference = fused
        self.last, self.relu = last, fused.relu
        packed = _packed(conv)
        for name in _MOVED:
            self.register_buffer(name, getattr(packed, name))
        self.register_buffer("bias", None if conv.bias is None else conv.bias.detach().clone())
        self._said = {n: getattr(packed, n) for n in Packed.__slots__ if n not in _MOVED}

    @property
    def packed(self) -> Packed:
        """The packed weight, where and of which type this layer is now."""
        return Packed(**{name: self._buffers[name] for name in _MOVED}, **self._said)  # type: ignore[arg-type]

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Compute it."""
        if not self._takes(x, residual):
            return self.reference(x, residual)
        laid = torch.channels_last if self.last else torch.contiguous_format
        x = x.contiguous(memory_format=laid)
        tf32 = x.dtype == torch.float32 and allows_tf32()
        return convolve(x, self.packed, self.bias, residual, relu=self.relu, tf32=tf32)

    def _takes(self, x: Tensor, residual: Tensor | None) -> bool:
        if taken_down() or type(x) is not Tensor or not on_a_gpu(x):
            return False
        learns = x.requires_grad or (residual is not None and residual.requires_grad)
        return (
            x.dim() == 4
            and x.dtype in _RATES
            and not (learns and torch.is_grad_enabled())
            and not autocast(x)
            and has_triton()
        )

    def extra_repr(self) -> str:
        """Say what it is."""
        packed = self.packed
        text = f"{packed.inputs}, {packed.outputs}, {packed.kernel}, block={packed.block}"
        return f"{text}, executed={packed.executed:.2f}" + (", relu" if self.relu else "")


def gpu_ways(fused: FusedConv, x: Tensor) -> dict[str, nn.Module]:
    """Return what may run a layer of stripes or columns by the Triton kernel, to be timed.

    Where there is a GPU, but the kernel is no use, the error says why. Columns are read faster
    with channels first, but bringing them there takes time; so both are to be timed.
    """
    conv = fused.conv
    if not on_a_gpu(x) or not isinstance(conv, FibreConv) or x.dim() != 4 or fused.rank != 2:
        return {}
    if conv.padding_mode != "zeros":
        return {}
    if not has_triton():
        message = "Triton is not installed: pip install 'triton>=3.4'"
        raise DeployError(message)
    if x.dtype not in _RATES:
        message = f"not for {x.dtype}: float32, float16 or bfloat16"
        raise DeployError(message)
    made = GpuConv(fused)
    _worth_it(made.packed, x, conv.groups)
    ways: dict[str, nn.Module] = {"nhwc": made}
    if conv.kind == "columns":
        ways["nchw"] = GpuConv(fused, last=False)
    return ways


def _worth_it(packed: Packed, x: Tensor, groups: int) -> None:
    """Say why, if the kernel can't be expected to be faster than the dense convolution."""
    layer = Layer(
        packed.inputs, packed.outputs, (x.shape[2], x.shape[3]), packed.kernel, packed.window,
        groups,
    )  # fmt: skip
    rate = "tf32" if x.dtype == torch.float32 and allows_tf32() else _RATES[x.dtype]
    device = _known_or_measured(x.device.index or 0)
    choice = choose(layer, x.shape[0], rate, packed.executed, device, block=packed.block)
    if choice.run != "kernel":
        raise DeployError(choice.reason)


def _packed(conv: Any) -> Packed:
    top_bottom, left_right = pads_of(conv)
    window = Window(_two(conv.stride), (top_bottom, left_right), _two(conv.dilation))
    if not isinstance(conv, FibreConv):
        return pack(conv.weight, window=window, groups=conv.groups)
    mask = conv.kept.detach().cpu().numpy().reshape(len(conv.kept), -1)
    return pack(conv.dense_weight(), mask, conv.kind, window=window, groups=conv.groups)


@cache
def _known_or_measured(index: int) -> Device:
    """Measuring takes a second or so, so that is done once."""
    return device_of(index)


def on_a_gpu(x: Tensor) -> bool:
    """Whether a tensor lies where the kernel runs."""
    return x.is_cuda


@cache
def has_triton() -> bool:
    """Whether Triton is installed; it is not imported for that."""
    return importlib.util.find_spec("triton") is not None


def allows_tf32() -> bool:
    """Whether torch's own convolutions may round float32 to 10 bits.

    The older flags set this one too, but can't always be read.
    """
    cudnn: Any = torch.backends.cudnn
    return cudnn.conv.fp32_precision == "tf32"


def _two(numbers: Any) -> tuple[int, int]:
    first, second = numbers
    return int(first), int(second)
