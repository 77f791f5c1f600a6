"""Compute what blocks that go are to compute, in the original itself: the other side of a proof.

Nothing is replaced here. All modules run; what a branch adds is set to zero as it is added, and
what a plain layer returns is exchanged for what it was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from tonsor.drops import Drop, Spot
from tonsor.errors import ProofError
from tonsor.graph.record import Execute
from tonsor.graph.spans import gone_operators
from tonsor.graph.spots import Spots
from tonsor.surgery.shortcut import fitted
from tonsor.types import Call, Graph, Ref


class Bypass:
    """Where a recorded run has to be changed for blocks to be without effect."""

    def __init__(self, graph: Graph, drops: Sequence[Drop]) -> None:
        self.zeroed: dict[int, list[str]] = {}
        self.entered: dict[int, list[tuple[str, str]]] = {}
        self.left: dict[int, Drop] = {}
        self.held: dict[str, Tensor] = {}
        self.lost = _lost(graph, drops) if drops else frozenset[int]()
        spots = Spots(graph) if drops else None
        for drop in drops:
            assert spots is not None
            for spot in drop.zeroed:
                self.zeroed.setdefault(_index(spots, spot, drop), []).append(spot.argument)
            if drop.bypassed is not None:
                start, end = (_index(spots, spot, drop) for spot in drop.bypassed)
                name = drop.bypassed[0].argument
                self.entered.setdefault(start, []).append((name, drop.name))
                self.left[end] = drop

    def __bool__(self) -> bool:
        return bool(self.zeroed or self.left)

    def meets(self, index: int) -> bool:
        """Whether an operator is to be changed, or its arguments are to be held."""
        return index in self.zeroed or index in self.entered or index in self.left

    def run(
        self, index: int, run: Execute, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Run one operator, changed where a block goes."""
        for name in self.zeroed.get(index, ()):
            value = _argument(func, args, kwargs, name)
            if _written(func, name):  # what is written into is read again under its own name
                value.zero_()
            else:
                args, kwargs = _with(func, args, kwargs, name, torch.zeros_like(value))
        for name, block in self.entered.get(index, ()):
            self.held[block] = _argument(func, args, kwargs, name).clone()
        out = run(index, func, args, kwargs)
        drop = self.left.get(index)
        if drop is None:
            return out
        x = fitted(self.held.pop(drop.name), drop.fit, drop.channels[1], drop.dim)
        if func._schema.is_mutable:  # others hold what it has written into
            return out.copy_(x)
        return x


def _lost(graph: Graph, drops: Sequence[Drop]) -> frozenset[int]:
    """Return the places of outputs that only blocks which go have made, such as their caches.

    What a block hands on is no such output, for without the block something else is there.
    """
    gone = gone_operators(graph, drops)
    through = {
        v for c in graph.calls if any(c.module == _arranger(d) for d in drops)
        for v in _handed_on(c, drops)
    }  # fmt: skip
    made = {v: op.index for op in reversed(graph.ops) for v in op.outputs if v is not None}
    return frozenset(
        i for i, (_, v) in enumerate(graph.outputs)
        if made.get(v, -1) in gone and v not in through
    )  # fmt: skip


def _handed_on(call: Call, drops: Sequence[Drop]) -> list[int]:
    (drop, *_) = (d for d in drops if _arranger(d) == call.module)
    return list(_where(call.out, drop.gives))


def _arranger(drop: Drop) -> str:
    """Name the module whose result is arranged: what ends a plain layer, what begins a branch."""
    return drop.modules[0 if drop.kind == "branch" else -1]


def _where(out: Any, gives: Any) -> Iterator[int]:
    """Yield the tensors that a block hands on, of what it returned."""
    if isinstance(out, Ref):
        if gives in ("x", "0"):
            yield out.value
    elif isinstance(gives, dict) and isinstance(out, (tuple, list, dict)):
        (inner,) = gives.values()
        pairs = zip(out, inner, strict=True) if not isinstance(out, dict) else (
            (out[k], inner[k]) for k in inner
        )  # fmt: skip
        for item, given in pairs:
            yield from _where(item, given)


def _index(spots: Spots, spot: Spot, drop: Drop) -> int:
    found = spots.index(spot)
    if found is None:
        message = (
            f"'{drop.name}' can't be proven, for the model does not run {spot.operator} in "
            f"'{spot.module}' as it did when the block was found"
        )
        raise ProofError(message)
    return found


def _argument(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str) -> Any:
    place = [a.name for a in func._schema.arguments].index(name)
    return args[place] if place < len(args) else kwargs[name]


def _written(func: Any, name: str) -> bool:
    (info,) = (a.alias_info for a in func._schema.arguments if a.name == name)
    return info is not None and info.is_write


def _with(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    place = [a.name for a in func._schema.arguments].index(name)
    if place < len(args):
        return (*args[:place], value, *args[place + 1 :]), kwargs
    return args, {**kwargs, name: value}
