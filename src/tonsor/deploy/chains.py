"""Kernels that follow one another in a graph, joined to one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from tonsor.deploy.kernel_conv import KernelConv
from tonsor.deploy.layers import Site
from tonsor.kernels.chain import Chain, Link
from tonsor.kernels.ops import by_kernel
from tonsor.surgery.fibre_conv import taken_down

_SIZES = 8  # of inputs that are remembered
_NAME = "deployed_chain"


@dataclass(frozen=True, slots=True)
class Turn:
    """A site of a chain, and the numbers of the values that it reads. It makes the next value."""

    site: Site
    x: int
    residual: int | None = None


class Chained(nn.Module):
    """Runs sites one after the other, in one call if all of them run by kernels.

    Values are counted: first those that it is given, then what the sites make. The sites belong to
    the model, where they are found as before; here they are only known.
    """

    def __init__(self, turns: Sequence[Turn], outputs: Sequence[int]) -> None:
        super().__init__()
        self.turns, self.outputs = tuple(turns), tuple(outputs)
        self._forget()

    def _forget(self) -> None:
        self._ready: dict[Any, tuple[Chain, list[tuple[Any, Any, Tensor]]]] = {}

    def forward(self, *given: Tensor) -> Any:
        """Run all."""
        if taken_down() or any(type(x) is not Tensor for x in given):
            return self._one_by_one(given)
        sizes = given[0].shape if len(given) == 1 else tuple([x.shape for x in given])
        known = self._ready.get(sizes)
        if known is None or not known[0].fits(given) or not _same(known[1]):
            made = self._one_by_one(given)
            self._remember(sizes, given)
            return made
        made = known[0](given)
        return made[0] if len(made) == 1 else made

    def _one_by_one(self, given: Sequence[Tensor]) -> Any:
        values = list(given)
        for turn in self.turns:
            x = values[turn.x]
            values.append(
                turn.site(x) if turn.residual is None else turn.site(x, values[turn.residual])
            )
        made = [values[n] for n in self.outputs]
        return made[0] if len(made) == 1 else made

    def _remember(self, sizes: Any, given: Sequence[Tensor]) -> None:
        """Have the next call on such inputs go at once; this one went well."""
        ways = [turn.site.way for turn in self.turns]
        alike = len({x.dtype for x in given}) == 1 and all(by_kernel(x) for x in given)
        if not alike or not all(isinstance(w, KernelConv) and w.is_whole for w in ways):
            return
        links = [
            Link(w.packed, w.geometry, w.relu, turn.x, turn.residual)
            for turn, w in zip(self.turns, ways, strict=True) if isinstance(w, KernelConv)
        ]  # fmt: skip
        if len(self._ready) >= _SIZES:
            self._forget()
        held = [(t.site._modules, w, w.packed) for t, w in zip(self.turns, ways, strict=True)]
        self._ready[sizes] = Chain(links, given, self.outputs), held  # type: ignore[assignment]

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_ready": {}}

    def extra_repr(self) -> str:
        """Say how many there are."""
        return f"{len(self.turns)} layers, {self.turns[0].site.name} to {self.turns[-1].site.name}"


def _same(held: Sequence[tuple[Any, Any, Tensor]]) -> bool:
    """Whether sites still run in the ways, and with the weights, that a chain was made of."""
    for modules, way, packed in held:
        if modules["way"] is not way or way._buffers["packed"] is not packed:
            return False
    return True


def join(body: fx.GraphModule) -> None:
    """Join what runs by kernels, one after the other, in a graph."""
    run: list[fx.Node] = []
    for node in [*body.graph.nodes]:
        if _by_kernel(body, node):
            run.append(node)
        elif node.op != "get_attr":  # those only name what is there
            _joined(body, run)
            run = []
    body.graph.lint()
    body.recompile()


def _by_kernel(body: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module" or node.kwargs:
        return False
    site = body.get_submodule(str(node.target))
    way = site.way if isinstance(site, Site) else None
    return isinstance(way, KernelConv) and way.is_whole


def _joined(body: fx.GraphModule, run: Sequence[fx.Node]) -> None:
    """Put one call in the place of several."""
    if len(run) < 2:
        return
    inside = set(run)
    given = list(dict.fromkeys(
        arg for node in run for arg in node.args
        if isinstance(arg, fx.Node) and arg not in inside
    ))  # fmt: skip
    numbers = {node: n for n, node in enumerate([*given, *run])}
    turns = [
        Turn(
            body.get_submodule(str(node.target)), *(numbers[a] for a in node.args if a is not None)
        )  # type: ignore[arg-type,index]
        for node in run
    ]
    outputs = [node for node in run if any(user not in inside for user in node.users)]
    name = f"{_NAME}_{sum(1 for m in body.children() if isinstance(m, Chained))}"
    body.add_submodule(name, Chained(turns, [numbers[node] for node in outputs]))
    with body.graph.inserting_after(run[-1]):
        call = body.graph.call_module(name, tuple(given))
    made = [call]
    if len(outputs) > 1:
        made, after = [], call
        for index in range(len(outputs)):
            with body.graph.inserting_after(after):
                after = body.graph.call_function(_item, (call, index))
            made.append(after)
    for node, new in zip(outputs, made, strict=True):
        node.replace_all_uses_with(new, delete_user_cb=lambda user: user not in inside)
    for node in reversed(run):
        body.graph.erase_node(node)


def _item(values: Sequence[torch.Tensor], index: int) -> torch.Tensor:
    return values[index]
