"""The convolutions of a model whose columns may go, and why those of others may not."""

from __future__ import annotations

from tonsor.anatomy import Anatomy
from tonsor.families.fibres import FibreLayers, find_fibres
from tonsor.types import Conv


def find_columns(anatomy: Anatomy) -> FibreLayers:
    """Find the convolutions of a model, and say which may lose columns.

    >>> import torch, tonsor
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.Conv2d(8, 8, 3, groups=8))
    >>> print(find_columns(tonsor.inspect(net, torch.randn(1, 4, 8, 8))))
    2 convolutions, of which 1 may lose columns
      0  36 columns of 8 filters
      1  stays: it has groups, so that no column is one of all its filters
    """
    return find_fibres(anatomy, "columns", _refused)


def _refused(conv: Conv) -> str:
    return "it has groups, so that no column is one of all its filters" if conv.groups != 1 else ""
