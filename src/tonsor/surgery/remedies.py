"""What may make a failing cut right: an attribute that follows, or leaves cut along with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace

from torch import nn

from tonsor.surgery.attributes import Path, integers
from tonsor.surgery.places import Places, ancestors, likewise, subtrees
from tonsor.surgery.trial import Failure, Trial
from tonsor.types import Axis, Concat, Leaf, Mend, Op, Product, leaves, product


@dataclass(frozen=True, slots=True)
class Attempt:
    """A cut being tried: kept counts, attributes that follow, and leaves tied in number.

    `units` says how many indices of a tied leaf make one step of the tie.
    """

    counts: Mapping[str, int]
    mends: tuple[Mend, ...]
    units: Mapping[str, int]
    ties: tuple[frozenset[str], ...] = ()


Further = tuple[Attempt, Failure | None]


class Remedies:
    """Try one remedy after the other; only what gets the forward pass further is yielded."""

    def __init__(self, trial: Trial, places: Places, sizes: Mapping[str, int], model: nn.Module):
        self.trial = trial
        self.places = places
        self.sizes = sizes
        self.modules = dict(model.named_modules())

    def further(self, attempt: Attempt, failure: Failure) -> Iterator[Further]:
        """Yield attempts that fail later than `failure`, or not at all."""
        op = self.trial.solution.graph.ops[failure.op]
        for tried in self._mends(attempt, op):
            yield from self._if_further(tried, failure)
        for tried in self._ties(attempt, op):
            yield from self._if_further(tried, failure)
        for tried in self._proportions(attempt, op):
            after = self.trial.run(tried.counts, tried.mends)
            if after is None or after.op > failure.op:
                yield tried, after
                continue
            for both in self._mends(tried, self.trial.solution.graph.ops[after.op]):
                yield from self._if_further(both, failure)

    def _if_further(self, tried: Attempt, failure: Failure) -> Iterator[Further]:
        after = self.trial.run(tried.counts, tried.mends)
        if after is None or after.op > failure.op:
            yield tried, after

    # ------------------------------------------------------------ attributes

    def _mends(self, attempt: Attempt, op: Op) -> Iterator[Attempt]:
        """Let integer attributes follow that equal the size of something that shrinks here."""
        tried = {(m.module, m.path) for m in attempt.mends}
        changed = list(self._changed(op, attempt.counts))
        for path in dict.fromkeys((*ancestors(op.module), *self._owners(attempt.counts))):
            module = self.modules.get(path)
            for attribute, value in integers(module) if module is not None else ():
                for axis in changed:
                    if axis.size == value and (path, attribute) not in tried:
                        more = self._alike(Mend(path, attribute, axis), op, tried)
                        yield replace(attempt, mends=(*attempt.mends, *more))

    def _changed(self, op: Op, counts: Mapping[str, int]) -> Iterator[Axis]:
        seen: set[Axis] = set()
        for axis in self.places.near(op):
            for part in subtrees(axis):
                if part not in seen and any(leaf.name in counts for leaf in leaves(part)):
                    seen.add(part)
                    yield part

    def _owners(self, counts: Mapping[str, int]) -> Iterator[str]:
        """Yield the modules whose parameters a cut makes smaller: their sizes may be asked."""
        solution = self.trial.solution
        for name in solution.graph.tensors:
            if any(leaf.name in counts for a in solution.of(name) for leaf in leaves(a)):
                yield name.rpartition(".")[0]

    def _alike(self, mend: Mend, op: Op, known: Set[tuple[str, Path]]) -> Iterator[Mend]:
        """Yield a mend, and the same for every other module that runs the same line."""
        yield mend
        place = self.places.place(op, mend.axis)
        if not mend.module or place is None:
            return
        done = {*known, (mend.module, mend.path)}
        for other in self.places.same_line(op):
            axis = self.places.at(other, place)
            path = likewise(op.module, mend.module, other.module)
            if axis is None or path not in self.modules or (path, mend.path) in done:
                continue
            if (mend.path, axis.size) in set(integers(self.modules[path])):
                done.add((path, mend.path))
                yield Mend(path, mend.path, axis)

    # ------------------------------------------------------------ ties in number

    def _ties(self, attempt: Attempt, op: Op) -> Iterator[Attempt]:
        """Keep segments that lie side by side equally long."""
        for part in self._parts_near(op, Concat):
            assert isinstance(part, Concat)
            segments = {s.name: s.size for s in part.segments if isinstance(s, Leaf)}
            for name, kept in attempt.counts.items():
                equal = {n for n, size in segments.items() if size == segments.get(name)}
                equal &= self.sizes.keys()
                if len(equal) < 2 or all(attempt.counts.get(n) == kept for n in equal):
                    continue
                ties = [frozenset(equal), *self._ties_alike(op, part)]
                yield replace(
                    attempt,
                    counts={**attempt.counts, **dict.fromkeys(equal, kept)},
                    ties=(*attempt.ties, *ties),
                    units={**dict.fromkeys((n for t in ties for n in t), 1), **attempt.units},
                )

    def _ties_alike(self, op: Op, part: Concat) -> Iterator[frozenset[str]]:
        place = self.places.place(op, part)
        for other in self.places.same_line(op) if place is not None else ():
            axis = self.places.at(other, place)
            if isinstance(axis, Concat) and len({s.size for s in axis.segments}) == 1:
                names = frozenset(s.name for s in axis.segments if isinstance(s, Leaf))
                if len(names) > 1 and names <= self.sizes.keys():
                    yield names

    def _proportions(self, attempt: Attempt, op: Op) -> Iterator[Attempt]:
        """Cut a width and the heads inside another axis of that width by the same share.

        Code that computes a head's size as width // heads needs both to shrink together.
        """
        near = dict.fromkeys(leaf for axis in self.places.near(op) for leaf in leaves(axis))
        widths = [f for f in near if f.name in self.sizes]
        for part in self._products_near(op):
            free = [f for f in leaves(part) if f.name in self.sizes]
            if len(free) != 1 or free[0].size < 2:
                continue
            heads = free[0]
            for width in widths:
                if width.size != part.size or width == heads:
                    continue
                if not {width.name, heads.name} & attempt.counts.keys():
                    continue
                yield from self._in_step(attempt, op, width, heads, part)

    def _in_step(
        self, attempt: Attempt, op: Op, width: Leaf, heads: Leaf, part: Axis
    ) -> Iterator[Attempt]:
        members = {heads.name, *self._heads_alike(op, width, heads, part)}
        units = {width.name: width.size // heads.size, **dict.fromkeys(members, 1)}
        if any(attempt.units.get(n, u) != u for n, u in units.items()):
            return
        tied = next((t for t in attempt.ties if width.name in t), frozenset())
        names = frozenset(units) | tied
        units = {**attempt.units, **units}
        steps = max(1, heads.size // 2)
        if names == tied and all(attempt.counts.get(n) == steps * units[n] for n in names):
            return
        yield replace(
            attempt,
            counts={**attempt.counts, **{n: steps * units[n] for n in names}},
            ties=(*(t for t in attempt.ties if t != tied), names),
            units=units,
        )

    def _heads_alike(self, op: Op, width: Leaf, heads: Leaf, part: Axis) -> Iterator[str]:
        place = self.places.place(op, heads)
        for other in self.places.same_line(op) if place is not None else ():
            axis = self.places.at(other, place)
            if not isinstance(axis, Leaf) or axis.name not in self.sizes:
                continue
            beside = any(width in set(leaves(a)) for a in self.places.near(other))
            if axis.size == heads.size and beside:
                yield axis.name

    def _products_near(self, op: Op) -> Iterator[Axis]:
        """Yield products, and what is left of them without their outermost factors."""
        seen: set[Axis] = set()
        for part in self._parts_near(op, Product):
            assert isinstance(part, Product)
            for start in range(len(part.factors) - 1):
                inner = part if start == 0 else product(*part.factors[start:])
                if inner not in seen:
                    seen.add(inner)
                    yield inner

    def _parts_near(self, op: Op, kind: type) -> Iterator[Axis]:
        seen: set[Axis] = set()
        for axis in self.places.near(op):
            for part in subtrees(axis):
                if isinstance(part, kind) and part not in seen:
                    seen.add(part)
                    yield part
