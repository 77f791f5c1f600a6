"""Run operators on shapes alone, past what torch's fake tensors do to find them.

A fake tensor mode takes hundreds of microseconds, for norms milliseconds, to find the shape of
a result it has not seen before, and trials run each operator in sizes never seen. Most of that
time is spent around the kernel that knows the answer. So here the kernel is called at once
where nothing else matters (`_DIRECT`), and where it is written in Python its shape is worked
out (`_WORKED_OUT`). Everything else, and whatever is unusual, is left to the mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, in_kernel_invocation_manager

from tonsor.graph.fake import Faker
from tonsor.graph.record import Execute

_VIEWS = """alias chunk contiguous detach expand expand_as flatten movedim narrow permute reshape
    select slice split split_with_sizes squeeze swapaxes t transpose unbind unflatten unsqueeze
    view view_as"""
_POINTWISE = """abs add bitwise_and bitwise_or clamp clamp_max clamp_min clone cos div elu eq erf
    exp ge gelu gt hardsigmoid hardswish hardtanh le leaky_relu log logical_and logical_not
    logical_or log_softmax lt masked_fill maximum minimum mish mul ne neg pow reciprocal relu
    rsqrt rsub sigmoid silu sin softmax softplus sqrt sub tanh tril triu where"""
_IN_PLACE = """add_ clamp_ div_ hardswish_ hardtanh_ leaky_relu_ mul_ relu_ sigmoid_ silu_ sub_
    tanh_"""
_ONE_BY_ONE = "cos gelu neg relu rsqrt sigmoid silu sin tanh"
_OTHERS = """adaptive_avg_pool1d adaptive_avg_pool2d amax amin avg_pool1d avg_pool2d bmm
    cat conv1d conv2d conv3d dropout embedding logsumexp matmul max_pool1d max_pool2d mean mm pad
    roll stack sum"""
_DIRECT = frozenset(f"aten.{n}" for n in f"{_VIEWS} {_POINTWISE} {_IN_PLACE} {_OTHERS}".split())


def executor(faker: Faker) -> Execute:
    """Return what runs the operators of a recorded run on these fakes."""

    def execute(index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return run(faker, func, args, kwargs)

    return execute


def run(faker: Faker, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator on fakes of one mode, under that mode."""
    name = str(func.overloadpacket)
    worked_out = _WORKED_OUT.get(name)
    if worked_out is not None and (not kwargs or name == "aten.gelu"):
        found = worked_out(args)
        if found is not None and _one_device(args) is not None:
            return faker.blank(*found)
    if name in _DIRECT or func is torch.ops.aten.to.dtype:
        device = _one_device((*args, *kwargs.values()))
        if device is not None and (name not in _CAREFUL or _CAREFUL[name](*args[:2])):
            try:
                with in_kernel_invocation_manager(faker.mode):
                    out = func(*args, **kwargs)
            except Exception:  # noqa: BLE001  the mode has more ways, and says what is wrong
                return func(*args, **kwargs)
            return _as_fakes(faker, out, device)
    return func(*args, **kwargs)


def _one_device(values: Any) -> torch.device | None:
    """Return the device of all tensors, if they are fakes without a value, and on one."""
    device = None
    for value in values:
        for tensor in value if isinstance(value, (list, tuple)) else (value,):
            if not isinstance(tensor, Tensor):
                continue
            if not isinstance(tensor, FakeTensor) or tensor.constant is not None:
                return None
            if device is not None and tensor.fake_device != device:
                return None
            device = tensor.fake_device
    return device


def _as_fakes(faker: Faker, out: Any, device: torch.device) -> Any:
    if isinstance(out, FakeTensor):  # what was given, changed in place or let through
        return out
    if isinstance(out, Tensor):
        return FakeTensor(faker.mode, out, device)
    return type(out)(_as_fakes(faker, t, device) for t in out)


# ---------------------------------------------------------------- shapes worked out

# A tensor to take device and dtype from, a shape, and strides if they are not those of a new
# tensor. None where it is not so simple.
Found = tuple[Tensor, Sequence[int], Sequence[int] | None] | None


def _linear(args: tuple[Any, ...]) -> Found:
    x, weight = args[:2]
    bias = args[2] if len(args) > 2 else None
    fits = x.dim() > 1 and weight.dim() == 2 and x.shape[-1] == weight.shape[1]
    if not fits or not _alike(x, weight, bias) or not in_order(x):
        return None
    if bias is not None and bias.shape != weight.shape[:1]:
        return None
    return x, (*x.shape[:-1], weight.shape[0]), None


def _addmm(args: tuple[Any, ...]) -> Found:
    bias, x, weight = args
    fits = x.dim() == weight.dim() == 2 and x.shape[1] == weight.shape[0]
    if not fits or bias.shape != weight.shape[1:] or not _alike(x, weight, bias):
        return None
    return x, (x.shape[0], weight.shape[1]), None


def _unchanged(args: tuple[Any, ...]) -> Found:
    return _same(args[0]) if _alike(args[0]) else None


def _binary(args: tuple[Any, ...]) -> Found:
    """Two of one shape, or one that is stretched to the other, or a number."""
    if len(args) != 2:
        return None
    x, y = args
    if not isinstance(x, Tensor) or (isinstance(y, Tensor) and y.dim() > x.dim()):
        x, y = y, x
    if not _alike(x):
        return None
    if type(y) in (int, float):
        return _same(x)
    if not isinstance(y, Tensor) or y.dtype != x.dtype:
        return None
    if x.shape == y.shape and x.stride() == y.stride():
        return _same(x)
    inner = x.shape[x.dim() - y.dim() :]
    stretches = all(b in (1, a) for a, b in zip(inner, y.shape, strict=True))
    if not stretches:
        return None
    if in_order(x, y):
        return x, x.shape, None
    return _same(x) if x is args[0] else None  # the first has the say over the order


def _mean(args: tuple[Any, ...]) -> Found:
    x = args[0]
    dims = args[1] if len(args) > 1 else None
    keep = len(args) > 2 and args[2]
    if not dims or not _alike(x) or not in_order(x) or not _in_range(dims, x):
        return None
    gone = {d % x.dim() for d in dims}
    if len(gone) < len(dims):
        return None
    sizes = enumerate(x.shape)
    if keep:
        return x, [1 if d in gone else n for d, n in sizes], None
    return x, [n for d, n in sizes if d not in gone], None


def _roll(args: tuple[Any, ...]) -> Found:
    x, dims = args[0], args[2] if len(args) > 2 else ()
    return (x, x.shape, None) if _alike(x) and in_order(x) and _in_range(dims, x) else None


def _cat(args: tuple[Any, ...]) -> Found:
    parts, dim = args[0], args[1] if len(args) > 1 else 0
    x = parts[0]
    if not _alike(*parts) or not _in_range((dim,), x):
        return None
    shapes = [list(t.shape) for t in parts]
    total = sum(s.pop(dim) for s in shapes if len(s) == x.dim())
    if any(s != shapes[0] for s in shapes) or not all(_channels_outside(t) for t in parts):
        return None
    whole = list(x.shape)
    whole[dim] = total
    return x, whole, None


def _batch_norm(args: tuple[Any, ...]) -> Found:
    x, *vectors = args[:5]
    if x.dim() < 2 or args[5] or not _alike(x, *vectors):
        return None
    if not in_order(x) and not (x.dim() == 4 and x.stride() == _channels_last(x)):
        return None
    if any(v is not None and v.shape != x.shape[1:2] for v in vectors):
        return None
    return _same(x)


def _layer_norm(args: tuple[Any, ...]) -> Found:
    x, over, *vectors = args[:4]
    inner = x.shape[-len(over) :] if 0 < len(over) <= x.dim() else None
    if inner is None or inner != tuple(over) or not in_order(x) or not _alike(x, *vectors):
        return None
    if any(v is not None and v.shape != inner for v in vectors):
        return None
    return _same(x)


def _rms_norm(args: tuple[Any, ...]) -> Found:
    return _layer_norm(args[:3])


def _group_norm(args: tuple[Any, ...]) -> Found:
    x, groups, *vectors = args[:4]
    fits = x.dim() > 1 and groups > 0 and x.shape[1] % groups == 0
    if not fits or not in_order(x) or not _alike(x, *vectors):
        return None
    if any(v is not None and v.shape != x.shape[1:2] for v in vectors):
        return None
    return _same(x)


_WORKED_OUT: dict[str, Callable[[tuple[Any, ...]], Found]] = {
    "aten.linear": _linear,
    "aten.addmm": _addmm,
    **dict.fromkeys((f"aten.{n}" for n in ("add", "sub", "mul", "div", "pow")), _binary),
    **dict.fromkeys(
        (
            f"aten.{n}"
            for n in ["relu", "gelu", "silu", "tanh", "sigmoid", "rsqrt", "neg", "cos", "sin"]
        ),
        _unchanged,
    ),
    "aten.mean": _mean,
    "aten.cat": _cat,
    "aten.roll": _roll,
    "aten.batch_norm": _batch_norm,
    "aten.layer_norm": _layer_norm,
    "aten.rms_norm": _rms_norm,
    "aten.group_norm": _group_norm,
}


def _plain(x: Tensor, weight: Tensor) -> bool:
    return in_order(x, weight) and _alike(x, weight)


# Direct only if the first two arguments are like this: the order of a convolution's result
# depends on theirs, and the kernels of products let dtypes pass that do not fit.
_CAREFUL: dict[str, Callable[[Tensor, Tensor], bool]] = {
    **dict.fromkeys(("aten.conv1d", "aten.conv2d", "aten.conv3d"), _plain),
    **dict.fromkeys(("aten.matmul", "aten.mm", "aten.bmm"), lambda x, y: _alike(x, y)),
}


def _alike(x: Tensor, *others: Tensor | None) -> bool:
    """Whether all are of one floating dtype, and there is something in them."""
    if not x.dtype.is_floating_point or prod(x.shape) == 0:
        return False
    return all(t is None or t.dtype == x.dtype for t in others)


def _same(x: Tensor) -> Found:
    """Give a result the place in memory that `x` has, if that has neither gaps nor overlaps."""
    stride = x.stride()
    expected = 1
    for step, size in sorted(zip(stride, x.shape, strict=True)):
        if size > 1:
            if step != expected:
                return None
            expected *= size
    return x, x.shape, stride


def _in_range(dims: Sequence[int], x: Tensor) -> bool:
    return all(-x.dim() <= d < x.dim() for d in dims)


def in_order(*tensors: Tensor) -> bool:
    """Whether the strides are those of new tensors, even where a size of one allows others."""
    for tensor in tensors:
        expected = 1
        for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
            if stride != expected:
                return False
            expected *= size
    return True


def _channels_last(x: Tensor) -> tuple[int, ...]:
    _, channels, height, width = x.shape
    return channels * height * width, 1, channels * width, channels


def _channels_outside(tensor: Tensor) -> bool:
    """Whether torch can't take a tensor for one with its channels last."""
    return tensor.dim() < 4 or tensor.stride(1) > tensor.stride(-1) or in_order(tensor)
