"""Blocks as one pool: a block is masked by what its branch ends in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.blocks.score import score_blocks
from tonsor.criteria.score import Scores
from tonsor.errors import SelectionError
from tonsor.families.blocks.block import Block, Blocks
from tonsor.families.blocks.ends import ends_of
from tonsor.families.blocks.find import find_blocks
from tonsor.methods.earlier import Earlier
from tonsor.methods.pools.base import Expected, Unwatched, Wanted
from tonsor.methods.pools.drawn import Held, hold
from tonsor.plans import Plan
from tonsor.select.block_plan import kept_blocks
from tonsor.select.drop import drop_plan, with_numbers_that_hold

_NAME = "blocks"


class BlockPools(Unwatched):
    """The residual blocks of a model of which it is known what makes their branch zero."""

    def __init__(self, anatomy: Anatomy, wanted: Wanted) -> None:
        after = wanted.after
        self._anatomy, self._wanted, self._after = anatomy, wanted, after
        self._every = find_blocks(anatomy)
        stay = kept_blocks(anatomy, self._every, wanted.keep)
        if after is not None:
            after.check(anatomy.model)
            stay |= {d.name for d in after.drops}
        ends = {b.name: ends_of(anatomy, b) for b in self._every.removable}
        self.blocks: tuple[Block, ...] = tuple(
            b for b in self._every.removable if ends[b.name] and b.name not in stay
        )
        if not self.blocks:
            message = (
                "no block of this model may go in this way: none may go at all, or it is not known "
                "what makes its branch zero (a norm, a linear layer or a convolution at its end)"
            )
            raise SelectionError(message)
        self.there: Mapping[str, Tensor] = {_NAME: torch.ones(len(self.blocks), dtype=torch.bool)}
        self.tied: Sequence[Mapping[str, int]] = [{_NAME: 1}]
        self.scores()
        self.earlier = Earlier(anatomy, after, ends)
        held = hold(anatomy, [n for b in self.blocks for n in ends[b.name]], wanted.mode)
        self._held = {b.name: [held[n] for n in ends[b.name]] for b in self.blocks}
        self.held: Mapping[str, tuple[Held, ...]] = {_NAME: tuple(held.values())}

    def scores(self) -> list[Tensor]:
        """Score the blocks."""
        return [torch.stack([self._scored(by) for by in self._wanted.criteria])]

    def _scored(self, by: str | Scores) -> Tensor:
        if isinstance(by, Scores):
            message = "blocks are scored anew while training: give criteria by their names"
            raise SelectionError(message)
        asked = self._wanted
        found = score_blocks(
            self._anatomy, Blocks(self.blocks), by, batches=asked.batches, loss=asked.loss,
            at_most=asked.at_most, seed=asked.seed, quiet=True,
        ).values  # fmt: skip
        missing = [b.name for b in self.blocks if b.name not in found]
        if missing:
            message = f"'{by}' gives no score to '{missing[0]}'; choose another, or keep it"
            raise SelectionError(message)
        return torch.tensor([found[b.name] for b in self.blocks], dtype=torch.float64)

    def show_(self, drawn: Sequence[Tensor], kept: Sequence[Tensor] | None = None) -> None:
        """Mask the ends of branches."""
        for i, block in enumerate(self.blocks):
            for held in self._held[block.name]:
                held.show_(drawn[0][i], None if kept is None else kept[0][i])

    def silence(self, kept: Sequence[Tensor]) -> list[tuple[nn.Parameter, Tensor]]:
        """Nothing else speaks."""
        return []

    def amount(self, kept: Sequence[Tensor], target: str) -> float:
        """Return the cost of what is left."""
        if target == "pieces":
            return int(kept[0].sum())
        plan = self._plan(kept, {})
        account = self._anatomy.cost_without(plan.drops, plan.fibres)
        return account.amount(target, plan.amounts, before=self._anatomy.cost)

    def even(self, left: Mapping[str, int], target: str) -> float:
        """Return the cost if the cheapest blocks are those that go."""
        none = torch.ones(len(self.blocks), dtype=torch.bool)
        alone = [self._without(none, i, target) for i in range(len(self.blocks))]
        order = torch.tensor(alone, dtype=torch.float64).argsort(descending=True)
        none[order[: len(self.blocks) - left[_NAME]]] = False
        return self.amount([none], target)

    def expected(self, target: str) -> Expected:
        """Return what tells the cost where blocks stay in part, each saving what it does alone."""
        every = torch.ones(len(self.blocks), dtype=torch.bool)
        whole = self.amount([every], target)
        saved = torch.tensor(
            [whole - self._without(every, i, target) for i in range(len(self.blocks))],
            dtype=torch.float64,
        )
        return lambda stays: whole - ((1 - stays[0]) * saved).sum()

    def whole(self, target: str) -> float:
        """Return the cost of the whole model."""
        if target == "pieces":
            return len(self.blocks)
        return self._anatomy.cost.amount(target)

    def plan(self, kept: Sequence[Tensor], made_by: Mapping[str, Any]) -> Plan:
        """Return the plan that keeps just these blocks."""
        return with_numbers_that_hold(self._anatomy, self._plan(kept, made_by))

    def _without(self, whole: Tensor, block: int, target: str) -> float:
        left = whole.clone()
        left[block] = False
        return self.amount([left], target)

    def _plan(self, kept: Sequence[Tensor], made_by: Mapping[str, Any]) -> Plan:
        gone = [b.name for b, stays in zip(self.blocks, kept[0].tolist(), strict=True) if not stays]
        before = () if self._after is None else tuple(d.name for d in self._after.drops)
        return drop_plan(
            self._anatomy, self._every, [*before, *gone], made_by=made_by, after=self._after
        )
