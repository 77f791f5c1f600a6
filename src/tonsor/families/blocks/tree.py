"""The calls of a run as a tree, and what their modules hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tonsor.types import Call, Graph


@dataclass(slots=True)
class Node:
    """A call and the calls inside it, in order."""

    call: Call
    inner: list[Node] = field(default_factory=list)

    def below(self) -> Iterator[Node]:
        """Yield every call inside this one, the outer ones first."""
        for node in self.inner:
            yield node
            yield from node.below()


class Tree:
    """The calls of a graph by nesting; parameters by the modules that hold them."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.times = Counter(c.module for c in graph.calls)
        self.root = Node(graph.calls[0])
        path = [self.root]
        for call in graph.calls[1:]:
            node = Node(call)
            del path[call.depth :]
            while not path[-1].call.first <= call.first <= call.stop <= path[-1].call.stop:
                path.pop()
            path[-1].inner.append(node)
            path.append(node)
        self.held: Mapping[str, list[str]] = _held(graph)

    def parameters(self, module: str) -> list[str]:
        """Name the parameters in a module and in all that is inside it."""
        return self.held.get(module, [])

    def light(self, module: str) -> bool:
        """Whether a module holds no weight of more than one dimension."""
        values = self.graph.values
        return all(len(values[self.graph.tensors[n]].shape) < 2 for n in self.parameters(module))

    def likeness(self, module: str) -> tuple[object, ...]:
        """Return what modules of the same make have in common."""
        kind = self.graph.module_types.get(module, "")
        return kind, *(n.removeprefix(f"{module}.") for n in self.parameters(module))

    def alike(self, one: str, two: str) -> bool:
        """Whether two modules are of the same make, be it that one has lost a part of it."""
        (kind, *first), (other, *second) = self.likeness(one), self.likeness(two)
        shared = {*first} & {*second}
        return kind == other and bool(shared) and shared in ({*first}, {*second})

    def is_listed(self, module: str) -> bool:
        """Whether a module is one of several of the same make in a list."""
        held, _, place = module.rpartition(".")
        others = (m for m in self.times if m != module and m.rpartition(".")[0] == held)
        return place.isdecimal() and any(
            m.rpartition(".")[2].isdecimal() and self.alike(m, module) for m in others
        )

    def lost_with(self, modules: tuple[str, ...], but: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Name the parameters that nobody holds any more once these modules are gone."""
        gone = {n for m in modules for n in self.parameters(m)}
        gone -= {n for m in but for n in self.parameters(m)}
        others = {v for n, v in self.graph.parameters.items() if n not in gone}
        return tuple(n for n, v in self.graph.parameters.items() if n in gone and v not in others)


def _held(graph: Graph) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in graph.parameters:
        path = name.rpartition(".")[0]
        while path:
            found[path].append(name)
            path = path.rpartition(".")[0]
        found[""].append(name)
    return found
