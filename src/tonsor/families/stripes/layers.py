"""The convolutions of a model whose stripes may go, and why those of others may not."""

from __future__ import annotations

import math

from tonsor.anatomy import Anatomy
from tonsor.families.fibres import FibreLayers, find_fibres
from tonsor.types import Conv


def find_stripes(anatomy: Anatomy) -> FibreLayers:
    """Find the convolutions of a model, and say which may lose stripes.

    >>> import torch, tonsor
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))
    >>> print(find_stripes(tonsor.inspect(net, torch.randn(1, 3, 8, 8))))
    2 convolutions, of which 1 may lose stripes
      0  72 stripes of 3 inputs
      1  stays: its kernel has one position only, so that a stripe is a filter
    """
    return find_fibres(anatomy, "stripes", _refused)


def _refused(conv: Conv) -> str:
    if math.prod(conv.kernel) == 1:
        return "its kernel has one position only, so that a stripe is a filter"
    return ""
