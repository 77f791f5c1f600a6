"""The Gram matrix of a convolution: as it is, by its frequencies, and acting on pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tonsor.criteria.line import Line, Lines

BLOCK = 1 << 23  # how many numbers are held at a time


def gram(taps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the Gram matrices `[piece, position, position]` of convolutions.

    `taps` `[piece, tap, tap]` has the products of the taps of a piece, over both directions, and
    `rows` and `columns` say how often two taps of two positions meet in each direction.
    """
    rows, columns = rows.to(taps), columns.to(taps)
    pieces, high, wide = len(taps), rows.shape[0], columns.shape[0]
    pairs = taps.view(pieces, high, wide, high, wide).transpose(2, 3)
    half = pairs.reshape(pieces, high**2, wide**2) @ columns.reshape(wide**2, -1)
    full = (rows.reshape(high**2, -1).T @ half).view(pieces, *rows.shape[2:], *columns.shape[2:])
    return full.transpose(2, 3).reshape(
        pieces, rows.shape[2] * columns.shape[2], rows.shape[3] * columns.shape[3]
    )


def eigenvalues(taps: Tensor, lines: Lines) -> Tensor:
    """Return the squared singular values of convolutions, all of them: `[piece, position]`."""
    rows, columns = lines[0].meetings(), lines[1].meetings()
    some = max(1, BLOCK // (4 * (lines[0].positions * lines[1].positions) ** 2))
    found = [torch.linalg.eigvalsh(gram(t, rows, columns)) for t in taps.split(some)]
    return torch.cat(found).clamp(min=0)


def symbol(taps: Tensor, lines: Lines, blocks: tuple[int, int]) -> Tensor:
    """Return what convolutions on a ring do to each frequency: `[piece, phase, phase, ...]`.

    There is one phase, unless the pieces are read with a stride.
    """
    rings = [line.ring(b) for line, b in zip(lines, blocks, strict=True)]
    (high, wide), pieces = (line.period for line in lines), len(taps)
    first = gram(taps, *rings).view(pieces, high * wide, blocks[0], high, blocks[1], wide)
    return torch.fft.rfft2(first.permute(0, 1, 3, 5, 2, 4).flatten(2, 3)).conj()


@dataclass(frozen=True, slots=True)
class Border:
    """What one edge of the picture takes away from the products of its positions."""

    rows: slice
    columns: slice
    matrix: Tensor


@dataclass(frozen=True, slots=True)
class Operator:
    """The Gram matrices of convolutions, which act on pictures and are never formed.

    Away from the edges each is a convolution, which is done by its frequencies; near an edge
    something is missing, and that is subtracted.
    """

    symbol: Tensor
    blocks: tuple[int, int]
    periods: tuple[int, int]
    sides: tuple[int, int]
    borders: tuple[Border, ...]

    @property
    def room(self) -> tuple[int, int]:
        """The sides of the ring."""
        return self.blocks[0] * self.periods[0], self.blocks[1] * self.periods[1]

    def __call__(self, pictures: Tensor) -> Tensor:
        """Return the products with pictures `[piece, row, column]`, one for each piece."""
        result = self._inside(pictures)
        for edge in self.borders:
            seen = pictures[:, edge.rows, edge.columns]
            missing = edge.matrix @ seen.flatten(1)[:, :, None]
            result[:, edge.rows, edge.columns] -= missing.view_as(seen)
        return result

    def of(self, pieces: Tensor) -> Operator:
        """The same for some of the pieces."""
        borders = (Border(b.rows, b.columns, b.matrix[pieces]) for b in self.borders)
        return Operator(self.symbol[pieces], self.blocks, self.periods, self.sides, tuple(borders))

    def _inside(self, pictures: Tensor) -> Tensor:
        (height, width), (high, wide) = self.sides, self.periods
        if high == wide == 1:
            waves = torch.fft.rfft2(pictures, s=self.blocks) * self.symbol[:, 0, 0]
            return torch.fft.irfft2(waves, s=self.blocks)[:, :height, :width].clone()
        room = pictures.new_zeros(len(pictures), *self.room)
        room[:, :height, :width] = pictures
        room = room.unflatten(2, (-1, wide)).unflatten(1, (-1, high)).permute(0, 2, 4, 1, 3)
        waves = torch.fft.rfft2(room.flatten(1, 2))
        waves = torch.einsum("oabyx,obyx->oayx", self.symbol, waves)
        back = torch.fft.irfft2(waves, s=self.blocks).unflatten(1, (high, wide))
        back = back.permute(0, 3, 1, 4, 2).flatten(3, 4).flatten(1, 2)
        return back[:, :height, :width].clone()


def operator(taps: Tensor, lines: Lines) -> Operator:
    """Return the Gram matrices of convolutions as one operator."""
    (high, wide), whole = lines, slice(None)
    borders = [
        Border(edge, whole, gram(taps, missing, wide.meetings())) for edge, missing in high.edges()
    ] + [Border(whole, edge, gram(taps, high.endless(), missing)) for edge, missing in wide.edges()]
    blocks = _room(high), _room(wide)
    return Operator(
        symbol=symbol(taps, lines, blocks),
        blocks=blocks,
        periods=(high.period, wide.period),
        sides=(high.positions, wide.positions),
        borders=tuple(borders),
    )


def _room(line: Line) -> int:
    """How many periods a ring needs for its two ends not to meet, and for fast transforms."""
    size = -(-line.positions // line.period) + -(-line.reach // line.period)
    while math.gcd(size, 30**9) != size:
        size += 1
    return size
