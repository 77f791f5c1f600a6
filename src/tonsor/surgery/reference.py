"""The masked reference: the original at full size, computing as if cut slices were absent.

Parameters are zero where they were cut, and that is nearly all. Operators for which zero is
not the neutral element (normalisations, means, products of two activations) run on the kept
indices only, and their result is spread out again with zeros. Everything else is the user's
own code at its own sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tonsor.axes.tree import Mask, count, mask
from tonsor.drops import Drop
from tonsor.surgery.bypass import Bypass
from tonsor.surgery.precision import Run
from tonsor.types import Axis, Op, Ref, Solution


class Reference:
    """How operators run in the masked reference."""

    def __init__(
        self,
        solution: Solution,
        keep: Mapping[str, Mask],
        run: Run,
        drops: Sequence[Drop] = (),
    ) -> None:
        self.run = run
        self.bypass = Bypass(solution.graph, drops)
        self.solution = solution
        self.keep = keep
        self.counts = {name: int(m.sum()) for name, m in keep.items()}
        self.sizes: dict[int, list[tuple[str, int | None, Axis]]] = {}
        for op, argument, place, axis in solution.sizes:
            self.sizes.setdefault(op, []).append((argument, place, axis))
        self.mixing = {
            m.op for m in solution.mixes if any(count(a, self.counts) != a.size for a in m.axes)
        }

    @property
    def changes(self) -> bool:
        """Whether any operator runs otherwise than by itself."""
        return bool(self.mixing) or bool(self.bypass)

    def execute(self, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run one operator, on kept indices only where it mixes along cut axes."""
        if self.bypass.meets(index):
            return self.bypass.run(index, self._execute, func, args, kwargs)
        return self._execute(index, func, args, kwargs)

    def _execute(self, index: int, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if index not in self.mixing:
            return self.run(func, args, kwargs)
        op = self.solution.graph.ops[index]
        bound = dict(kwargs)
        for argument, value in zip(func._schema.arguments, args, strict=False):
            bound[argument.name] = value
        bound = {n: self._kept(op.args.get(n), v) for n, v in bound.items()}
        for argument, place, axis in self.sizes.get(index, ()):
            bound[argument] = _resized(bound[argument], place, count(axis, self.counts))
        names = [a.name for a in func._schema.arguments if not a.kwarg_only]
        last = max((i for i, n in enumerate(names) if n in bound), default=-1)
        positional = [bound.pop(n) for n in names[: last + 1]]
        return self._spread(op, self.run(func, tuple(positional), bound))

    def kept_of(self, index: int, which: int, result: Tensor) -> Tensor:
        """Take the kept indices of one result of an operator; always a new tensor."""
        value, whole = self.solution.graph.ops[index].outputs[which], result
        for dim, axis in enumerate(self.solution.axes[value] if value is not None else ()):
            if count(axis, self.counts) != axis.size:
                kept = torch.from_numpy(np.flatnonzero(mask(axis, self.keep)))
                result = result.index_select(dim, kept.to(result.device))
        return result.clone() if result is whole else result

    def _kept(self, ref: Any, value: Any) -> Any:
        if isinstance(ref, Ref) and isinstance(value, Tensor):
            for dim, axis in enumerate(self.solution.axes[ref.value]):
                if count(axis, self.counts) != axis.size and value.shape[dim] == axis.size:
                    kept = torch.from_numpy(np.flatnonzero(mask(axis, self.keep)))
                    value = value.index_select(dim, kept.to(value.device))
            return value
        if isinstance(ref, tuple) and isinstance(value, (tuple, list)):
            return type(value)(self._kept(r, v) for r, v in zip(ref, value, strict=True))
        return value

    def _spread(self, op: Op, out: Any) -> Any:
        many = isinstance(out, (tuple, list))
        spread = [
            self._full(self.solution.axes[v], t) if v is not None and isinstance(t, Tensor) else t
            for v, t in zip(op.outputs, out if many else [out], strict=True)
        ]
        return type(out)(spread) if many else spread[0]

    def _full(self, axes: tuple[Axis, ...], small: Tensor) -> Tensor:
        for dim, axis in enumerate(axes):
            if count(axis, self.counts) != axis.size:
                kept = torch.from_numpy(np.flatnonzero(mask(axis, self.keep))).to(small.device)
                shape = [*small.shape[:dim], axis.size, *small.shape[dim + 1 :]]
                small = small.new_zeros(shape).index_copy(dim, kept, small)
        return small


def _resized(value: Any, place: int | None, size: int) -> Any:
    if place is None:
        return size
    return [size if i == place else v for i, v in enumerate(value)]
