"""What is tied to what in a model, what may be cut, and why the rest may not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from tonsor.axes.solve import has_rule, solve
from tonsor.axes.uses import Use, uses
from tonsor.cost.account import Account, account
from tonsor.cost.dropped import without
from tonsor.cost.fibred import by_fibres
from tonsor.drops import Drop
from tonsor.errors import TonsorError
from tonsor.explain import Explanation, anatomy_json, anatomy_text, explain
from tonsor.fibres import Fibres, Kind
from tonsor.graph.collector import uncollected
from tonsor.graph.inputs import Inputs, as_inputs
from tonsor.graph.trace import Mode, trace, unwrap
from tonsor.surgery.blame import blame, cut_fails
from tonsor.surgery.cutting import make_cut
from tonsor.surgery.settle import Settled, settle
from tonsor.types import (
    Axis,
    Conv,
    Graph,
    Group,
    GroupKind,
    Leaf,
    Member,
    Mend,
    Pin,
    Ref,
    Solution,
    leaves,
)

HEAD_DIM = (
    "the dimension of a head inside attention, off by default because the attention scale "
    "depends on it"
)


@dataclass(frozen=True)
class Anatomy:
    """Groups of coupled slices, convolutions, pins, and the cost of everything.

    `groups` are in the order of the model; those with pins can't be cut. `unreached` lists
    parameters that the example input never led to. `model` is the model that was inspected,
    which nothing here has changed.
    """

    model: nn.Module = field(repr=False)
    inputs: Inputs = field(repr=False)
    solution: Solution = field(repr=False)
    groups: tuple[Group, ...]
    mends: tuple[Mend, ...] = field(repr=False)
    cost: Account = field(repr=False)

    @property
    def graph(self) -> Graph:
        """The recorded run."""
        return self.solution.graph

    @property
    def unreached(self) -> tuple[str, ...]:
        """Parameters that no recorded operator has read."""
        return self.graph.unreached

    @cached_property
    def by_name(self) -> Mapping[str, Group]:
        """Groups by their names."""
        return {g.name: g for g in self.groups}

    @property
    def prunable(self) -> tuple[Group, ...]:
        """The groups that may be cut."""
        return tuple(g for g in self.groups if g.prunable)

    @property
    def pinned(self) -> tuple[Group, ...]:
        """The groups that may not be cut, each with its reasons."""
        return tuple(g for g in self.groups if not g.prunable)

    @cached_property
    def convs(self) -> tuple[Conv, ...]:
        """Every convolution with its geometry."""
        return tuple(_convs(self.solution))

    @cached_property
    def uses(self) -> Mapping[str, tuple[Use, ...]]:
        """Where each parameter meets data, by its first name."""
        return uses(self.graph)

    @cached_property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The parameters of the model under all their names."""
        return dict(self.model.named_parameters(remove_duplicate=False))

    @cached_property
    def module_paths(self) -> Mapping[int, str]:
        """The path of every module of the model, by its `id`."""
        return {id(m): n for n, m in self.model.named_modules(remove_duplicate=False)}

    def axes(self, tensor: str) -> tuple[Axis, ...]:
        """Return the axis of every dimension of a parameter or buffer."""
        return self.solution.of(tensor)

    def groups_of(self, module: str) -> Iterator[Group]:
        """Yield the groups that run through the parameters of a module."""
        for group in self.groups:
            if any(_owner(m.tensor) == module or m.tensor == module for m in group.members):
                yield group

    def cost_without(
        self, drops: Sequence[Drop], fibres: Mapping[str, Fibres] | None = None
    ) -> Account:
        """Return the cost of everything once some blocks are gone.

        The convolutions of the weights in `fibres` are counted by how many of those they have, so
        ask for it with `plan.amounts`.
        """
        kinds: dict[str, Kind] = {name: found.kind for name, found in (fibres or {}).items()}
        return by_fibres(without(self.cost, self.graph, drops), self.graph, kinds)

    def pinned_also(self, pins: Mapping[str, Pin]) -> Anatomy:
        """Return the same anatomy with more groups pinned."""
        groups = tuple(
            replace(g, pins=(*g.pins, pins[g.name])) if g.name in pins else g for g in self.groups
        )
        return self.but(groups=groups)

    def but(self, **changes: Any) -> Anatomy:
        """Return the same with other groups, say; of the parameters that are known by now.

        A model may name those otherwise while it trains.
        """
        other = replace(self, **changes)
        other.__dict__["parameters"] = self.parameters
        return other

    def explain(self, name: str) -> Explanation:
        """Say of a module or parameter what it is tied to, if it may be cut, and why not.

        Printing the answer gives text, `.to_json()` the same as data.
        """
        return explain(self, name)

    def to_json(self) -> dict[str, Any]:
        """Return everything that `print(anatomy)` shows, as plain data."""
        return anatomy_json(self)

    def __str__(self) -> str:
        return anatomy_text(self)


def inspect(
    model: nn.Module, inputs: Any, *, head_dims: bool = False, mode: Mode = "auto"
) -> Anatomy:
    """Find out what is tied to what, by running the model once and trying cuts on shapes.

    `inputs` is an example: a tensor, a tuple of positionals, a dict of keywords, or
    `tonsor.Inputs(x, mask=mask)`. The model is left exactly as it is. `head_dims=True` also
    frees the dimensions of attention heads.

    >>> import torch, tonsor
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> [g.name for g in tonsor.inspect(net, torch.randn(2, 8)).prunable]
    ['0.weight[0]']
    """
    with uncollected():
        return _inspect(unwrap(model), as_inputs(inputs), head_dims=head_dims, mode=mode)


def _inspect(model: nn.Module, given: Inputs, *, head_dims: bool, mode: Mode) -> Anatomy:
    solution = solve(trace(model, given, known=has_rule, mode=mode))
    pins = {name: list(reasons) for name, reasons in solution.pins.items()}
    for name, pin in _policy(model, solution, head_dims=head_dims):
        pins.setdefault(name, []).append(pin)
    for name, pin in _only_in_training(model, given, solution):
        pins.setdefault(name, []).append(pin)
    found = _leaves_of_parameters(solution)
    free = [leaf for leaf in found.values() if leaf.name not in pins]
    run = solution
    if mode == "export":  # what was exported can't be run with other sizes, the model can
        run = solve(trace(model, given, known=has_rule))
        names = {leaf.name for leaf in _leaves_of_parameters(run).values()}
        for leaf in free:
            if leaf.name not in names or leaf.name in run.pins:
                pins[leaf.name] = [Pin("conflict", "torch.export and the model's own run differ")]
        free = [leaf for leaf in free if leaf.name not in pins]
    settled = settle(model, given, run, free)
    for name, pin in settled.pins.items():
        pins.setdefault(name, []).append(pin)
    if run.graph.ran == "real":
        free = [leaf for leaf in free if leaf.name not in pins]
        for name, pin in _wrong_in_value(model, given, run, free, settled).items():
            pins.setdefault(name, []).append(pin)
    for tie in settled.ties:
        held = next((n for n in sorted(tie) if n in pins), None)
        for name in tie if held is not None else ():
            pins.setdefault(name, [Pin("literal", f"it must shrink with '{held}', which may not")])
    return Anatomy(
        model=model,
        inputs=given,
        solution=solution,
        groups=_groups(solution, found, pins, settled),
        mends=settled.mends,
        cost=account(solution),
    )


def _only_in_training(
    model: nn.Module, given: Inputs, solution: Solution
) -> Iterator[tuple[str, Pin]]:
    """Yield pins for what parameters read that only a training run reaches, such as extra heads."""
    unreached = set(solution.graph.unreached)
    if not unreached:
        return
    if solution.graph.ran == "real":  # values may lead there, and nothing says with what
        yield from _of_a_size_with(solution, unreached)
    try:
        run = solve(trace(model, given, known=has_rule, mode="fake", training=True))
    except TonsorError:
        return
    late = {n for n in unreached - set(run.graph.unreached) if n in run.graph.tensors}
    held = {leaf.name: n for n in late for axis in run.of(n) for leaf in leaves(axis)}
    for tensor in run.graph.parameters:
        for dim, axis in enumerate(run.of(tensor)):
            through = next((held[f.name] for f in leaves(axis) if f.name in held), None)
            if through is not None and tensor not in late:
                detail = f"it is also read by '{through}', which only training reaches"
                for leaf in leaves(solution.of(tensor)[dim]):
                    yield leaf.name, Pin("escape", detail)


def _of_a_size_with(solution: Solution, unreached: set[str]) -> Iterator[tuple[str, Pin]]:
    """Yield pins for every leaf that a parameter which was not reached could read."""
    sizes = {axis.size: name for name in unreached for axis in solution.of(name)}
    for leaf in _leaves_of_parameters(solution).values():
        if leaf.size in sizes:
            detail = (
                f"values steer this model, and '{sizes[leaf.size]}', which this input did not "
                "lead to, may read it"
            )
            yield leaf.name, Pin("escape", detail)


def _wrong_in_value(
    model: nn.Module, given: Inputs, solution: Solution, free: Sequence[Leaf], settled: Settled
) -> dict[str, Pin]:
    """Cut half of everything for real and pin what comes out wrong.

    Only needed where values steer the run: such a model may go where shapes alone do not lead.
    """
    sizes = {leaf.name: leaf.size for leaf in free}
    layout = {name: solution.of(name) for name in solution.graph.tensors}

    def failing(names: Sequence[str]) -> str:
        masks = {n: np.arange(sizes[n]) % 2 == 0 for n in names}
        return cut_fails(model, given, make_cut(layout, settled.mends, masks))

    return blame(list(sizes), failing, {n: settled.partners(n) for n in sizes})


def _leaves_of_parameters(solution: Solution) -> dict[str, Leaf]:
    """Find every leaf that runs through a parameter; positions of kernels are no group."""
    found: dict[str, Leaf] = {}
    for value in solution.graph.parameters.values():
        for axis in solution.axes[value]:
            for leaf in leaves(axis):
                kinds = {p.kind for p in solution.pins.get(leaf.name, ())}
                if leaf.size > 1 and kinds != {"kernel"}:
                    found.setdefault(leaf.name, leaf)
    return found


def _policy(model: nn.Module, solution: Solution, *, head_dims: bool) -> Iterator[tuple[str, Pin]]:
    """Yield pins that come from what a leaf is, not from what was seen of it."""
    if not head_dims:
        for name, roles in solution.roles.items():
            if "head_dim" in roles:
                yield name, Pin("head_dim", HEAD_DIM)
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            for name, _ in module.named_parameters(prefix=path):
                if name in solution.graph.tensors:
                    for axis in solution.of(name):
                        for leaf in leaves(axis):
                            yield leaf.name, Pin("scripted", "its module is scripted", "", path)


def _groups(
    solution: Solution,
    found: Mapping[str, Leaf],
    pins: Mapping[str, list[Pin]],
    settled: Settled,
) -> tuple[Group, ...]:
    members: dict[str, list[Member]] = {name: [] for name in found}
    for tensor, value in solution.graph.tensors.items():
        for dim, axis in enumerate(solution.axes[value]):
            for name in dict.fromkeys(leaf.name for leaf in leaves(axis)):
                if name in members:
                    members[name].append(Member(tensor, dim, axis))
    approximate: dict[str, dict[str, None]] = {}
    for mix in solution.mixes:
        if mix.approximate:
            for axis in mix.axes:
                for leaf in leaves(axis):
                    approximate.setdefault(leaf.name, {})[mix.what] = None
    ties = {name: i for i, tie in enumerate(settled.ties) for name in tie}
    return tuple(
        Group(
            name=name,
            size=leaf.size,
            kind=_kind(solution.roles.get(name, frozenset())),
            members=tuple(members[name]),
            pins=tuple(pins.get(name, ())),
            approximate=tuple(approximate.get(name, ())),
            tie=ties.get(name),
            unit=settled.units.get(name, 1),
        )
        for name, leaf in found.items()
    )


def _kind(roles: frozenset[str]) -> GroupKind:
    if "head_dim" in roles:
        return "head_dim"
    return "heads" if "heads" in roles else "channels"


def _owner(tensor: str) -> str:
    return tensor.rpartition(".")[0]


def _convs(solution: Solution) -> Iterator[Conv]:
    graph = solution.graph
    for op in graph.ops:
        if not op.name.startswith("aten.conv") or not isinstance(op.get("weight"), Ref):
            continue
        weight, data = op["weight"].value, op["input"].value
        rank = len(solution.axes[weight]) - 2
        out = op.outputs[0]
        assert out is not None
        transposed = "transpose" in op.name or bool(op.get("transposed", False))
        channel = -1 - rank
        yield Conv(
            name=op.module,
            weight=graph.name_of.get(weight, ""),
            kernel=graph.values[weight].shape[2:],
            stride=_each(op.get("stride", 1), rank),
            padding=_each(op.get("padding", 0), rank),
            dilation=_each(op.get("dilation", 1), rank),
            groups=op.get("groups", 1),
            transposed=transposed,
            input_size=graph.values[data].shape[-rank:],
            output_size=graph.values[out].shape[-rank:],
            in_axis=solution.axes[data][channel],
            out_axis=solution.axes[out][channel],
        )


def _each(value: Any, rank: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return values * rank if len(values) == 1 else values
