"""Example inputs as plain data: shapes, types and ranges, from which new ones can be made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tonsor.errors import PlanError
from tonsor.graph.inputs import Inputs

_PLAIN = (bool, int, float, str, type(None))


class _NoDescriptionError(Exception):
    """An input that can't be made again from its shape and range."""


def describe(inputs: Inputs) -> dict[str, Any] | None:
    """Return example inputs as plain data, or None where a description would not be enough.

    >>> describe(Inputs(torch.arange(6).view(2, 3)))["args"]
    [{'tensor': [2, 3], 'dtype': 'int64', 'low': 0, 'high': 5}]
    """
    try:
        return {
            "args": [_describe(a) for a in inputs.args],
            "kwargs": {k: _describe(v) for k, v in inputs.kwargs.items()},
        }
    except _NoDescriptionError:
        return None


def _describe(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _describe_tensor(value)
    if type(value) is list:
        return [_describe(v) for v in value]
    if type(value) is tuple:
        return {"tuple": [_describe(v) for v in value]}
    if type(value) is dict and all(type(k) is str for k in value):
        return {"dict": {k: _describe(v) for k, v in value.items()}}
    if type(value) in _PLAIN and not (type(value) is float and not math.isfinite(value)):
        return value
    raise _NoDescriptionError


def _describe_tensor(tensor: Tensor) -> dict[str, Any]:
    if tensor.is_meta or tensor.is_complex() or tensor.layout is not torch.strided:
        raise _NoDescriptionError
    low, high = 0, 0
    if tensor.numel():
        seen = tensor.detach().double() if tensor.is_floating_point() else tensor.long()
        low, high = seen.min().item(), seen.max().item()
    if not (math.isfinite(low) and math.isfinite(high)):
        raise _NoDescriptionError
    dtype = str(tensor.dtype).removeprefix("torch.")
    return {"tensor": list(tensor.shape), "dtype": dtype, "low": low, "high": high}


def make_inputs(description: Any, seed: int = 0) -> Inputs:
    """Make random inputs of the shapes, types and ranges that `describe` has noted down."""
    generator = torch.Generator().manual_seed(seed)
    try:
        args = [_make(a, generator) for a in description["args"]]
        return Inputs(*args, **{k: _make(v, generator) for k, v in description["kwargs"].items()})
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        message = (
            f"no inputs can be made of {str(description)[:200]}: {type(error).__name__}: {error}"
        )
        raise PlanError(message) from error


def _make(value: Any, generator: torch.Generator) -> Any:
    if isinstance(value, list):
        return [_make(v, generator) for v in value]
    if not isinstance(value, Mapping):
        return value
    if "tuple" in value:
        return tuple(_make(v, generator) for v in value["tuple"])
    if "dict" in value:
        return {k: _make(v, generator) for k, v in value["dict"].items()}
    return draw(value["tensor"], value["dtype"], value["low"], value["high"], generator)


def draw(
    shape: list[int], dtype: str, low: float, high: float, generator: torch.Generator
) -> Tensor:
    """Draw a tensor with values from `low` to `high`, both included."""
    kind = getattr(torch, dtype)
    if kind.is_floating_point:
        unit = torch.rand(shape, generator=generator, dtype=torch.float64)
        return (unit * (high - low) + low).to(kind)
    drawn = torch.randint(int(low), int(high) + 1, shape, generator=generator, dtype=torch.int64)
    return drawn.to(kind)
