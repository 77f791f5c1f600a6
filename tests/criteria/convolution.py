"""The convolution as a matrix, written down from its definition: slow, and not to be doubted."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from tonsor.criteria.geometry import Geometry

NORMS = ("spectral", "nuclear", "frobenius")


def geometry(
    kernel: tuple[int, int],
    sides: tuple[int, int],
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    made: bool = True,
) -> Geometry:
    """A geometry whose output has the size that the definition gives."""
    output = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(sides, padding, dilation, kernel, stride, strict=True)
    ]
    return Geometry(kernel, stride, padding, dilation, sides, (output[0], output[1]), made)


def as_published(where: Geometry) -> Geometry:
    """With the stride ignored: as many inputs as outputs, and padding on both sides alike."""
    high, wide = (d * (k - 1) // 2 for d, k in zip(where.dilation, where.kernel, strict=True))
    return replace(where, stride=(1, 1), padding=(high, wide), input_size=where.output_size)


def matrix(kernel: Tensor, where: Geometry) -> Tensor:
    """From the flattened input of all channels to the flattened map of one filter.

    `kernel` is `[channel, height, width]` of one filter; or of one input channel, `[filter,
    height, width]`, for which the matrices to the maps of all filters are put on top of each other.
    """
    (rows, columns), (high, wide) = where.output_size, where.input_size
    others = len(kernel)
    found = torch.zeros(others, rows * columns, high * wide, dtype=torch.float64)
    for p in range(rows):
        for q in range(columns):
            for i in range(where.kernel[0]):
                for j in range(where.kernel[1]):
                    x = p * where.stride[0] - where.padding[0] + i * where.dilation[0]
                    y = q * where.stride[1] - where.padding[1] + j * where.dilation[1]
                    if 0 <= x < high and 0 <= y < wide:
                        found[:, p * columns + q, x * wide + y] += kernel[:, i, j].double()
    if where.made:
        return found.transpose(0, 1).flatten(1)
    return found.flatten(0, 1)


def norms(kernels: Tensor, where: Geometry) -> dict[str, Tensor]:
    """The norms of the matrix of each piece, from its singular values."""
    values = [torch.linalg.svdvals(matrix(k, where)) for k in kernels]
    return {
        "spectral": torch.stack([v[0] for v in values]),
        "nuclear": torch.stack([v.sum() for v in values]),
        "frobenius": torch.stack([v.square().sum().sqrt() for v in values]),
    }


def dense(kernels: Tensor, where: Geometry) -> dict[str, Tensor]:
    """The norms from all eigenvalues of the product with the transpose, for larger pictures.

    Every column of a tap's own matrix has one 1 at most, so the product is found by index.
    """
    taps = math.prod(where.kernel)
    eye = torch.eye(taps, dtype=torch.float64).view(taps, *where.kernel)
    single = torch.stack([matrix(e[None], replace(where, made=True)) for e in eye])
    products = kernels.double().flatten(2)
    products = products.mT @ products
    found = []
    for piece in products:
        total = torch.zeros((), dtype=torch.float64)
        for i in range(taps):
            one = torch.einsum("j,jpx->px", piece[i], single)
            total = total + (single[i] @ one.T if where.made else single[i].T @ one)
        found.append(torch.linalg.eigvalsh(total).clamp(min=0))
    values = torch.stack(found)
    return {
        "spectral": values[:, -1].sqrt(),
        "nuclear": values.sqrt().sum(1),
        "frobenius": values.sum(1).sqrt(),
    }
