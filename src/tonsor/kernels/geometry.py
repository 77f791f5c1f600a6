"""What a convolution in two dimensions is, beside its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tonsor.errors import EngineError

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

    def __post_init__(self) -> None:
        least = (self.in_channels, self.out_channels, *self.kernel, *self.stride, *self.dilation)
        divided = self.groups > 0 and not (
            self.in_channels % self.groups or self.out_channels % self.groups
        )
        if min(least) < 1 or min(self.padding) < 0 or not divided:
            message = (
                f"there is no convolution like {self}: sizes are 1 at least, padding is 0 at "
                "least, and groups divide the channels; correct it"
            )
            raise EngineError(message)

    @classmethod
    def of(cls, numbers: Sequence[int]) -> Geometry:
        """Read what `numbers` says."""
        channels, filters, a, b, c, d, e, f, g, h, i, j, groups = numbers
        return cls(channels, filters, (a, b), (c, d), (e, f, g, h), (i, j), groups)

    @property
    def numbers(self) -> list[int]:
        """All of it in a row, as an operator takes it.

        >>> shape = Geometry(64, 32, (3, 3), padding=(1, 2, 0, 1), groups=2)
        >>> Geometry.of(shape.numbers) == shape
        True
        """
        return [
            self.in_channels, self.out_channels, *self.kernel, *self.stride, *self.padding,
            *self.dilation, self.groups,
        ]  # fmt: skip

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
        height = size[0] + top + bottom - self.dilation[0] * (self.kernel[0] - 1) - 1
        width = size[1] + left + right - self.dilation[1] * (self.kernel[1] - 1) - 1
        return height // self.stride[0] + 1, width // self.stride[1] + 1
