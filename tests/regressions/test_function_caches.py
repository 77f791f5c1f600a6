"""A model that remembers tensors between calls must not be left remembering those of a trace."""

from functools import cache, cached_property, lru_cache, wraps
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor

from .cutting import cut


@lru_cache
def ramp(length: int) -> Tensor:
    return torch.linspace(0, 1, length)


def remembering(function: Any) -> Any:
    """A decorator that hides its cache behind a plain function, as transformers does."""
    remembered = cache(function)

    @wraps(function)
    def wrapper(*args: Any) -> Any:
        return remembered(*args)

    return wrapper


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)

    def ramp(self, length: int) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(x + self.ramp(len(x))[:, None])


class OnModule(Base):
    """A cached function in the model's file."""

    def ramp(self, length: int) -> Tensor:
        return ramp(length)


class OnClass(Base):
    """A cached static method."""

    @staticmethod
    @lru_cache
    def ramp(length: int) -> Tensor:
        return torch.linspace(0, 1, length)


class Hidden(Base):
    """A cached static method, whose cache only the wrapper knows."""

    @staticmethod
    @remembering
    def ramp(length: int) -> Tensor:
        return torch.linspace(0, 1, length)


class OnInstance(Base):
    """A cache that is an attribute of the module."""

    def __init__(self) -> None:
        super().__init__()
        self.ramp = lru_cache(self.make)

    @staticmethod
    def make(length: int) -> Tensor:
        return torch.linspace(0, 1, length)


class InDict(Base):
    """A dictionary written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, Tensor] = {}

    def ramp(self, length: int) -> Tensor:
        if length not in self.known:
            self.known[length] = torch.linspace(0, 1, length)
        return self.known[length]


class Lazily(Base):
    """A property that is computed once."""

    @cached_property
    def two(self) -> Tensor:
        return torch.linspace(0, 1, 2)

    def ramp(self, length: int) -> Tensor:
        return self.two


@pytest.mark.parametrize("run_before", [False, True])
@pytest.mark.parametrize("kind", [OnModule, OnClass, Hidden, OnInstance, InDict, Lazily])
def test_caches_are_not_poisoned(kind: type[Base], run_before: bool) -> None:
    ramp.cache_clear()
    torch.manual_seed(0)
    model, x = kind(), torch.randn(2, 8)
    wanted = model.last(model.first(x).relu() + torch.linspace(0, 1, 2)[:, None])
    if run_before:
        torch.testing.assert_close(model(x), wanted)

    slim = cut(model, x, ratios={"first": 0.5}).slim

    assert slim.first.out_features == 8
    assert slim(x).dtype == torch.float32
    got = model(x)
    assert type(got) is Tensor
    assert not isinstance(model.ramp(2), FakeTensor)
    torch.testing.assert_close(got, wanted)
