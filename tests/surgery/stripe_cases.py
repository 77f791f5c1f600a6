"""Convolutions of all kinds with masks of all kinds, and what they are to compute."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tonsor.fibres import FibreMask
from tonsor.surgery.stripe_conv import StripeConv, striped

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Case:
    """A convolution, which of its stripes stay, and the shape of what it reads."""

    given: Mapping[str, Any]
    rank: int
    mask: FibreMask
    shape: tuple[int, ...]
    seed: int

    def conv(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        torch.manual_seed(self.seed)
        return CONVS[self.rank - 1](**self.given, dtype=dtype).eval()

    def x(self, dtype: torch.dtype = torch.float64) -> Tensor:
        torch.manual_seed(self.seed + 1)
        return torch.randn(self.shape, dtype=torch.float64).to(dtype)


@st.composite
def cases(draw: st.DrawFn, rank: int | None = None, plain: bool = False) -> Case:
    """Draw convolutions that torch takes; `plain` ones have no groups and pad with zeros."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3])) if rank is None else rank
    longest = {1: 7, 2: 7, 3: 3}[rank]
    each = st.lists(st.integers(1, longest), min_size=rank, max_size=rank)
    kernel = draw(each)
    stride = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilation = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(rank)]
    mode = "zeros" if plain else draw(
        st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"])
    )  # fmt: skip
    padding: Any = [draw(st.integers(0, k + 1)) for k in kernel]
    how = draw(st.sampled_from(["numbers", "numbers", "same", "valid"]))
    if how == "same":
        stride, padding = [1] * rank, "same"
    elif how == "valid":
        padding = "valid"
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    pads = {"same": spans, "valid": [0] * rank}.get(how) or [2 * p for p in padding]
    least = [max(1, s + 1 - p) for s, p in zip(spans, pads, strict=True)]
    if mode in ("reflect", "circular"):  # these read no further than what there is
        least = [max(n, (p + 1) // 2 + 1) for n, p in zip(least, pads, strict=True)]
    sizes = [n + draw(st.integers(0, 5)) for n in least]
    groups = 1 if plain else draw(st.sampled_from([1, 1, 1, 2, 3]))
    inputs, outputs = (groups * draw(st.integers(1, 4)) for _ in range(2))
    batch = draw(st.sampled_from([1, 1, 2, 3] if mode != "zeros" else [0, 1, 1, 2, 3]))
    unbatched = batch == 1 and draw(st.booleans())
    given = {
        "in_channels": inputs, "out_channels": outputs, "kernel_size": kernel, "stride": stride,
        "padding": padding, "dilation": dilation, "groups": groups, "padding_mode": mode,
        "bias": draw(st.booleans()),
    }  # fmt: skip
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    shape = (inputs, *sizes) if unbatched else (batch, inputs, *sizes)
    seed = draw(st.integers(0, 2**16))
    return Case(given, rank, draw(masks(outputs, math.prod(kernel))), shape, seed)


@st.composite
def masks(draw: st.DrawFn, filters: int, positions: int) -> FibreMask:
    """Draw masks: of any share, with filters that are empty, with one stripe, with none at all."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    mask = rng.random((filters, positions)) < draw(st.sampled_from([0.1, 0.3, 0.6, 1.0]))
    how = draw(st.sampled_from(["as it is"] * 5 + ["empty filters", "one", "none", "one position"]))
    if how == "empty filters":
        mask[::2] = False
    elif how == "one position":
        mask[:, np.arange(positions) != rng.integers(positions)] = False
    elif how != "as it is":
        mask[:] = False
        if how == "one":
            mask[rng.integers(filters), rng.integers(positions)] = True
    return mask


def masked(conv: nn.Module, mask: FibreMask) -> nn.Module:
    """Return the convolution with zeros where stripes are gone: what is to be computed."""
    other: Any = copy.deepcopy(conv)
    weight = other.weight.detach()
    for filter_, row in enumerate(mask):
        for position, stays in enumerate(row):
            if not stays:
                where = np.unravel_index(position, weight.shape[2:])
                weight[(filter_, slice(None), *map(int, where))] = 0
    return other


def layer_of(case: Case, run: Any = "", dtype: torch.dtype = torch.float64) -> StripeConv:
    return striped(case.conv(dtype), case.mask, run)


@contextmanager
def as_for_graphs() -> Any:
    """Run as when a graph is made: of whole tensors only, and with nothing remembered."""
    with mock.patch("tonsor.surgery.fibre_conv.taken_down", return_value=True):
        yield


@contextmanager
def as_it_is() -> Any:
    """Run as usual."""
    yield


WAYS: Any = {
    "dense": ("dense", as_it_is),
    "stripes": ("stripes", as_it_is),
    "dense for graphs": ("dense", as_for_graphs),
    "stripes for graphs": ("stripes", as_for_graphs),
}
