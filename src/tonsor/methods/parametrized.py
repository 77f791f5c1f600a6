"""Taking a parametrization off again, with the model as it was before but for its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.utils import parametrize


def merge(module: nn.Module, name: str = "weight", order: Sequence[str] = ("weight",)) -> None:
    """Have a parameter become what it is parametrized to be, and take the parametrization off.

    `order` are the parameters that the module is to have first, in their order.
    """
    kind: Any = type(module)  # copies of the module share it, and torch changes it
    held = {n: v for n, v in vars(kind).items() if n not in ("__dict__", "__weakref__")}
    own: Any = type(kind.__name__, kind.__bases__, held)
    module.__class__ = own
    parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    there = module._parameters
    first = [n for n in order if n in there]
    for other in [*first, *(n for n in there if n not in first)]:
        there[other] = there.pop(other)
