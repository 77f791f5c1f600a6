"""Names for leaves that stay the same from one run to the next.

A leaf is called after the first dimension of a parameter that it runs through, preferring
one that is the leaf and nothing else: `layer1.0.conv1.weight[0]`. A leaf that is only ever
part of a dimension carries its place in the tree: `attn.qkv.weight[0].1`.
"""

from __future__ import annotations

from tonsor.axes.algebra import find
from tonsor.axes.solver import Node, Solver


def name_leaves(s: Solver) -> dict[int, str]:
    """Name every leaf of every value, parameters first, in the model's own order."""
    names: dict[int, str] = {}
    ordered = list(s.graph.tensors.items())
    for whole in (True, False):
        for tensor, value in ordered:
            for dim, node in enumerate(s.of(value)):
                root = find(node)
                if root.kind == "leaf":
                    names.setdefault(id(root), f"{tensor}[{dim}]")
                elif not whole:
                    _name_parts(root, f"{tensor}[{dim}]", names)
    done: set[int] = set()
    for value in s.axes:
        for node in s.axes[value]:
            _name_data(node, names, done)
    for mixing in s.mixing:
        for node in mixing.nodes:
            _name_data(node, names, done)
    for *_, node in s.sizes:
        _name_data(node, names, done)
    return names


def _name_parts(node: Node, prefix: str, names: dict[int, str]) -> None:
    for i, part in enumerate(node.parts):
        root = find(part)
        if root.kind == "leaf":
            names.setdefault(id(root), f"{prefix}.{i}")
        else:
            _name_parts(root, f"{prefix}.{i}", names)


def _name_data(node: Node, names: dict[int, str], done: set[int]) -> None:
    root = find(node)
    if id(root) in done:
        return
    done.add(id(root))
    if root.kind == "leaf":
        names.setdefault(id(root), f"~{len(names)}")
    else:
        for part in root.parts:
            _name_data(part, names, done)
