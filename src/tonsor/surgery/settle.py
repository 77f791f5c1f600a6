"""Decide by trying which leaves are free, which are tied in number, and what must be mended.

All free leaves are cut at once by different amounts. When the forward pass first does
something else than predicted, the leaf to blame is isolated by bisection and cut alone;
then remedies are tried: an attribute that follows, a tie in number, or else a pin. A verdict
is carried over to every operator that the same line of the same class has run, so that a
model of a hundred equal blocks is settled as fast as one block.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from tonsor.graph.inputs import Inputs
from tonsor.surgery.attributes import known_mends
from tonsor.surgery.places import Places, subtrees
from tonsor.surgery.remedies import Attempt, Remedies
from tonsor.surgery.trial import Failure, Trial
from tonsor.types import Concat, Leaf, Mend, Op, Pin, Solution, leaves

MAX_ROUNDS = 400


@dataclass
class Settled:
    """What trying has found: mends, ties in number, and leaves that must stay.

    The leaves of a tie lose indices together: as many steps, of `units` indices each.
    """

    mends: tuple[Mend, ...]
    ties: list[set[str]] = field(default_factory=list)
    units: dict[str, int] = field(default_factory=dict)
    pins: dict[str, Pin] = field(default_factory=dict)
    runs: int = 0

    def partners(self, leaf: str) -> set[str]:
        """Return all leaves that must lose indices together with this one."""
        return next((tie for tie in self.ties if leaf in tie), {leaf})

    def tie(self, names: set[str]) -> None:
        """Tie leaves in number, and everything already tied to them."""
        merged = set(names)
        for tie in [t for t in self.ties if t & names]:
            merged |= tie
            self.ties.remove(tie)
        self.ties.append(merged)


def settle(model: nn.Module, inputs: Inputs, solution: Solution, free: Sequence[Leaf]) -> Settled:
    """Try cutting `free` leaves until the model does what the axes predict."""
    work = _Settling(model, inputs, solution, free)
    work.run()
    return work.found


class _Settling:
    def __init__(
        self, model: nn.Module, inputs: Inputs, solution: Solution, free: Sequence[Leaf]
    ) -> None:
        self.solution = solution
        self.trial = Trial(model, inputs, solution)
        self.places = Places(solution)
        self.size = {leaf.name: leaf.size for leaf in free}
        self.remedies = Remedies(self.trial, self.places, self.size, model)
        self.found = Settled(known_mends(model, solution))
        self.random = random.Random(0)
        self.sides = {
            part.name: bool(i % 2)
            for value in solution.graph.parameters.values()
            for axis in solution.axes[value]
            for whole in subtrees(axis)
            if isinstance(whole, Concat)
            for i, part in enumerate(whole.segments)
            if isinstance(part, Leaf) and part.name in self.size
        }

    # ------------------------------------------------------------ rounds

    def run(self) -> None:
        kinds = ["light"]
        if any(_may_hold_sizes(op) for op in self.solution.graph.ops):
            kinds += ["heavy", "even", "odd"] if self.sides else ["heavy"]
        rounds = 0
        for kind in kinds:
            while rounds < MAX_ROUNDS:
                rounds += 1
                counts = self._counts(kind)
                failure = self.trial.run(counts, self.found.mends) if counts else None
                if failure is None:
                    break
                self._resolve(failure, counts)
        self.found.runs = self.trial.runs

    def _counts(self, kind: str) -> dict[str, int]:
        """Choose how many indices to keep: different side by side, in step within a tie.

        Leaves of one size share three counts in turn, so that equal blocks run on equal
        shapes, which costs far less than as many shapes as blocks.

        A light cut takes up to half, a heavy one more; "even" and "odd" cut only every other
        segment of a concatenation, since short neighbours may happen to be cut alike.
        """
        counts: dict[str, int] = {}
        turns: dict[int, int] = {}
        chosen: dict[tuple[int, int], int] = {}
        for name in self.size:
            partners = self.found.partners(name)
            if name in counts or partners & self.found.pins.keys():
                continue
            if kind in ("even", "odd") and self.sides.get(name) != (kind == "odd"):
                continue
            steps = self.size[name] // self.found.units.get(name, 1)
            low, high = (1, max(1, steps // 2)) if kind == "heavy" else (steps // 2, steps - 1)
            turn = turns[steps] = turns.get(steps, -1) + 1
            choice = steps, turn % 3
            if choice not in chosen:
                chosen[choice] = self.random.randint(max(1, low), max(1, high))
            kept = chosen[choice]
            for partner in partners:
                counts[partner] = kept * self.found.units.get(partner, 1)
        return counts

    # ------------------------------------------------------------ blame

    def _resolve(self, failure: Failure, counts: dict[str, int]) -> None:
        names = self._blame(failure, counts)
        ties = tuple(frozenset(t) for t in self.found.ties)
        attempt = Attempt({n: counts[n] for n in names}, self.found.mends, self.found.units, ties)
        failure = self.trial.run(attempt.counts, attempt.mends) or failure
        while better := next(self.remedies.further(attempt, failure), None):
            attempt, after = better
            if after is None:
                self._adopt(attempt)
                return
            failure = after
        for name in names:
            self._pin(name, self.solution.graph.ops[failure.op], failure)

    def _adopt(self, attempt: Attempt) -> None:
        self.found.mends = attempt.mends
        self.found.units = dict(attempt.units)
        for tie in attempt.ties:
            self.found.tie(set(tie))

    def _fails(self, counts: Mapping[str, int], until: int) -> bool:
        failure = self.trial.run(counts, self.found.mends)
        return failure is not None and failure.op <= until

    def _blame(self, failure: Failure, counts: dict[str, int]) -> list[str]:
        """Return a small set of leaves (with their ties) that fails as early by itself."""
        op = self.solution.graph.ops[failure.op]
        near = {leaf.name for axis in self.places.near(op) for leaf in leaves(axis)}
        ordered = sorted(counts, key=lambda n: n not in near)
        needed: list[str] = []
        while ordered and len(needed) <= 4:
            base = {n: counts[n] for n in needed}
            if needed and self._fails(base, failure.op):
                break
            low, high = 0, len(ordered)  # the first `high` fail together with `needed`
            while high - low > 1:
                middle = (low + high) // 2
                if self._fails(self._closed(ordered[:middle], counts) | base, failure.op):
                    high = middle
                else:
                    low = middle
            culprit = ordered[high - 1]
            if culprit in needed:
                break
            needed += [n for n in self.found.partners(culprit) if n in counts]
            ordered = ordered[: high - 1]
        return needed

    def _closed(self, names: Sequence[str], counts: dict[str, int]) -> dict[str, int]:
        every = {p for n in names for p in self.found.partners(n) if p in counts}
        return {n: counts[n] for n in every}

    def _pin(self, name: str, op: Op, failure: Failure) -> None:
        """Pin a leaf, and the leaves in its place wherever the same line runs."""
        place = self.places.place(op, Leaf(name, self.size[name]))
        others = self.places.same_line(op) if place is not None else ()
        found = [(name, op)]
        for other in others:
            axis = self.places.at(other, place) if place is not None else None
            if isinstance(axis, Leaf):
                found.append((axis.name, other))
        for leaf, where in found:
            if leaf in self.size and leaf not in self.found.pins:
                detail = f"the code here needs exactly {self.size[leaf]} of it: {failure.what}"
                self.found.pins[leaf] = Pin(
                    "literal", detail, where.name, where.module, where.source
                )


_NUMBERS = frozenset(
    {"size", "shape", "sizes", "split_size", "split_sizes", "start", "end", "length", "repeats",
     "chunks", "sections", "indices_or_sections"}
)  # fmt: skip


def _may_hold_sizes(op: Op) -> bool:
    """Whether an operator is told a size by a number that Python computed or held."""
    for name in op.args.keys() & _NUMBERS:
        value = op.args[name]
        if any(type(v) is int and v > 1 for v in (value if isinstance(value, tuple) else (value,))):
            return True
    return False
