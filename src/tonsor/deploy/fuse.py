"""What follows a convolution is fused into it, where that is sure to change nothing.

A chain is a convolution, then perhaps a batch norm, a sum and a ReLU, each the only one that reads
what is before it. The whole chain runs where its last operator ran, so that the residual is there;
what the convolution reads must not have been written to meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from tonsor.deploy.fold import Norm, folded
from tonsor.deploy.layers import FusedConv, Site
from tonsor.deploy.memory import Memory

_ATEN: Any = torch.ops.aten
_DROPOUTS = (
    _ATEN.dropout.default, _ATEN.dropout_.default, _ATEN.feature_dropout.default,
    _ATEN.feature_dropout_.default, _ATEN.alpha_dropout.default, _ATEN.alpha_dropout_.default,
    _ATEN.feature_alpha_dropout.default, _ATEN.feature_alpha_dropout_.default,
)  # fmt: skip
_ADDS = (_ATEN.add.Tensor, _ATEN.add_.Tensor)
_RELUS = (_ATEN.relu.default, _ATEN.relu_.default)


@dataclass(frozen=True, slots=True)
class _Chain:
    """A convolution and what is fused into it; the last node is where it runs."""

    nodes: tuple[fx.Node, ...]
    norm: Norm | None = None
    residual: fx.Node | None = None
    relu: bool = False


def fuse(graph: fx.GraphModule) -> None:
    """Fuse all that can be, leave out what does nothing, and free views of how memory is laid."""
    for node in list(graph.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _DROPOUTS and not node.args[2]:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)
        elif node.target is _ATEN.view.default:  # fails where channels lie last
            node.target = _ATEN.reshape.default
    for node in list(graph.graph.nodes):
        if node.op == "call_module":
            _fuse_at(graph, node)
    graph.graph.eliminate_dead_code(_has_effect)
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()


def _has_effect(node: fx.Node) -> bool:
    changes = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    return changes or node.is_impure()


def fused_parts(site: Site) -> str:
    """Say what was fused, in short.

    >>> fused_parts(Site("conv1", FusedConv(torch.nn.Conv2d(3, 8, 3), relu=True, adds=True)))
    'add+relu'
    """
    layer = site.reference
    parts = (("bn", site.norm), ("add", layer.adds), ("relu", layer.relu))
    return "+".join(name for name, there in parts if there)


def _fuse_at(graph: fx.GraphModule, node: fx.Node) -> None:
    site = graph.get_submodule(str(node.target))
    if not isinstance(site, Site):
        return
    memory = Memory(graph.graph)
    chains = list(_chains(graph, site, node, memory))
    for chain in reversed(chains):
        if not _meanwhile_written(chain, memory):
            _replace(graph, site, chain)
            return


def _meanwhile_written(chain: _Chain, memory: Memory) -> bool:
    """Whether others write to what a chain reads, before it runs as one."""
    first, last = chain.nodes[0], chain.nodes[-1]
    reads = [(first.args[0], first)]
    if chain.residual is not None:
        reads.append((chain.residual, chain.nodes[-2] if chain.relu else last))
    return any(
        isinstance(value, fx.Node) and memory.written(value, read_at, last, list(chain.nodes))
        for value, read_at in reads
    )


def _chains(graph: fx.GraphModule, site: Site, node: fx.Node, memory: Memory) -> Iterator[_Chain]:
    """Yield what can be fused into a convolution, from little to all."""
    chain = _Chain((node,))
    user = _only_user(node)
    if user is not None and user.target is _ATEN.batch_norm.default:
        norm = _norm(graph, site, user, memory)
        if norm is not None:
            chain = _Chain((node, user), norm)
            yield chain
            user = _only_user(user)
    if user is not None and user.target in _ADDS:
        residual = _residual(chain.nodes[-1], user, memory)
        if residual is not None:
            chain = _Chain((*chain.nodes, user), chain.norm, residual)
            yield chain
            user = _only_user(user)
    if user is not None and user.target in _RELUS:
        yield _Chain((*chain.nodes, user), chain.norm, chain.residual, relu=True)


def _only_user(node: fx.Node) -> fx.Node | None:
    """Return who reads a value, if only one does, and once."""
    if len(node.users) != 1:
        return None
    (user,) = node.users
    times = sum(item is node for item in (*user.args, *user.kwargs.values()))
    return user if times == 1 and user.op == "call_function" else None


def _norm(graph: fx.GraphModule, site: Site, node: fx.Node, memory: Memory) -> Norm | None:
    """Read a batch norm that uses running statistics, which nothing changes."""
    x, weight, bias, mean, var, training, _, eps, *_ = node.args
    parts: tuple[Any, ...] = (mean, var, weight, bias)
    fixed = all(
        n is None or (isinstance(n, fx.Node) and n.op == "get_attr" and not memory.ever_written(n))
        for n in parts
    )
    if training or mean is None or var is None or not fixed or not isinstance(x, fx.Node):
        return None
    before, after = x.meta["val"], node.meta["val"]
    if before.dim() != site.reference.rank + 2 or before.dtype != after.dtype:
        return None
    values: list[Any] = [None if n is None else _attribute(graph, str(n.target)) for n in parts]
    return Norm(*values, eps=float(eps))  # type: ignore[arg-type]


def _attribute(graph: fx.GraphModule, path: str) -> Tensor:
    place, _, name = path.rpartition(".")
    return getattr(graph.get_submodule(place), name)


def _residual(node: fx.Node, add: fx.Node, memory: Memory) -> fx.Node | None:
    """Return what is added to a value, if that is a tensor of the same shape and type."""
    if len(add.args) != 2 or add.kwargs.get("alpha", 1) != 1:
        return None
    other = add.args[1] if add.args[0] is node else add.args[0]
    if not isinstance(other, fx.Node) or not _alike(node, other):
        return None
    if add.target is _ATEN.add_.Tensor and add.args[0] is other:
        # The sum is written to the residual, which will now stay as it is.
        return other if memory.is_last_use(other, add) else None
    return other


def _alike(one: fx.Node, other: fx.Node) -> bool:
    mine, its = one.meta.get("val"), other.meta.get("val")
    if not isinstance(mine, Tensor) or not isinstance(its, Tensor) or mine.dtype != its.dtype:
        return False
    return [str(n) for n in mine.shape] == [str(n) for n in its.shape]


def _replace(graph: fx.GraphModule, site: Site, chain: _Chain) -> None:
    first, last = chain.nodes[0], chain.nodes[-1]
    conv = site.reference.conv
    if chain.norm is not None:
        conv = folded(conv, chain.norm)
        site.norm = True
    adds = chain.residual is not None
    site.way = site.reference = FusedConv(conv, relu=chain.relu, adds=adds)
    given = (first.args[0], chain.residual) if adds else (first.args[0],)
    with graph.graph.inserting_after(last):
        made = graph.graph.call_module(str(first.target), given)
    made.meta["val"] = last.meta["val"]
    last.replace_all_uses_with(made)
    for node in reversed(chain.nodes):
        graph.graph.erase_node(node)
