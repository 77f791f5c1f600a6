"""Convolutions, plain, grouped and transposed: channels are followed, space is data."""

from __future__ import annotations

from tonsor.axes.registry import rule
from tonsor.axes.solver import Axes, Solver
from tonsor.types import Op

SLIDES = "a window slides along this axis"


@rule(
    "aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution", "aten._convolution",
    "aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d",
)  # fmt: skip
def convolution(s: Solver, op: Op) -> list[Axes]:
    """Input channels are (groups × weight's), output channels are the weight's."""
    x, weight, bias = s.axes_of(op, "input", "weight", "bias")
    groups = op.get("groups", 1)
    transposed = "transpose" in op.name or bool(op.get("transposed", False))
    batched = len(x) == len(weight)
    channels = x[1] if batched else x[0]
    for node in x[2 if batched else 1 :]:
        s.positions(node, SLIDES)
    for node in weight[2:]:
        s.pin(node, "kernel", "a position of the kernel")
    w_in, w_out = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    if groups == 1:
        s.unify(channels, w_in)
        out = w_out
    else:
        outer, inner = s.split(channels, [groups, channels.size // groups])
        if transposed:
            s.unify(channels, w_in)
            out = s.product([outer, w_out])
        else:
            s.unify(inner, w_in)
            outer_out, _ = s.split(w_out, [groups, w_out.size // groups])
            s.unify(outer, outer_out)
            out = w_out
        s.sized(op, "groups", None, outer)
    if bias:
        s.unify(out, bias[0])
    if not s.is_zeroed(op["weight"]):
        s.mix([channels], "a convolution with a computed kernel", approximate=False)
    space = [s.data(n, "a spatial axis") for n in s.out_shape(op)[2 if batched else 1 :]]
    return [[x[0], out, *space] if batched else [out, *space]]
