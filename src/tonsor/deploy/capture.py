"""A model as a graph of operators, in which its convolutions are places of their own."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.fx.graph import CodeGen

from tonsor.cost.bench import Bench
from tonsor.deploy.calls import Layout, layout_of
from tonsor.deploy.layers import FusedConv, Site, own_copy
from tonsor.deploy.marks import is_mark, marked
from tonsor.errors import DeployError
from tonsor.graph.inputs import Inputs

SITES = "deployed_sites"


@dataclass(frozen=True, slots=True)
class Captured:
    """A graph that takes and returns flat lists, and how the model is called."""

    graph: fx.GraphModule
    layout: Layout


def batch_of(inputs: Inputs) -> int:
    """Return how many samples are in the inputs: dimension 0 of the first tensor."""
    first = next((t for _, t in inputs.tensors() if t.dim()), None)
    return 1 if first is None else first.shape[0]


def fresh(inputs: Inputs) -> Inputs:
    """Return a copy of inputs, which a model may write to."""
    return inputs.map(lambda tensor: tensor.detach().clone())


def with_batch(inputs: Inputs, size: int) -> Inputs:
    """Return the inputs with another number of samples, which are repeated or left out.

    >>> with_batch(Inputs(torch.ones(2, 3)), 5)
    Inputs((5, 3))
    """
    return Bench(batch=size).inputs(inputs)


def capture(model: nn.Module, inputs: Inputs) -> Captured:
    """Record a model that is in eval mode, for any batch if that can be had.

    The graph shares the tensors of the model, but those of its convolutions.
    """
    with marked(model) as convs:
        program, dynamic = _exported(model, inputs)
    if _bodies(program):
        message = "it has parts that are graphs of their own"
        raise DeployError(message)
    graph = program.module(check_guards=False)
    if not isinstance(graph, fx.GraphModule):
        message = "it was not recorded as a graph"
        raise DeployError(message)
    layout = layout_of(model, inputs, graph, program, dynamic=dynamic)
    graph.graph.set_codegen(CodeGen())
    _place(graph, convs)
    # What the exporter makes refuses to change its mode; a module of the same graph does not.
    graph.graph._tracer_cls = None  # nor can a file of it be read
    return Captured(fx.GraphModule(graph, graph.graph), layout)


def _exported(model: nn.Module, inputs: Inputs) -> tuple[ExportedProgram, bool]:
    wide = with_batch(inputs, max(2, batch_of(inputs)))  # of a batch of 1, any size can't be seen
    shapes = ShapesCollection()
    for _, tensor in wide.tensors():
        if tensor.dim() and tensor.shape[0] == batch_of(wide):
            shapes[tensor] = {0: Dim.AUTO}
    with _hushed():
        try:
            found = shapes.dynamic_shapes(model, wide.args, wide.kwargs)
            program = _export(model, wide, found)
            if _is_free(program) or batch_of(wide) == batch_of(inputs):
                return program, True
        except Exception:  # noqa: BLE001  then for this batch only
            pass
        try:
            return _export(model, fresh(inputs), None), False
        except Exception as error:
            message = f"it can't be exported: {_first_line(error)}"
            raise DeployError(message) from error


def _export(model: nn.Module, inputs: Inputs, shapes: Any) -> ExportedProgram:
    return torch.export.export(
        model, inputs.args, inputs.kwargs, dynamic_shapes=shapes, strict=False
    )


def _is_free(program: ExportedProgram) -> bool:
    return bool(program.range_constraints)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120] if lines else ''}"


@contextmanager
def _hushed() -> Iterator[None]:
    """Have the exporter keep to itself what it would rather have."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _bodies(program: ExportedProgram) -> bool:
    return any(isinstance(m, fx.GraphModule) for m in program.graph_module.children())


def _place(graph: fx.GraphModule, convs: Sequence[tuple[str, nn.Module]]) -> None:
    """Put a site where each mark is; a layer that runs twice has two."""
    sites = nn.ModuleList()
    graph.add_module(SITES, sites)
    for node in list(graph.graph.nodes):
        if not is_mark(node.target):
            continue
        x, index = node.args[0], node.args[1]
        name, conv = convs[index]
        target = f"{SITES}.{len(sites)}"
        sites.append(Site(name, FusedConv(own_copy(conv))))
        with graph.graph.inserting_before(node):
            made = graph.graph.call_module(target, (x,))
        made.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(made)
        graph.graph.erase_node(node)


def sites_of(body: nn.Module) -> list[Site]:
    """Return the sites of a body, in the order in which they run."""
    return [m for m in body.modules() if isinstance(m, Site)]
