"""How much of each axis belongs to one sample of the batch.

Costs are told for one sample, whatever batch the example held. The batch is followed as an
axis instead of dividing the total by its size, because not all work is repeated for every
sample: a table of positions is made once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tonsor.types import Axis, Leaf, Op, Solution, leaves


def sample_sizes(solution: Solution) -> Mapping[str, int]:
    """Return, for each leaf that the batch runs through, how much of it one sample has.

    The batch size is dimension 0 of the first tensor input; other inputs of the same
    dimension 0 share it. An axis that a parameter has too is no batch: an input without a
    batch dimension is one sample. Where an operator hides the batch in a new axis (sorting
    tokens, or one without a rule), that axis is shared out evenly.
    """
    batch = _batch_size(solution)
    if batch <= 1:
        return {}
    features = _features(solution)
    sizes: dict[str, int] = {}
    for _, value in solution.graph.inputs:
        axes = solution.axes.get(value, ())
        if axes and axes[0].size == batch:
            sizes |= {leaf.name: 1 for leaf in leaves(axes[0]) if leaf.name not in features}
    for op in solution.graph.ops if sizes else ():
        for leaf in _hiding(solution, op, sizes, batch):
            if leaf.name not in features:
                sizes[leaf.name] = leaf.size // batch
    return sizes


def _batch_size(solution: Solution) -> int:
    values = solution.graph.values
    shapes = (values[value].shape for _, value in solution.graph.inputs)
    return next((shape[0] for shape in shapes if shape), 1)


def _features(solution: Solution) -> set[str]:
    tensors = solution.graph.parameters.values()
    return {leaf.name for value in tensors for leaf in _leaves(solution.axes.get(value, ()))}


def _hiding(solution: Solution, op: Op, sizes: Mapping[str, int], batch: int) -> Iterable[Leaf]:
    """Yield new leaves of results that must hold the batch, because nothing else there does."""
    read = {leaf.name for v in op.inputs for leaf in _leaves(solution.axes.get(v, ()))}
    if not any(name in sizes for name in read):
        return
    for value in op.outputs:
        axes = () if value is None else solution.axes.get(value, ())
        if any(leaf.name in sizes for leaf in _leaves(axes)):
            continue
        new = [a for a in axes if isinstance(a, Leaf) and a.name not in read]
        exact = [a for a in new if a.size == batch]
        yield from (exact or [a for a in new if a.size % batch == 0])[:1]


def _leaves(axes: Iterable[Axis]) -> Iterable[Leaf]:
    for axis in axes:
        yield from leaves(axis)
