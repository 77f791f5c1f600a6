"""Anatomy in words: the printed page, and the answer to "why was this not cut?"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from tonsor.axes.tree import axis_text
from tonsor.errors import SelectionError
from tonsor.types import Group, Leaf, Pin, PinKind

if TYPE_CHECKING:
    from tonsor.anatomy import Anatomy

_LINES = 60
_COSTS = ("macs", "params")

REWRITES: Mapping[PinKind, str] = {
    "input": "nothing frees an axis of the input",
    "output": "nothing frees an axis of the output; a cache or an extra output can be left out "
    "of what the model returns (for example use_cache=False)",
    "data": "nothing: it comes from the data or from the kernel, not from a width",
    "kernel": "nothing: positions of a kernel are not a width",
    "unknown_op": "teach tonsor the operator with @tonsor.rule, or write it with others",
    "position": "work on the axis as a whole instead of picking positions along it",
    "literal": "write -1, read the size from a tensor's shape, or hold it in an integer attribute "
    "of the module that is used for nothing else",
    "conflict": "reshape along the boundaries the axis already has",
    "head_dim": "inspect(..., head_dims=True) frees it, where the scale is computed from the shape "
    "or you accept the old one",
    "escape": "use the result inside the model, or give an example input that leads there",
    "scripted": "use the Python module instead of the scripted one",
    "value": "compute the value from the tensor it belongs to, not from a stored size",
    "keep": "leave it out of keep=",
}


@dataclass(frozen=True, slots=True)
class Slice:
    """One dimension of one tensor: its axis, the groups in it, and what cutting would save."""

    tensor: str
    dim: int
    axis: str
    groups: tuple[Group, ...]
    saves: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a module is tied to, whether it may be cut, why not, and what it would save."""

    name: str
    slices: tuple[Slice, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as plain data."""
        return {
            "name": self.name,
            "slices": [
                {
                    "tensor": s.tensor,
                    "dim": s.dim,
                    "axis": s.axis,
                    "groups": [
                        group_json(g)
                        | {"half_saves": dict(zip(_COSTS, s.saves[g.name], strict=True))}
                        for g in s.groups
                    ],
                }
                for s in self.slices
            ],
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [self.name]
        for part in self.slices:
            lines.append(f"  {part.tensor}[{part.dim}] = {part.axis}")
            for group in part.groups:
                lines += [f"    {line}" for line in _group_lines(group, part)]
        return "\n".join(lines)


def _group_lines(group: Group, part: Slice) -> Iterator[str]:
    verdict = "may be cut" if group.prunable else "may not be cut"
    yield f"{group.name}: {group.size} {group.kind.replace('_', ' ')}, {verdict}"
    others = [str(m) for m in group.members if (m.tensor, m.dim) != (part.tensor, part.dim)]
    if others:
        shown = ", ".join(others[:8]) + (f" and {len(others) - 8} more" if len(others) > 8 else "")
        yield f"  tied to {shown}"
    for what in group.approximate:
        yield f"  approximate: {what} takes its statistics over what is kept"
    for pin in group.pins:
        yield f"  because {pin}"
        yield f"    what would free it: {REWRITES[pin.kind]}"
    if group.prunable:
        macs, params = part.saves[group.name]
        yield f"  half of it would save {macs:.1%} of the MACs and {params:.1%} of the parameters"


def explain(anatomy: Anatomy, name: str) -> Explanation:
    """Explain a module or a parameter of an anatomy."""
    tensors = [t for t in anatomy.graph.tensors if t == name or t.rpartition(".")[0] == name]
    if not tensors:
        tensors = [t for t in anatomy.graph.tensors if t.startswith(f"{name}.")]
    if not tensors:
        known = sorted(
            {t.rpartition(".")[0] for t in anatomy.graph.tensors} | set(anatomy.graph.tensors)
        )
        close = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see print(anatomy)"
        message = f"no module or tensor is called '{name}'; {hint}"
        raise SelectionError(message)
    slices = []
    saves: dict[str, tuple[float, float]] = {}
    for tensor in tensors:
        if tensor not in anatomy.graph.parameters:
            continue
        for dim, axis in enumerate(anatomy.axes(tensor)):
            groups = tuple(
                g for g in anatomy.groups
                if any(m.tensor == tensor and m.dim == dim for m in g.members)
            )  # fmt: skip
            for group in groups:
                if group.name not in saves:
                    saves[group.name] = _half_saves(anatomy, group)
            if axis.size > 1 and (groups or not isinstance(axis, Leaf)):
                slices.append(Slice(tensor, dim, axis_text(axis), groups, saves))
    return Explanation(name, tuple(slices))


def _half_saves(anatomy: Anatomy, group: Group) -> tuple[float, float]:
    tied = [
        g for g in anatomy.groups if g is group or (group.tie is not None and g.tie == group.tie)
    ]
    counts = {g.name: max(1, g.size // g.unit // 2) * g.unit for g in tied}
    cost = anatomy.cost
    macs, params = cost.macs() or 1, cost.params() or 1
    return 1 - cost.macs(counts) / macs, 1 - cost.params(counts) / params


def anatomy_text(anatomy: Anatomy) -> str:
    """Write the page that `print(anatomy)` shows."""
    cost, graph = anatomy.cost, anatomy.graph
    ran = {"fake": "on shapes alone", "real": "on the example", "export": "by torch.export"}
    prunable, pinned = anatomy.prunable, anatomy.pinned
    lines = [
        f"{type(anatomy.model).__name__}: {short(cost.params())} parameters, "
        f"{short(cost.macs())} MACs, {len(graph.ops)} operators traced {ran[graph.ran]}",
        f"{len(prunable)} groups may be cut, {len(pinned)} may not.",
    ]
    if prunable:
        lines += ["", *_table(prunable)]
    if pinned:
        lines += ["", "may not be cut:"]
        width = max(len(g.name) for g in pinned[:_LINES])
        lines += [f"  {g.name:<{width}}  {g.size:>6}  {g.pins[0]}" for g in pinned[:_LINES]]
        lines += _more(len(pinned))
    if anatomy.unreached:
        names = ", ".join(anatomy.unreached[:8])
        more = f" and {len(anatomy.unreached) - 8} more" if len(anatomy.unreached) > 8 else ""
        lines += ["", f"never reached by this input, and left alone: {names}{more}"]
    if cost.uncounted:
        lines += [
            "",
            f"operators without a cost formula: {', '.join(str(u) for u in cost.uncounted)}",
        ]
    return "\n".join(lines)


def _table(groups: tuple[Group, ...]) -> Iterator[str]:
    shown = groups[:_LINES]
    width = max(len(g.name) for g in shown)
    yield f"  {'group':<{width}}  {'size':>6}  kind      runs through"
    for group in shown:
        notes = f"  approximate ({', '.join(group.approximate)})" if group.approximate else ""
        tie = f"  as many as tie {group.tie}" if group.tie is not None else ""
        count = len({m.tensor for m in group.members})
        kind = group.kind.replace("_", " ")
        yield f"  {group.name:<{width}}  {group.size:>6}  {kind:<8}  {count} tensors{notes}{tie}"
    yield from _more(len(groups))


def _more(number: int) -> Iterator[str]:
    if number > _LINES:
        yield f"  ... and {number - _LINES} more; anatomy.to_json() has them all"


def anatomy_json(anatomy: Anatomy) -> dict[str, Any]:
    """Return an anatomy as plain data."""
    return {
        "model": type(anatomy.model).__name__,
        "macs": anatomy.cost.macs(),
        "params": anatomy.cost.params(),
        "operators": len(anatomy.graph.ops),
        "traced": anatomy.graph.ran,
        "groups": [group_json(g) for g in anatomy.groups],
        "mends": [{"attribute": str(m), "axis": axis_text(m.axis)} for m in anatomy.mends],
        "unreached": list(anatomy.unreached),
        "uncounted": [str(u) for u in anatomy.cost.uncounted],
    }


def group_json(group: Group) -> dict[str, Any]:
    """Return a group as plain data."""
    return {
        "name": group.name,
        "size": group.size,
        "kind": group.kind,
        "prunable": group.prunable,
        "members": [{"at": str(m), "axis": axis_text(m.axis)} for m in group.members],
        "approximate": list(group.approximate),
        "tie": group.tie,
        "pins": [pin_json(p) for p in group.pins],
    }


def pin_json(pin: Pin) -> dict[str, Any]:
    """Return a pin as plain data, with what would free it."""
    return {
        "kind": pin.kind,
        "reason": pin.detail,
        "op": pin.op,
        "module": pin.module,
        "source": str(pin.source) if pin.source else "",
        "rewrite": REWRITES[pin.kind],
    }


def short(number: float) -> str:
    """Write a large number the way people say it: 1.81 G."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:g}"
