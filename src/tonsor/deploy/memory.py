"""Which values of a graph share memory, and where it is written to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

# These hand their input on where they have nothing to do, though their schema does not say so.
_HANDED_ON = (
    "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "type_as",
    "broadcast_tensors", "atleast_1d", "atleast_2d", "atleast_3d",
)  # fmt: skip


class Memory:
    """What is known of a graph as it is now: after a change it has to be made anew."""

    def __init__(self, graph: fx.Graph) -> None:
        self.place = {node: i for i, node in enumerate(graph.nodes)}
        self._parent = {node: node for node in graph.nodes}
        self._writes: list[tuple[fx.Node, fx.Node]] = []
        for node in graph.nodes:
            if node.op == "call_function":
                self._read(node)

    def _read(self, node: fx.Node) -> None:
        if not isinstance(node.target, torch._ops.OpOverload):
            for given in node.all_input_nodes:
                self._join(node, given)
                if isinstance(node.target, torch._ops.HigherOrderOperator):
                    self._writes.append((node, given))  # it may, nobody says
            return
        handed_on = node.target._schema.name.removeprefix("aten::") in _HANDED_ON
        for given, alias in _arguments(node):
            if handed_on or alias is not None:
                self._join(node, given)
            if alias is not None and alias.is_write:
                self._writes.append((node, given))

    def _join(self, one: fx.Node, other: fx.Node) -> None:
        self._parent[self.root(one)] = self.root(other)

    def root(self, node: fx.Node) -> fx.Node:
        """Return one and the same node for all that share memory."""
        while self._parent[node] is not node:
            node = self._parent[node]
        return node

    def written(self, node: fx.Node, after: fx.Node, until: fx.Node, but: list[fx.Node]) -> bool:
        """Whether somebody else than `but` writes to a value between two places."""
        low, high, root = self.place[after], self.place[until], self.root(node)
        return any(
            low < self.place[writer] < high and writer not in but and self.root(given) is root
            for writer, given in self._writes
        )

    def ever_written(self, node: fx.Node) -> bool:
        """Whether a value is written to at all."""
        root = self.root(node)
        return any(self.root(given) is root for _, given in self._writes)

    def is_last_use(self, value: fx.Node, at: fx.Node) -> bool:
        """Whether nothing reads the memory of a value after this place, but its result.

        What comes from outside may be read there.
        """
        root, here = self.root(value), self.place[at]
        alike = [n for n in self.place if self.root(n) is root and self.place[n] < here]
        if any(node.op in ("placeholder", "get_attr") for node in alike):
            return False
        return all(self.place[user] <= here for node in alike for user in node.users)


def _arguments(node: fx.Node) -> Iterator[tuple[fx.Node, Any]]:
    """Yield the values that an operator is given, with what its schema says of their memory."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    named = {a.name: a for a in schema}
    pairs = [*zip(schema, node.args, strict=False)]
    pairs += [(named[k], v) for k, v in node.kwargs.items() if k in named]
    for argument, value in pairs:
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, fx.Node):
                yield item, argument.alias_info
