"""Convolutions to run by the kernel, and what torch says of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from tonsor.fibres import FibreMask
from tonsor.kernels.gpu.blocks import Packed, pack
from tonsor.kernels.gpu.lists import Form
from tonsor.kernels.gpu.window import Window

ROUND = Window(padding=((1, 1), (1, 1)))


@dataclass(frozen=True)
class Case:
    """A convolution with a mask, drawn by a seed."""

    kind: Form
    batch: int = 2
    inputs: int = 5
    outputs: int = 7
    sides: tuple[int, int] = (6, 5)
    kernel: tuple[int, int] = (3, 3)
    window: Window = ROUND
    groups: int = 1
    keep: float = 0.4
    shared: int = 1
    bias: bool = True
    residual: bool = False
    relu: bool = False
    last: bool = False
    given: tuple[tuple[str, Any], ...] = ()
    seed: int = 0

    @property
    def mask(self) -> FibreMask | None:
        if self.kind == "dense":
            return None
        rng = np.random.default_rng(self.seed)
        rows = self.outputs if self.kind == "stripes" else self.inputs
        many = -(-rows // self.shared)
        mask = rng.random((many, self.kernel[0] * self.kernel[1])) < self.keep
        mask[rng.random(many) < 0.2] = False  # filters or inputs that are gone
        return np.repeat(mask, self.shared, axis=0)[:rows]

    def tensor(self, *shape: int, salt: int = 0) -> Tensor:
        seeded = torch.Generator().manual_seed(self.seed * 7 + salt)
        return torch.randn(*shape, generator=seeded)

    @property
    def weight(self) -> Tensor:
        return self.tensor(self.outputs, self.inputs // self.groups, *self.kernel, salt=1)

    @property
    def masked(self) -> Tensor:
        """The weight with zeros, by loops that know nothing of blocks."""
        weight, mask = self.weight, self.mask
        if mask is None:
            return weight
        per_group = self.outputs // self.groups
        for n in range(self.outputs):
            for c in range(weight.shape[1]):
                row = n if self.kind == "stripes" else n // per_group * weight.shape[1] + c
                for position in np.flatnonzero(~mask[row]):
                    weight[n, c, position // self.kernel[1], position % self.kernel[1]] = 0
        return weight

    @property
    def out_sides(self) -> tuple[int, int]:
        return self.window.sizes(self.kernel, self.sides)

    def given_tensors(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Input, bias and residual."""
        x = self.tensor(self.batch, self.inputs, *self.sides, salt=2)
        if self.last:
            x = x.to(memory_format=torch.channels_last)
        bias = self.tensor(self.outputs, salt=3) if self.bias else None
        shape = (self.batch, self.outputs, *self.out_sides)
        return x, bias, self.tensor(*shape, salt=4) if self.residual else None

    def packed(self, dtype: torch.dtype = torch.float32) -> Packed:
        options = dict(self.given)
        return pack(
            self.weight.to(dtype), self.mask, self.kind, window=self.window, groups=self.groups,
            **options,
        )  # fmt: skip

    def wanted(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """What torch computes in float64 from what the kernel is given in some type."""
        x, bias, residual = self.given_tensors()
        (top, bottom), (left, right) = self.window.padding
        x = F.pad(x.to(dtype).double(), (left, right, top, bottom))
        y = F.conv2d(
            x, self.masked.to(dtype).double(), None if bias is None else bias.to(dtype).double(),
            self.window.stride, 0, self.window.dilation, self.groups,
        )  # fmt: skip
        if residual is not None:
            y = y + residual.to(dtype).double()
        return y.relu() if self.relu else y


def small(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


def pairs(low: int, high: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(small(low, high), small(low, high))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    kind: Any = draw(st.sampled_from(["stripes", "columns", "dense"]))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    kernel = draw(pairs(1, 7) if draw(st.booleans()) else pairs(1, 3))
    padding = draw(st.tuples(pairs(0, 2), pairs(0, 2)) | st.just(((0, 0), (0, 0))))
    window = Window(draw(pairs(1, 3)), padding, draw(pairs(1, 2)))
    least = [
        max(1, d * (k - 1) + 1 - sum(p))
        for d, k, p in zip(window.dilation, kernel, window.padding, strict=True)
    ]
    more = draw(pairs(0, 4))
    wide = draw(st.sampled_from([3, 16, 19, 32]))
    return Case(
        kind=kind, batch=draw(small(1, 3)),
        inputs=groups * draw(small(1, 5) | st.just(wide)),
        outputs=groups * draw(small(1, 9) | st.just(21)),
        sides=(least[0] + more[0], least[1] + more[1]), kernel=kernel, window=window,
        groups=groups, keep=draw(st.sampled_from([0.0, 0.05, 0.3, 0.7, 1.0])),
        shared=draw(st.sampled_from([1, 4])),
        bias=draw(st.booleans()), residual=draw(st.booleans()), relu=draw(st.booleans()),
        last=draw(st.booleans()), seed=draw(small(0, 999)),
        given=(
            ("block", draw(st.sampled_from([0, 16, 32]))),
            ("step", draw(st.sampled_from([0, 16]))),
            ("runs", draw(st.sampled_from([None, False, True]))),
        ),
    )  # fmt: skip


def on(case: Case, **changes: Any) -> Case:
    return replace(case, **changes)
