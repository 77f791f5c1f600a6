"""Plain layers: a weight and what follows it, for which identity can stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tonsor.anatomy import Anatomy
from tonsor.drops import Drop, Fit
from tonsor.families.blocks.alone import entangled
from tonsor.families.blocks.block import Block, shape_text
from tonsor.families.blocks.flow import Flow, State
from tonsor.families.blocks.tree import Tree
from tonsor.graph.spots import Spots
from tonsor.types import Call, Leaf, Member, Op, Ref

_WEIGHTED = ("aten.conv1d", "aten.conv2d", "aten.conv3d", "aten.convolution", "aten.linear")


class Plain:
    """Find runs of modules that hand one tensor on: a convolution, its norm, its activation."""

    def __init__(self, anatomy: Anatomy, flow: Flow, tree: Tree, spots: Spots) -> None:
        self.anatomy = anatomy
        self.flow = flow
        self.tree = tree
        self.spots = spots

    def blocks(self, calls: Sequence[Call]) -> Iterator[Block]:
        """Yield a block for each weight among calls of modules that call no others."""
        at = 0
        while at < len(calls):
            run = self._run(calls, at)
            if run:
                yield self._block(run)
            at += max(1, len(run))

    def _run(self, calls: Sequence[Call], at: int) -> list[Call]:
        """Return a module with a weight, and those after it that only pass its result on."""
        first = calls[at]
        ops = self.flow.graph.ops[first.first : first.stop]
        if not ops or ops[0].name not in _WEIGHTED or self._through(first) is None:
            return []
        run = [first]
        for call in calls[at + 1 :]:
            ends = self._through(run[-1])
            assert ends is not None
            ways = self._through(call)
            if ways is None or ways[0] != ends[1] or not self.tree.light(call.module):
                break
            start, end = ways
            if self.flow.shape(start) != self.flow.shape(end) or not self._only(start, call):
                break
            run.append(call)
        return run

    def _through(self, call: Call) -> tuple[State, State] | None:
        """Return the one tensor that a call is given and the one it returns."""
        given, out = self.flow.given(call), self.flow.returned(call)
        if list(given) != [(0,)] or list(out) != [()]:
            return None
        return given[0,], out[()]

    def _only(self, state: State, call: Call) -> bool:
        """Whether nothing but a call reads a tensor."""
        inside = all(call.first <= o.index < call.stop for o in self.flow.readers(state))
        return inside and not self.flow.is_returned(state)

    def _block(self, run: Sequence[Call]) -> Block:
        flow, modules = self.flow, tuple(c.module for c in run)
        start, end = flow.given(run[0])[0,], flow.returned(run[-1])[()]
        op = flow.graph.ops[run[0].first]
        before, after = flow.shape(start), flow.shape(end)
        dim = 1 if op.name != "aten.linear" else len(after) - 1
        lost = self.tree.lost_with(modules)
        fit, reason = self._fit(op, run, start, end, dim)
        reason, drop = reason or entangled(flow, run, end, lost), None
        if not reason:
            last = next(o for o in reversed(flow.graph.ops[: run[-1].stop]) if self._made(o, end))
            drop = Drop(
                name=modules[0], kind="plain", modules=modules, takes=(0,), gives="x",
                bypassed=(self.spots.spot(op.index, "input"), self.spots.spot(last.index)),
                weight=self._weight(op), fit=fit, channels=(before[dim], after[dim]), dim=dim,
            )  # fmt: skip
        return Block(
            name=modules[0], kind="plain", modules=modules, takes=(0,), gives=(),
            input_shape=before, output_shape=after,
            ops=tuple(i for c in run for i in range(c.first, c.stop)),
            parameters=lost, drop=drop, reason=reason,
        )  # fmt: skip

    def _made(self, op: Op, end: State) -> bool:
        return any(v is not None and self.flow.after(v, op.index) == end for v in op.outputs)

    def _weight(self, op: Op) -> str:
        ref = op.get("weight")
        return self.flow.graph.name_of.get(ref.value, "") if isinstance(ref, Ref) else ""

    def _fit(
        self, op: Op, run: Sequence[Call], start: State, end: State, dim: int
    ) -> tuple[Fit, str]:
        """Return how the input is made to fit the output, or why that can't be."""
        graph, before, after = self.flow.graph, self.flow.shape(start), self.flow.shape(end)
        times = max(self.tree.times[c.module] for c in run)
        if times > 1:
            return "same", f"it is called {times} times, so it is several layers"
        if start.value in {v for _, v in graph.inputs}:
            return "same", "it reads the input of the model"
        if self.flow.is_returned(end):
            return "same", "it makes the output of the model"
        if before == after:
            return "same", ""
        rest = [i for i in range(len(before)) if i != dim]
        if len(before) != len(after) or any(before[i] != after[i] for i in rest):
            return "same", (
                f"it turns {shape_text(before)} into {shape_text(after)}, so nothing that goes in "
                "can stand for what comes out"
            )
        if before[dim] > after[dim]:
            return "narrow", ""
        return "slice", self._unsliced(op, run, start, end, dim)

    def _unsliced(self, op: Op, run: Sequence[Call], start: State, end: State, dim: int) -> str:
        """Say why the next layer can't be given fewer channels, if so."""
        axes = self.anatomy.solution.axes
        axis, given = axes[end.value][dim], axes[start.value][dim]
        group = self.anatomy.by_name.get(axis.name) if isinstance(axis, Leaf) else None
        if group is None or not isinstance(given, Leaf) or op.get("groups", 1) > 1:
            return "its channels belong together in ways that no slice of the next layer respects"
        if not group.prunable:
            return f"it makes more channels than it reads, and those may not go: {group.pins[0]}"
        mine = {n for c in run for n in self.tree.parameters(c.module)}
        other = next(
            (m.tensor for m in group.members if self._makes(m) and m.tensor not in mine), ""
        )
        if other or given == axis:
            return (
                "it makes more channels than it reads, and those may not go, for "
                f"'{other or self._weight(op)}' has to do with them too"
            )
        return ""

    def _makes(self, member: Member) -> bool:
        """Whether a weight makes the channels of a group, rather than read or scale them."""
        shape = self.flow.graph.values[self.flow.graph.tensors[member.tensor]].shape
        return member.dim == 0 and len(shape) > 1 and shape[1] > 1
