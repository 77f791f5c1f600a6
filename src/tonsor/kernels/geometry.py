"""What a convolution in two dimensions is, beside its weights."""

from __future__ import annotations

from dataclasses import dataclass

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of a convolution; `padding` is what is added above, below, left and right.

    >>> shape = Geometry(64, 32, (3, 3), padding=(1, 1, 1, 1), stride=(2, 2))
    >>> shape.out_size((56, 57))
    (28, 29)
    """

    in_channels: int
    out_channels: int
    kernel: Pair
    stride: Pair = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def positions(self) -> int:
        """How many places the kernel has."""
        return self.kernel[0] * self.kernel[1]

    @property
    def inputs(self) -> int:
        """How many inputs a filter has."""
        return self.in_channels // self.groups

    @property
    def filters(self) -> int:
        """How many filters a group has."""
        return self.out_channels // self.groups

    def out_size(self, size: Pair) -> Pair:
        """Return how high and wide the output is for an input of this size."""
        top, bottom, left, right = self.padding
        height = (size[0] + top + bottom - self.dilation[0] * (self.kernel[0] - 1) - 1)
        width = (size[1] + left + right - self.dilation[1] * (self.kernel[1] - 1) - 1)
        return height // self.stride[0] + 1, width // self.stride[1] + 1
