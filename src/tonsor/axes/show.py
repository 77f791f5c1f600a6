"""The solved axes as text that stays the same: for reading, for diffs, for golden files."""

from __future__ import annotations

from collections.abc import Iterator

from tonsor.axes.tree import axis_text
from tonsor.types import Leaf, Pin, Solution, leaves


def axes_text(solution: Solution) -> str:
    """Write the axes of every parameter and buffer, then the leaves with roles and pins.

    >>> import torch
    >>> from tonsor.axes.solve import solve
    >>> from tonsor.graph.trace import trace
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 4, bias=False))
    >>> print(axes_text(solve(trace(net, torch.randn(2, 8)))))
    0.weight[0] = 0.weight[0]:16
    0.weight[1] = 0.weight[1]:8
    0.bias[0] = 0.weight[0]:16
    1.weight[0] = 1.weight[0]:4
    1.weight[1] = 0.weight[0]:16
    <BLANKLINE>
    leaves
      0.weight[0]:16
      0.weight[1]:8
        input: an axis of the input '0'
      1.weight[0]:4
        output: an axis of the model's output
    """
    lines = []
    found: dict[str, Leaf] = {}
    for tensor in solution.graph.tensors:
        for dim, axis in enumerate(solution.of(tensor)):
            lines.append(f"{tensor}[{dim}] = {axis_text(axis)}")
            for leaf in leaves(axis):
                found.setdefault(leaf.name, leaf)
    lines += ["", "leaves"]
    for leaf in found.values():
        lines += [f"  {line}" for line in _leaf_lines(solution, leaf)]
    return "\n".join(lines)


def _leaf_lines(solution: Solution, leaf: Leaf) -> Iterator[str]:
    roles = ", ".join(sorted(solution.roles.get(leaf.name, ())))
    yield axis_text(leaf) + (f"  ({roles})" if roles else "")
    for pin in solution.pins.get(leaf.name, ()):
        yield f"  {_pin_text(pin)}"


def _pin_text(pin: Pin) -> str:
    """Write a pin without the line of source: where that lies differs between machines."""
    operator = f" ({pin.op})" if pin.op and pin.op not in pin.detail else ""
    return f"{pin.kind}: {pin.detail}{operator}" + (f" in '{pin.module}'" if pin.module else "")
