"""What is left in the place of a block that goes: its shortcut, or nothing.

The result is arranged as the block arranged it, by a nest of plain data: "x" is the tensor that
runs through, "0" a zero of its size, `{"arg": path}` something that was handed in, `{"is":
value}` a plain value; `{"tuple": [...]}`, `{"list": [...]}` and `{"dict": {...}}` hold others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tonsor.drops import Drop, Fit

_ACTIVATIONS = {
    "relu": F.relu, "silu": F.silu, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
    "relu6": F.relu6, "hardswish": F.hardswish,
}  # fmt: skip
_SAID = ("_qkv_same_embed_dim",)  # torch's own code asks for it from outside
_SIMPLE = (bool, int, float, str, type(None), torch.dtype, torch.device)


class Shortcut(nn.Module):
    """Hands on what it is given, where a block has been removed.

    Modules that stay keep their names. Plain attributes of the block and of the modules right
    inside it are kept too, for other code may ask for them.
    """

    def __init__(self, block: nn.Module, drop: Drop) -> None:
        super().__init__()
        first = drop.modules[0]
        for name, value in _plain(block).items():
            setattr(self, name, value)
        self._of = type(block).__name__
        self._takes = drop.takes
        self._gives = drop.gives
        self._fit: Fit = drop.fit
        self._channels, self._dim = drop.channels, drop.dim
        self._through = [step.removeprefix(f"{first}.") for step in drop.through]
        for path in self._through:
            if not path.endswith("()"):
                _place(self, path, block.get_submodule(path))
        for name, inner in block.named_children():
            if name not in self._modules and name.isidentifier():
                setattr(self, name, SimpleNamespace(**_plain(inner)))
        self.training = block.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Hand on the tensor that runs through."""
        x = _at((args, kwargs), _absolute(self._takes))
        for step in self._through:
            known = _ACTIVATIONS.get(step.removesuffix("()")) if step.endswith("()") else None
            x = self.get_submodule(step)(x) if known is None else known(x)
        return _arranged(self._gives, self._fitted(x), args, kwargs)

    def _fitted(self, x: Tensor) -> Tensor:
        if self._fit in ("same", "slice"):
            return x
        return fitted(x, self._fit, self._channels[1], self._dim)

    def extra_repr(self) -> str:
        """Say what was here."""
        return f"of {self._of}" if not self._through else f"of {self._of}, {self._through}"


class Passed(nn.Module):
    """Hands on what it is given, where a part of a layer has been removed."""

    def forward(self, x: Any) -> Any:
        """Return what came in."""
        return x


def _plain(module: nn.Module) -> dict[str, Any]:
    found = {k: v for k, v in vars(module).items() if not k.startswith("_") or k in _SAID}
    return {k: v for k, v in found.items() if _simple(v)}


def _simple(value: Any) -> bool:
    return isinstance(value, _SIMPLE) or (type(value) is tuple and all(map(_simple, value)))


def fitted(x: Tensor, fit: Fit, wanted: int, dim: int) -> Tensor:
    """Make a tensor have the wanted number of channels, as a removed layer would have given.

    `narrow` takes the first, `tile` the mean of those that fall together, and `slice` adds zeros,
    which what follows may as well leave out.
    """
    have = x.shape[dim]
    if have == wanted:
        return x
    if have < wanted:
        pad = x.new_zeros([*x.shape[:dim], wanted - have, *x.shape[dim + 1 :]])
        return torch.cat([x, pad], dim)
    if fit == "narrow":
        return x.narrow(dim, 0, wanted)
    place = torch.arange(have, device=x.device) % wanted
    out = x.new_zeros([*x.shape[:dim], wanted, *x.shape[dim + 1 :]]).index_add(dim, place, x)
    share = torch.bincount(place, minlength=wanted).to(x.dtype)
    return out / share.view([-1 if i == dim else 1 for i in range(x.dim())])


def _arranged(tree: Any, x: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    if tree == "x":
        return x
    if tree == "0":
        return torch.zeros_like(x)
    ((kind, value),) = tree.items()
    if kind == "arg":
        return _at((args, kwargs), _absolute(value))
    if kind == "is":
        return value
    if kind == "dict":
        return {k: _arranged(v, x, args, kwargs) for k, v in value.items()}
    items = (_arranged(v, x, args, kwargs) for v in value)
    return tuple(items) if kind == "tuple" else list(items)


def _absolute(path: Sequence[str | int]) -> tuple[str | int, ...]:
    return (0 if isinstance(path[0], int) else 1, *path)


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value


def _place(parent: nn.Module, path: str, module: nn.Module) -> None:
    """Put a module under a path, making what is on the way."""
    *way, last = path.split(".")
    for name in way:
        if name not in parent._modules:
            parent.add_module(name, nn.Module())
        parent = parent.get_submodule(name)
    parent.add_module(last, module)
