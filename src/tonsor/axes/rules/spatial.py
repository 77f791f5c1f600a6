"""Pooling, resizing, padding and other operators over space."""

from __future__ import annotations

from tonsor.axes.registry import rule
from tonsor.axes.rules.conv import SLIDES
from tonsor.axes.solver import Axes, Node, Solver
from tonsor.types import Op

_KINDS = (
    "avg_pool{n}d", "max_pool{n}d", "max_pool{n}d_with_indices", "adaptive_avg_pool{n}d",
    "_adaptive_avg_pool{n}d", "adaptive_max_pool{n}d", "lp_pool{n}d", "reflection_pad{n}d",
    "replication_pad{n}d", "_reflection_pad{n}d", "fractional_max_pool{n}d", "max_unpool{n}d",
)  # fmt: skip
_RESIZES = (
    "nearest1d", "nearest2d", "nearest3d", "linear1d", "bilinear2d", "bicubic2d", "trilinear3d",
    "_nearest_exact1d", "_nearest_exact2d", "_nearest_exact3d",
)  # fmt: skip


def _window(s: Solver, op: Op, space: int) -> list[Axes]:
    x = s.of(next(op.inputs))
    for node in x[len(x) - space :]:
        s.positions(node, SLIDES)
    outputs: list[Axes] = []
    for i in range(len(op.outputs)):
        shape = s.out_shape(op, i)
        fresh = [s.data(n, "a spatial axis") for n in shape[len(x) - space :]]
        outputs.append([*x[: len(x) - space], *fresh])
    return outputs


def _register(space: int) -> None:
    def window(s: Solver, op: Op) -> list[Axes]:
        """Channels pass through; the last axes are space."""
        return _window(s, op, space)

    rule(*(f"aten.{kind.format(n=space)}" for kind in _KINDS))(window)
    rule(*(f"aten.upsample_{k}" for k in _RESIZES if k.endswith(f"{space}d")))(window)


for _space in (1, 2, 3):
    _register(_space)


@rule("aten._upsample_bilinear2d_aa", "aten._upsample_bicubic2d_aa")
def upsample_aa(s: Solver, op: Op) -> list[Axes]:
    """Antialiased resizing of images."""
    return _window(s, op, 2)


@rule("aten.pad", "aten.constant_pad_nd")
def pad(s: Solver, op: Op) -> list[Axes]:
    """A padded axis is (padding ⊕ axis ⊕ padding); the padding is a literal."""
    axes = list(s.of(op["self"]))
    amounts = list(op["pad"])
    constant = op.get("mode", "constant") == "constant"
    for i in range(len(amounts) // 2):
        dim = len(axes) - 1 - i
        low, high = amounts[2 * i], amounts[2 * i + 1]
        if low == high == 0:
            continue
        if low < 0 or high < 0 or not constant:
            s.positions(axes[dim], "padding that depends on positions")
            axes[dim] = s.data(axes[dim].size + low + high, "a padded axis")
            continue
        parts = [_padding(s, low), axes[dim], _padding(s, high)]
        axes[dim] = s.concat([p for p in parts if p is not None])
    return [axes]


def _padding(s: Solver, amount: int) -> Node | None:
    if not amount:
        return None
    node = s.fresh(amount)
    s.pin(node, "literal", f"{amount} indices of padding, a number written in the code")
    return node


@rule("aten.pixel_shuffle")
def pixel_shuffle(s: Solver, op: Op) -> list[Axes]:
    """Channels (c × r²) become c channels on a finer grid."""
    x = s.of(op["self"])
    lead, channels = x[:-3], x[-3]
    r = op["upscale_factor"]
    outer, inner = s.split(channels, [channels.size // (r * r), r * r])
    s.positions(inner, "pixel_shuffle turns these channels into pixels")
    return [[*lead, outer, *_grid(s, op)]]


@rule("aten.pixel_unshuffle")
def pixel_unshuffle(s: Solver, op: Op) -> list[Axes]:
    """Pixels become (c × r²) channels."""
    x = s.of(op["self"])
    r = op["downscale_factor"]
    pixels = s.data(r * r, "pixels made channels by pixel_unshuffle")
    return [[*x[:-3], s.product([x[-3], pixels]), *_grid(s, op)]]


def _grid(s: Solver, op: Op) -> Axes:
    return [s.data(n, "a spatial axis") for n in s.out_shape(op)[-2:]]


@rule("aten.channel_shuffle", "aten.native_channel_shuffle")
def channel_shuffle(s: Solver, op: Op) -> list[Axes]:
    """Channels (g × n) become (n × g)."""
    x = list(s.of(op["self"]))
    g = op["groups"]
    outer, inner = s.split(x[1], [g, x[1].size // g])
    s.sized(op, "groups", None, outer)
    x[1] = s.product([inner, outer])
    return [x]


@rule("aten.grid_sampler", "aten.grid_sampler_2d", "aten.grid_sampler_3d")
def grid_sampler(s: Solver, op: Op) -> list[Axes]:
    """Channels of the image, space of the grid."""
    x, grid = s.axes_of(op, "input", "grid")
    s.unify(x[0], grid[0])
    for node in (*x[2:], grid[-1]):
        s.positions(node, "sampled at computed places")
    return [[x[0], x[1], *grid[1:-1]]]


@rule("aten.im2col")
def im2col(s: Solver, op: Op) -> list[Axes]:
    """Channels become (c × kernel positions), space one axis."""
    x = s.of(op["self"])
    for node in x[-2:]:
        s.positions(node, SLIDES)
    shape = s.out_shape(op)
    kernel = s.data(shape[-2] // x[-3].size, "a position of the kernel")
    return [[*x[:-3], s.product([x[-3], kernel]), s.data(shape[-1], "a spatial axis")]]


@rule("aten.col2im")
def col2im(s: Solver, op: Op) -> list[Axes]:
    """(c × kernel positions) become channels again."""
    x = s.of(op["self"])
    kernel = op["kernel_size"][0] * op["kernel_size"][1]
    outer, inner = s.split(x[-2], [x[-2].size // kernel, kernel])
    s.positions(inner, "a position of the kernel")
    s.positions(x[-1], SLIDES)
    return [[*x[:-2], outer, *_grid(s, op)]]
