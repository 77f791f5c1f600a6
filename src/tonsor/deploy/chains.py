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
from tonsor.surgery.fibre_conv import watched

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
        self._ready: dict[Any, tuple[Chain, _Made]] = {}

    def forward(self, *given: Tensor) -> Any:
        """Run all."""
        if watched() or [*map(type, given)].count(Tensor) < len(given):
            return self._one_by_one(given)
        sizes = given[0].shape if len(given) == 1 else tuple([x.shape for x in given])
        known = self._ready.get(sizes)
        if known is None or not known[0].fits(given) or not known[1].holds():
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
        sites = [turn.site for turn in self.turns]
        ways = [site.way for site in sites]
        alike = len({x.dtype for x in given}) == 1 and all(by_kernel(x) for x in given)
        if not alike or not all(isinstance(w, KernelConv) and w.is_whole for w in ways):
            return
        if any(_hooks_of((*sites, *ways))):
            return
        links = [
            Link(w.packed, w.geometry, w.relu, turn.x, turn.residual)
            for turn, w in zip(self.turns, ways, strict=True) if isinstance(w, KernelConv)
        ]  # fmt: skip
        if len(self._ready) >= _SIZES:
            self._forget()
        self._ready[sizes] = Chain(links, given, self.outputs), _Made(sites, links)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_ready": {}}

    def extra_repr(self) -> str:
        """Say how many there are."""
        return f"{len(self.turns)} layers, {self.turns[0].site.name} to {self.turns[-1].site.name}"


class _Made:
    """What a chain was made of: the ways of sites, where their weights lay, and all hooks."""

    __slots__ = ("_at", "_held", "_hooks", "_now")

    def __init__(self, sites: Sequence[Site], links: Sequence[Link]) -> None:
        ways = [site.way for site in sites]
        self._held = [
            (site._modules, way, way._buffers, link.packed)
            for site, way, link in zip(sites, ways, links, strict=True)
        ]
        self._now = [link.packed.data_ptr for link in links]
        self._at = [now() for now in self._now]
        self._hooks = _hooks_of((*sites, *ways))

    def holds(self) -> bool:
        """Whether nothing of it is other than it was.

        Weights move when a model goes to another process. Whoever hooks a layer wants to be called.
        """
        for modules, way, buffers, packed in self._held:
            if modules["way"] is not way or buffers["packed"] is not packed:
                return False
        return [now() for now in self._now] == self._at and not any(self._hooks)


def _hooks_of(modules: Sequence[nn.Module]) -> list[Any]:
    """Return where modules have their hooks, now and later."""
    return [hooks for m in modules for hooks in (m._forward_pre_hooks, m._forward_hooks)]


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
    site = _site(body, node)
    way = site.way if isinstance(site, Site) else None
    return isinstance(way, KernelConv) and way.is_whole


def _site(body: fx.GraphModule, node: fx.Node) -> Any:
    return body.get_submodule(str(node.target))


def _joined(body: fx.GraphModule, run: Sequence[fx.Node]) -> None:
    """Put one call in the place of several."""
    inside = set(run)
    outputs = [node for node in run if any(user not in inside for user in node.users)]
    if len(run) < 2 or not outputs:
        return
    given = list(dict.fromkeys(
        arg for node in run for arg in node.args
        if isinstance(arg, fx.Node) and arg not in inside
    ))  # fmt: skip
    numbers = {node: n for n, node in enumerate([*given, *run])}
    turns = [
        Turn(_site(body, node), *[numbers[a] for a in node.args if isinstance(a, fx.Node)])
        for node in run
    ]
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
