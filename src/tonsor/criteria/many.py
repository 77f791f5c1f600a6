"""Scores of many places by several criteria of weights, those of one size at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tonsor.criteria.registry import Registered


class Many:
    """Views of weights with the pieces in front, to be scored by one criterion after the other.

    Networks repeat their layers, so that a few calls score all of them.

    >>> from tonsor.criteria.score import score
    >>> from tonsor.criteria.registry import find_criterion
    >>> many = Many([torch.ones(2, 3), torch.ones(2, 3), torch.ones(4, 1)])
    >>> [s.tolist() for s in many.scores(find_criterion("l1"))]
    [[3.0, 3.0], [3.0, 3.0], [1.0, 1.0, 1.0, 1.0]]
    """

    def __init__(self, views: Sequence[Tensor]) -> None:
        self._views = [v.detach() for v in views]
        self._alike: dict[tuple[object, ...], list[int]] = {}
        for i, view in enumerate(self._views):
            kind = len(view), view.numel(), view.dtype, view.device
            self._alike.setdefault(kind, []).append(i)
        self._stacks: list[Tensor] | None = None

    def scores(self, found: Registered) -> list[Tensor]:
        """Return the scores of each view."""
        if found.at_once is None or any(v.is_complex() for v in self._views):
            return [found(v) for v in self._views]
        if self._stacks is None:
            self._stacks = [self._stacked(places) for places in self._alike.values()]
        scores: list[Tensor] = list(self._views)
        for places, stack in zip(self._alike.values(), self._stacks, strict=True):
            made = found.at_once(stack, **found.options)
            for place, values in zip(places, made, strict=True):
                scores[place] = values
        return scores

    def _stacked(self, places: Sequence[int]) -> Tensor:
        stack = torch.stack([self._views[i].reshape(len(self._views[i]), -1) for i in places])
        return stack.float() if stack.dtype in (torch.float16, torch.bfloat16) else stack
