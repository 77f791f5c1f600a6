"""How the window of a convolution moves over its input."""

from __future__ import annotations

from dataclasses import dataclass

from tonsor.errors import SurgeryError

Pair = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """Strides, what is padded before and behind, and dilations; of rows first, then of columns.

    >>> Window(stride=(2, 2), padding=((1, 1), (1, 0))).sizes((3, 3), (9, 8))
    (5, 4)
    """

    stride: Pair = (1, 1)
    padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
    dilation: Pair = (1, 1)

    def sizes(self, kernel: Pair, sides: Pair) -> Pair:
        """Return height and width of what comes out."""
        found = [
            (side + sum(pad) - dilation * (taps - 1) - 1) // stride + 1
            for side, pad, dilation, taps, stride in zip(
                sides, self.padding, self.dilation, kernel, self.stride, strict=True
            )
        ]
        if min(found) < 1:
            message = (
                f"a kernel of {kernel[0]}x{kernel[1]} with dilation {self.dilation} is larger than "
                f"an input of {sides[0]}x{sides[1]} with padding {self.padding}; pad more, or give "
                "a larger input"
            )
            raise SurgeryError(message)
        return found[0], found[1]
