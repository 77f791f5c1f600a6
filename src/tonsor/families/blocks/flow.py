"""The recorded run as flow: which operator made a tensor, and which read it.

An operator that writes into a tensor makes a new version of it, so that every state of a tensor
has one maker. Views of what is written into are not followed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from tonsor.types import Call, Graph, Op, Ref


@dataclass(frozen=True, slots=True)
class State:
    """A tensor between two operators that write into it."""

    value: int
    version: int


@dataclass(frozen=True)
class Flow:
    """Makers and readers of every state of every tensor of a graph."""

    graph: Graph

    @cached_property
    def _writes(self) -> dict[int, list[int]]:
        """The operators that write into a tensor that was there before, by the tensor.

        Others may return what they were given as it is, such as dropout when it is off.
        """
        found: dict[int, list[int]] = defaultdict(list)
        for op in self.graph.ops:
            if not op.name.endswith("_"):
                continue
            before = set(op.inputs)
            for value in dict.fromkeys(op.outputs):
                if value is not None and value in before:
                    found[value].append(op.index)
        return found

    def before(self, value: int, op: int) -> State:
        """Return the state of a tensor as an operator meets it, or as a call that begins there."""
        return State(value, bisect_left(self._writes.get(value, ()), op))

    def after(self, value: int, op: int) -> State:
        """Return the state of a tensor that an operator leaves behind."""
        return self.before(value, op + 1)

    @cached_property
    def _makers(self) -> dict[State, Op]:
        found: dict[State, Op] = {}
        for op in self.graph.ops:
            given = {self.before(v, op.index) for v in op.inputs}
            for value in op.outputs:
                state = None if value is None else self.after(value, op.index)
                if state is not None and state not in given:
                    found.setdefault(state, op)
        return found

    def maker(self, state: State) -> Op | None:
        """Return the operator that made a state; None of what was there from the start."""
        return self._makers.get(state)

    @cached_property
    def _readers(self) -> dict[State, list[Op]]:
        found: dict[State, list[Op]] = defaultdict(list)
        for op in self.graph.ops:
            for value in dict.fromkeys(op.inputs):
                found[self.before(value, op.index)].append(op)
        return found

    def readers(self, state: State) -> list[Op]:
        """Return the operators that read a state."""
        return self._readers.get(state, [])

    @cached_property
    def _uses(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = defaultdict(list)
        for op in self.graph.ops:
            for value in dict.fromkeys(op.inputs):
                found[value].append(op.index)
        return found

    def uses(self, value: int) -> list[int]:
        """Return the operators that read a tensor in any state."""
        return self._uses.get(value, [])

    @cached_property
    def _returned(self) -> set[State]:
        end = len(self.graph.ops)
        return {self.before(value, end) for _, value in self.graph.outputs}

    def is_returned(self, state: State) -> bool:
        """Whether the model returns a state."""
        return state in self._returned

    def used_after(self, state: State, op: int) -> bool:
        """Whether anything from an operator on reads a state, or the model returns it."""
        return self.is_returned(state) or any(o.index >= op for o in self.readers(state))

    def reached(self, starts: Iterable[State], first: int, stop: int) -> set[State]:
        """Return what operators from `first` to `stop` make of some tensors, and these."""
        found = set(starts)
        for op in self.graph.ops[first:stop]:
            if any(self.before(v, op.index) in found for v in op.inputs):
                found |= {self.after(v, op.index) for v in op.outputs if v is not None}
        return found

    def shape(self, state: State) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.graph.values[state.value].shape

    def given(self, call: Call) -> dict[tuple[str | int, ...], State]:
        """Return the tensors that a call was given, by where they are among its arguments."""
        found = dict(tensors_at(call.args))
        found |= {p: v for k, item in call.kwargs.items() for p, v in tensors_at(item, (k,))}
        return {path: self.before(value, call.first) for path, value in found.items()}

    def returned(self, call: Call) -> dict[tuple[str | int, ...], State]:
        """Return the tensors that a call returned, by where they are in its result."""
        return {p: self.before(value, call.stop) for p, value in tensors_at(call.out)}


def tensors_at(
    tree: object, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], int]]:
    """Yield the tensors of a nest of containers with the steps that lead to them."""
    if isinstance(tree, Ref):
        yield path, tree.value
    elif isinstance(tree, (tuple, list)):
        for i, item in enumerate(tree):
            yield from tensors_at(item, (*path, i))
    elif isinstance(tree, dict):
        for key, item in tree.items():
            yield from tensors_at(item, (*path, key))
