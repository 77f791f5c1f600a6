"""Decide by trying which leaves are free, which are tied in number, and what must be mended.

All free leaves are cut at once by different amounts. When the forward pass first does
something else than predicted, the leaf to blame is isolated by bisection and cut alone;
then the remedies are tried in order: an attribute that follows, a tie in number between
segments, a pin. A verdict is carried over to every operator that the same line of the same
class has run, so that a model of a hundred equal blocks is settled as fast as one block.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import nn

from tonsor.graph.inputs import Inputs
from tonsor.surgery.attributes import integers, known_mends
from tonsor.surgery.trial import Failure, Trial
from tonsor.types import Axis, Concat, Leaf, Mend, Op, Pin, Product, Solution, leaves

MAX_ROUNDS = 400
_WINDOW = 3


@dataclass
class Settled:
    """What trying has found: mends, ties in number, and leaves that must stay."""

    mends: tuple[Mend, ...]
    ties: list[set[str]] = field(default_factory=list)
    pins: dict[str, Pin] = field(default_factory=dict)
    runs: int = 0

    def partners(self, leaf: str) -> set[str]:
        """Return all leaves that must keep as many indices as this one."""
        for tie in self.ties:
            if leaf in tie:
                return tie
        return {leaf}

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
        self.modules = dict(model.named_modules())
        self.solution = solution
        self.trial = Trial(model, inputs, solution)
        self.size = {leaf.name: leaf.size for leaf in free}
        self.found = Settled(known_mends(model, solution))
        self.random = random.Random(0)

    # ------------------------------------------------------------ rounds

    def run(self) -> None:
        for heavy in (False, True, False):
            for _ in range(MAX_ROUNDS):
                live = [n for n in self.size if n not in self.found.pins]
                counts = self._counts(live, heavy=heavy)
                failure = self.trial.run(counts, self.found.mends) if live else None
                if failure is None:
                    break
                self._resolve(failure, counts)
            if not heavy and not any(_may_hold_sizes(op) for op in self.solution.graph.ops):
                break  # nothing in the model takes a size as a number
        self.found.runs = self.trial.runs

    def _counts(self, names: Sequence[str], *, heavy: bool) -> dict[str, int]:
        """Choose how many indices to keep: different everywhere, equal within a tie."""
        counts: dict[str, int] = {}
        for name in names:
            if name in counts:
                continue
            size = self.size[name]
            low, high = (1, max(1, size // 2)) if heavy else (max(1, size // 2), size - 1)
            kept = self.random.randint(low, max(low, high))
            for partner in self.found.partners(name):
                counts[partner] = kept
        return {n: c for n, c in counts.items() if n not in self.found.pins}

    def _fails(self, counts: dict[str, int], until: int) -> Failure | None:
        failure = self.trial.run(counts, self.found.mends)
        return failure if failure is not None and failure.op <= until else None

    # ------------------------------------------------------------ blame

    def _resolve(self, failure: Failure, counts: dict[str, int]) -> None:
        names = self._blame(failure, counts)
        alone = {n: counts[n] for n in names}
        failure = self.trial.run(alone, self.found.mends) or failure
        op = self.solution.graph.ops[failure.op]
        before = self.found.mends
        while True:
            mend = self._find_mend(alone, failure)
            if mend is None:
                break
            self.found.mends += tuple(self._alike(mend, op))
            after = self.trial.run(alone, self.found.mends)
            if after is None:
                return
            failure = after
            op = self.solution.graph.ops[failure.op]
        self.found.mends = before
        if self._find_tie(alone, failure, op):
            return
        for name in names:
            self._pin(name, op, failure)

    def _blame(self, failure: Failure, counts: dict[str, int]) -> list[str]:
        """Return the smallest set of leaves (with their ties) that fails as early by itself."""
        op = self.solution.graph.ops[failure.op]
        near = {leaf.name for axis in self._axes_near(op) for leaf in leaves(axis)}
        ordered = sorted(counts, key=lambda n: n not in near)
        needed: list[str] = []
        while True:
            base = {n: counts[n] for n in needed}
            if needed and self._fails(base, failure.op):
                break
            low, high = 0, len(ordered)  # the first `high` fail together with `needed`
            while high - low > 1:
                middle = (low + high) // 2
                some = self._closed(ordered[:middle], counts) | base
                if self._fails(some, failure.op):
                    high = middle
                else:
                    low = middle
            culprit = ordered[high - 1]
            if culprit in needed:
                break
            needed += [n for n in self.found.partners(culprit) if n in counts]
            ordered = ordered[: high - 1]
            if not ordered or len(needed) > 4:
                break
        return needed

    def _closed(self, names: Sequence[str], counts: dict[str, int]) -> dict[str, int]:
        every = {p for n in names for p in self.found.partners(n) if p in counts}
        return {n: counts[n] for n in every}

    # ------------------------------------------------------------ remedies

    def _find_mend(self, counts: dict[str, int], failure: Failure) -> Mend | None:
        """Try integer attributes that equal a changed size; one that gets further is it."""
        op = self.solution.graph.ops[failure.op]
        tried: set[tuple[str, tuple[str | int, ...]]] = {
            (m.module, m.path) for m in self.found.mends
        }
        changed = [a for a in self._changed(op, counts)]
        for path in (*_ancestors(op.module), *self._owners(counts)):
            module = self.modules.get(path)
            if module is None:
                continue
            for attribute, value in integers(module):
                for axis in changed:
                    if axis.size != value or (path, attribute) in tried:
                        continue
                    mend = Mend(path, attribute, axis)
                    after = self.trial.run(counts, (*self.found.mends, mend))
                    if after is None or after.op > failure.op:
                        return mend
        return None

    def _owners(self, counts: dict[str, int]) -> list[str]:
        """Return the modules whose parameters a cut makes smaller: their sizes may be asked."""
        owners: dict[str, None] = {}
        for name in self.solution.graph.tensors:
            if any(leaf.name in counts for a in self.solution.of(name) for leaf in leaves(a)):
                owners[name.rpartition(".")[0]] = None
        return list(owners)

    def _changed(self, op: Op, counts: dict[str, int]) -> Iterator[Axis]:
        """Yield the axes, and parts of axes, near an operator that a cut makes smaller."""
        seen: set[Axis] = set()
        for axis in self._axes_near(op):
            for part in _subtrees(axis):
                if part not in seen and any(leaf.name in counts for leaf in leaves(part)):
                    seen.add(part)
                    yield part

    def _axes_near(self, op: Op) -> Iterator[Axis]:
        ops = self.solution.graph.ops
        for other in [op, *ops[max(0, op.index - _WINDOW) : op.index + 2]]:
            for value in (*(v for v in other.outputs if v is not None), *other.inputs):
                yield from self.solution.axes[value]

    def _alike(self, mend: Mend, op: Op) -> Iterator[Mend]:
        """Yield the mend, and the same for every other module that runs the same line."""
        yield mend
        place = self._place(op, mend.axis)
        if not mend.module or place is None:
            return
        known = {(m.module, m.path) for m in (*self.found.mends, mend)}
        for other in self._same_line(op):
            axis = self._at(other, place)
            path = _likewise(op.module, mend.module, other.module)
            if axis is None or path not in self.modules or (path, mend.path) in known:
                continue
            if (mend.path, axis.size) in set(integers(self.modules[path])):
                known.add((path, mend.path))
                yield Mend(path, mend.path, axis)

    def _find_tie(self, counts: dict[str, int], failure: Failure, op: Op) -> bool:
        """Try keeping segments that lie side by side equally long."""
        for axis in self._axes_near(op):
            for part in _subtrees(axis):
                if not isinstance(part, Concat):
                    continue
                segments = [s for s in part.segments if isinstance(s, Leaf)]
                for name, kept in counts.items():
                    mine = next((s for s in segments if s.name == name), None)
                    if mine is None:
                        continue
                    names = {s.name for s in segments if s.size == mine.size}
                    names = {n for n in names if n in self.size and n not in self.found.pins}
                    tied = counts | dict.fromkeys(names, kept)
                    if names <= counts.keys() and len({counts[n] for n in names}) == 1:
                        continue
                    after = self.trial.run(tied, self.found.mends)
                    if after is None or after.op > failure.op:
                        self.found.tie(names)
                        for other in self._same_line(op):
                            self._tie_alike(other, op, part)
                        return True
        return False

    def _tie_alike(self, other: Op, op: Op, part: Concat) -> None:
        place = self._place(op, part)
        axis = None if place is None else self._at(other, place)
        if isinstance(axis, Concat) and len({s.size for s in axis.segments}) == 1:
            names = {s.name for s in axis.segments if isinstance(s, Leaf)}
            if len(names) > 1 and names <= self.size.keys():
                self.found.tie(names)

    def _pin(self, name: str, op: Op, failure: Failure) -> None:
        """Pin a leaf, and the leaves in its place wherever the same line runs."""
        place = self._place(op, Leaf(name, self.size[name]))
        for other in (op, *(self._same_line(op) if place is not None else ())):
            leaf = name if other is op else getattr(self._at(other, place), "name", None)
            if leaf not in self.size or leaf in self.found.pins:
                continue
            detail = f"the code here needs exactly {self.size[leaf]} of it"
            self.found.pins[leaf] = Pin(
                "literal", f"{detail}: {failure.what}", other.name, other.module, other.source
            )

    # ------------------------------------------------------------ same place elsewhere

    def _same_line(self, op: Op) -> Iterator[Op]:
        types = self.solution.graph.module_types
        for other in self.solution.graph.ops:
            if (
                other is not op
                and other.name == op.name
                and other.source is not None
                and other.source == op.source
                and types.get(other.module) == types.get(op.module)
            ):
                yield other

    def _place(self, op: Op, axis: Axis) -> tuple[int, int, tuple[int, ...]] | None:
        for i, value in enumerate(_values(op)):
            for dim, whole in enumerate(self.solution.axes[value]):
                for path, part in _paths(whole):
                    if part == axis:
                        return i, dim, path
        return None

    def _at(self, op: Op, place: tuple[int, int, tuple[int, ...]]) -> Axis | None:
        i, dim, path = place
        values = _values(op)
        if i >= len(values) or dim >= len(self.solution.axes[values[i]]):
            return None
        axis = self.solution.axes[values[i]][dim]
        for step in path:
            parts = _parts(axis)
            if step >= len(parts):
                return None
            axis = parts[step]
        return axis


def _values(op: Op) -> list[int]:
    return [*(v for v in op.outputs if v is not None), *op.inputs]


def _parts(axis: Axis) -> tuple[Axis, ...]:
    if isinstance(axis, Leaf):
        return ()
    return axis.factors if isinstance(axis, Product) else axis.segments


def _paths(axis: Axis, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Axis]]:
    yield path, axis
    for i, part in enumerate(_parts(axis)):
        yield from _paths(part, (*path, i))


def _subtrees(axis: Axis) -> Iterator[Axis]:
    yield axis
    for part in _parts(axis):
        yield from _subtrees(part)


def _ancestors(path: str) -> Iterator[str]:
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def _likewise(here: str, target: str, there: str) -> str:
    """Return the module that lies to `there` as `target` lies to `here`."""
    common = here
    steps = 0
    while common and target != common and not target.startswith(f"{common}."):
        common = common.rpartition(".")[0]
        steps += 1
    for _ in range(steps):
        there = there.rpartition(".")[0]
    below = target[len(common) :].lstrip(".")
    return ".".join(p for p in (there, below) if p)


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
