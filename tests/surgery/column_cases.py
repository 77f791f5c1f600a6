"""Convolutions of all kinds with masks of their columns, and what they are to compute."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.surgery.stripe_cases import Case, as_for_graphs, as_it_is, masks
from tests.surgery.stripe_cases import cases as convolutions
from tonsor.fibres import FibreMask
from tonsor.surgery.column_conv import ColumnConv, columned


@st.composite
def cases(draw: st.DrawFn, rank: int | None = None, plain: bool = False) -> Case:
    """Draw convolutions that torch takes; `plain` ones have no groups and pad with zeros."""
    case = draw(convolutions(rank, plain))
    positions = math.prod(case.given["kernel_size"])
    return replace(case, mask=draw(masks(case.given["in_channels"], positions)))


def columns_of(weight: Tensor, mask: FibreMask) -> Iterator[tuple[Any, ...]]:
    """Say where in a weight each column of a mask is, position after position."""
    groups = len(mask) // weight.shape[1]
    filters = len(weight) // groups
    for position in range(mask.shape[1]):
        where = tuple(map(int, np.unravel_index(position, weight.shape[2:])))
        for row in range(len(mask)):
            if mask[row, position]:
                group, input_ = divmod(row, weight.shape[1])
                yield slice(group * filters, (group + 1) * filters), input_, *where


def kept_of(weight: Tensor, mask: FibreMask) -> Tensor:
    """Take columns out one by one."""
    found = [weight[where] for where in columns_of(weight, mask)]
    none = weight.new_zeros(0, len(weight) * weight.shape[1] // len(mask))
    return torch.stack(found) if found else none


def masked(conv: nn.Module, mask: FibreMask) -> nn.Module:
    """Return the convolution with zeros where columns are gone: what is to be computed."""
    other: Any = copy.deepcopy(conv)
    for where in columns_of(other.weight, ~mask):
        other.weight.detach()[where] = 0
    return other


def layer_of(case: Case, run: Any = "", dtype: torch.dtype = torch.float64) -> ColumnConv:
    return columned(case.conv(dtype), case.mask, run)


@contextmanager
def in_parts(cache: int, few: int) -> Any:
    """Run as if so many bytes were near the processor, and outputs of so few places were small."""
    where = "tonsor.surgery.products"
    with mock.patch(f"{where}.CACHE", cache), mock.patch(f"{where}._FEW", few):
        yield


WAYS: Any = {
    "dense": ("dense", as_it_is),
    "columns": ("columns", as_it_is),
    "columns, all samples together": ("columns", lambda: in_parts(1 << 21, 1 << 30)),
    "columns, sample by sample": ("columns", lambda: in_parts(1 << 21, 0)),
    "columns, some samples at a time": ("columns", lambda: in_parts(1 << 11, 9)),
    "columns, some rows at a time": ("columns", lambda: in_parts(1 << 9, 4)),
    "dense for graphs": ("dense", as_for_graphs),
    "columns for graphs": ("columns", as_for_graphs),
}
