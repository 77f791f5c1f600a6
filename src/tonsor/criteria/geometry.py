"""How a kernel meets a picture: what the norms of a convolution as a matrix depend on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from tonsor.anatomy import Anatomy
from tonsor.types import Conv

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Geometry:
    """A two-dimensional convolution, seen from the pieces it makes or from those it reads.

    A linear layer is a convolution of one pixel, and one along a line has height 1.
    """

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    input_size: Pair
    output_size: Pair
    made: bool = True

    def seen_from(self, made: bool) -> Geometry:
        """The same, for pieces that it makes (filters) or does not (input channels)."""
        return replace(self, made=made)


def geometries(anatomy: Anatomy) -> dict[str, Geometry]:
    """Return the geometry of every convolution and linear layer, by the names of its weight.

    A weight that is used on several pictures is told of the first. Transposed convolutions and
    those in three dimensions are left out.
    """
    graph, found = anatomy.graph, dict[str, Geometry]()
    for conv in anatomy.convs:
        if conv.weight and not conv.transposed and len(conv.kernel) <= 2:
            found.setdefault(conv.weight, _geometry(conv))
    one = Geometry((1, 1), (1, 1), (0, 0), (1, 1), (1, 1), (1, 1))
    for name, value in graph.parameters.items():
        if len(graph.values[value].shape) == 2:
            found.setdefault(graph.name_of[value], one)
        first = graph.name_of[value]
        if first in found:
            found[name] = found[first]
    return found


def kernels(view: Tensor, geometry: Geometry) -> Tensor:
    """Bring a view `[piece, ...]` of a weight into the form `[piece, other, height, width]`."""
    height, width = geometry.kernel
    return view.reshape(view.shape[0], -1, height, width)


def _geometry(conv: Conv) -> Geometry:
    def pair(sizes: tuple[int, ...], fill: int) -> Pair:
        return (fill, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])

    padding = conv.padding
    if any(isinstance(p, str) for p in padding):  # "same" and "valid", as conv2d takes them too
        same = padding[0] == "same"
        padding = tuple(
            d * (k - 1) // 2 if same else 0 for d, k in zip(conv.dilation, conv.kernel, strict=True)
        )
    return Geometry(
        kernel=pair(conv.kernel, 1),
        stride=pair(conv.stride, 1),
        padding=pair(padding, 0),
        dilation=pair(conv.dilation, 1),
        input_size=pair(conv.input_size, 1),
        output_size=pair(conv.output_size, 1),
    )
