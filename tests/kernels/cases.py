"""Convolutions for the compiled kernels, and what torch says of them in float64."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor

from tonsor.errors import EngineError
from tonsor.fibres import FibreMask, Kind
from tonsor.kernels import level, library
from tonsor.kernels.convolve import convolve
from tonsor.kernels.geometry import Geometry
from tonsor.kernels.packed import FORMS, Form, pack

SMALL = Geometry(5, 7, (3, 3), padding=(1, 1, 1, 1))
KINDS: tuple[Kind | None, ...] = ("stripes", "columns", None)


@dataclass(frozen=True)
class Case:
    """A convolution with a mask, drawn by a seed."""

    form: Form
    kind: Kind | None = "stripes"
    geometry: Geometry = SMALL
    batch: int = 2
    sides: tuple[int, int] = (6, 5)
    keep: float = 0.4
    shared: int = 1
    bias: bool = True
    residual: bool = False
    relu: bool = False
    half: bool = False
    seed: int = 0

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.half else torch.float32

    @property
    def mask(self) -> FibreMask | None:
        """Some fibres, of which some rows have none; `keep` of 2 is a single fibre."""
        if self.kind is None:
            return None
        rng, g = np.random.default_rng(self.seed), self.geometry
        rows = g.out_channels if self.kind == "stripes" else g.in_channels
        if self.keep == 2:
            mask = np.zeros((rows, g.positions), np.bool_)
            mask[rng.integers(rows), rng.integers(g.positions)] = True
            return mask
        many = -(-rows // self.shared)
        mask = rng.random((many, g.positions)) < self.keep
        mask[rng.random(many) < 0.2] = False
        return np.repeat(mask, self.shared, axis=0)[:rows]

    @property
    def stays(self) -> Tensor:
        """Which numbers of the weight stay; this knows nothing of how they are packed."""
        g, mask = self.geometry, self.mask
        if mask is None:
            return torch.ones(g.out_channels, g.inputs, *g.kernel, dtype=torch.bool)
        rows = np.arange(g.out_channels)[:, None].repeat(g.inputs, 1)
        if self.kind == "columns":
            rows = rows // g.filters * g.inputs + np.arange(g.inputs)
        return torch.from_numpy(mask[rows]).reshape(g.out_channels, g.inputs, *g.kernel)

    def tensor(self, *shape: int, salt: int = 0) -> Tensor:
        seeded = torch.Generator().manual_seed(self.seed * 7 + salt)
        return torch.randn(*shape, generator=seeded)

    @property
    def weight(self) -> Tensor:
        """A weight that has NaN where nothing stays, which nobody may read."""
        g = self.geometry
        weight = self.tensor(g.out_channels, g.inputs, *g.kernel, salt=1)
        return weight.masked_fill(~self.stays, torch.nan)

    @property
    def given_bias(self) -> Tensor | None:
        return self.tensor(self.geometry.out_channels, salt=3) if self.bias else None

    @property
    def x(self) -> Tensor:
        return self.tensor(self.batch, self.geometry.in_channels, *self.sides, salt=2).to(
            self.dtype
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """That of the output."""
        return (self.batch, self.geometry.out_channels, *self.geometry.out_size(self.sides))

    @property
    def given_residual(self) -> Tensor | None:
        return self.tensor(*self.shape, salt=4).to(self.dtype) if self.residual else None

    def packed(self) -> Tensor:
        return pack(self.weight, self.given_bias, self.geometry, self.form, self.kind, self.mask)

    def found(self, x: Tensor | None = None) -> Tensor:
        """What the kernel computes."""
        x = self.x if x is None else x
        return convolve(self.packed(), x, self.geometry, self.given_residual, relu=self.relu)

    def wanted(self) -> Tensor:
        """What torch computes in float64 of the masked weight, before it is rounded."""
        weight, bias, residual = self.weight.nan_to_num(0), self.given_bias, self.given_residual
        out = slid(self.x, weight, self.geometry, None if bias is None else bias.double())
        out = out if residual is None else out + residual.double()
        return out.relu() if self.relu else out

    def check(self) -> None:
        """Compare the kernel with torch."""
        found, wanted = self.found(), self.wanted()
        assert found.shape == wanted.shape, self
        assert found.dtype == self.dtype, self
        assert found.is_contiguous(memory_format=torch.channels_last), self
        scale = max(1e-3, float(wanted.abs().max())) if wanted.numel() else 1.0
        allowed = 1e-5 * scale + one_step(wanted) / 2 * self.half
        wrong = (found.double() - wanted).abs() - allowed
        assert not (wrong > 0).any(), f"{float(wrong.max()):.1e} too far: {self}"
        assert not found.isnan().any(), self


def slid(x: Tensor, weight: Tensor, geometry: Geometry, bias: Tensor | None = None) -> Tensor:
    """Torch's own convolution, in float64."""
    top, bottom, left, right = geometry.padding
    x = F.pad(x.double(), (left, right, top, bottom))
    return F.conv2d(
        x, weight.double(), bias, geometry.stride, 0, geometry.dilation, geometry.groups
    )  # fmt: skip


def one_step(wanted: Tensor) -> Tensor:
    """How far a number of bfloat16 is from the next one, about there."""
    near = wanted.abs().clamp_min(1e-30)
    return 2.0 ** (near.log2().floor() - 7)


# ---------------------------------------------------------------- drawn cases


def drawn(seed: int, work: float = 2e6) -> Case:
    """Draw a case, of no more than about so many multiplications."""
    rng = random.Random(seed)
    groups = rng.choice([1, 1, 1, 1, 2, 3, 5])
    kernel = _pair(rng, 11 if rng.random() < 0.3 else 5)
    stride, dilation = _pair(rng, rng.choice([1, 1, 2, 4])), _pair(rng, rng.choice([1, 1, 3]))
    most = rng.choice([0, 1, 1, 3, 6])
    padding = (
        rng.randint(0, most),
        rng.randint(0, most),
        rng.randint(0, most),
        rng.randint(0, most),
    )
    inputs, filters = _many(rng, 150 // groups), _many(rng, 150 // groups)
    if rng.random() < 0.08:  # depthwise
        groups, inputs, filters = rng.randint(2, 40), 1, rng.choice([1, 1, 2])
    shape = Geometry(
        inputs * groups, filters * groups, kernel, stride, padding, dilation, groups
    )  # fmt: skip
    each = inputs * filters * groups * shape.positions
    pixels = max(1, int(work / each))
    wide = _many(rng, min(pixels, 300 if rng.random() < 0.2 else 24))
    high = _many(rng, max(1, min(pixels // wide, 24)))
    if rng.random() < 0.1:
        wide = high = 1
    sides = tuple(
        max(1, (out - 1) * s + d * (k - 1) + 1 - before - behind + rng.randrange(s))
        for out, s, d, k, before, behind in zip(
            (high, wide), stride, dilation, kernel, padding[::2], padding[1::2], strict=True
        )
    )
    return Case(
        form=rng.choice(FORMS), kind=rng.choice(KINDS), geometry=shape,
        batch=rng.randint(1, max(1, min(5, pixels // (wide * high)))),
        sides=(sides[0], sides[1]), keep=rng.choice([0.0, 0.05, 0.3, 0.3, 0.7, 1.0, 2.0]),
        shared=rng.choice([1, 1, 4, 16]), bias=rng.random() < 0.7, residual=rng.random() < 0.3,
        relu=rng.random() < 0.3, half=rng.random() < 0.25, seed=seed,
    )  # fmt: skip


def _many(rng: random.Random, most: int) -> int:
    """Small numbers more often than large ones."""
    return round(math.exp(rng.uniform(0, math.log(most)))) if most > 1 else 1


def _pair(rng: random.Random, most: int) -> tuple[int, int]:
    return rng.randint(1, most), rng.randint(1, most)


def cases(work: float = 1e5) -> st.SearchStrategy[Case]:
    """Cases that hypothesis draws, by their seed."""
    return st.integers(0, 2**20).map(lambda seed: drawn(seed, work))


# ---------------------------------------------------------------- levels


def levels() -> list[str]:
    """Which levels this machine can run."""
    return [name for name in level.LEVELS if not level._lacking(name)]


@contextmanager
def at_level(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run the kernels of a level, which are compiled once for all sessions."""
    with monkeypatch.context() as patched:
        patched.setenv(level.VARIABLE, name)
        library.forget()
        try:
            found = library.library()
            if found is None:
                raise EngineError(library.state().why)
            yield found
        finally:
            library.forget()
