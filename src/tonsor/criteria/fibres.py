"""Score stripes and columns by the criteria that filters are scored by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.anatomy import Anatomy
from tonsor.criteria.gather import Mean, in_all, row, together
from tonsor.criteria.gradients import gradients
from tonsor.criteria.registry import Registered, find_criterion
from tonsor.criteria.rows import Array, Row
from tonsor.criteria.score import Scores, alone
from tonsor.criteria.stream import Loss, stream
from tonsor.errors import ScoreError, SelectionError
from tonsor.families.fibres import FibreLayer, FibreLayers, no_layer_free

_OF_FIBRES = ("weights", "gradients")


def score_fibres(
    anatomy: Anatomy,
    layers: FibreLayers,
    by: str = "l2",
    *,
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    at_most: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> Scores:
    """Score the fibres of all convolutions that may lose some, row after row.

    A stripe or column is judged by its weights, or by those and their gradients, so `by` may be any
    criterion that looks at nothing else: `l1`, `geometric_median`, `taylor_weight`, ... The other
    options are those of `score`.
    """
    found = find_criterion(by)
    if found.needs not in _OF_FIBRES:
        message = (
            f"'{found.name}' looks at {found.needs.replace('_', ' ')}, which {layers.kind} have "
            "none of their own; choose a criterion of weights or of their gradients, such as l1, "
            "l2 or taylor_weight"
        )
        raise SelectionError(message)
    if not layers.free:
        raise no_layer_free(layers)
    for layer in layers.free if found.reads_weights else ():
        if anatomy.parameters[layer.weight].is_meta:
            message = f"'{layer.weight}' is on the meta device and has no values; load the weights"
            raise ScoreError(message)
    if found.needs == "weights":
        with alone(seed), torch.no_grad():
            values = {
                x.name: checked(x, found(x.view(anatomy.parameters[x.weight]))) for x in layers.free
            }
        return Scores(values, str(found))
    if batches is None:
        message = (
            f"'{found.name}' looks at data: give it as batches=..., an iterable of (inputs, target)"
        )
        raise SelectionError(message)
    gatherer = _Gatherer(anatomy, layers.free, found)
    with alone(seed):
        stream(
            anatomy.model, batches, gatherer, loss=loss, backward=True, at_most=at_most,
            about=f"scoring {layers.kind} by {found}", quiet=quiet,
        )  # fmt: skip
    return Scores(gatherer.values(), str(found))


class _Gatherer:
    """Scores each minibatch from the gradients of its loss."""

    def __init__(self, anatomy: Anatomy, layers: Iterable[FibreLayer], found: Registered) -> None:
        self.layers = list(layers)
        self.weights = [anatomy.parameters[x.weight] for x in self.layers]
        self.found = found
        self.means = {x.name: Mean() for x in self.layers}
        self.unscored: dict[str, str] = {}
        self.scored = True

    def watching(self, model: nn.Module, samples: int) -> Any:
        """Nothing is watched in the forward pass."""
        return nullcontext()

    def see(self, loss: Tensor | None, samples: int) -> None:
        """Take in a minibatch that was run."""
        assert loss is not None
        made = gradients(loss, self.weights)
        for layer, weight, gradient in zip(self.layers, self.weights, made, strict=True):
            if gradient is None:
                gradient = torch.zeros_like(weight)
            score = self.found(layer.view(weight), layer.view(gradient))
            self.means[layer.name].add(score, samples)

    def rows(self) -> Mapping[str, list[Row]]:
        """Fibres have no rows of groups."""
        return {}

    def values(self) -> dict[str, Array]:
        """Return the mean scores, over all processes."""
        found: dict[str, Array] = {}
        for layer in self.layers:
            mean = self.means[layer.name]
            share = torch.zeros(layer.size + 1, dtype=torch.float64)
            if mean.total is not None:
                share[:-1], share[-1] = mean.total.cpu(), mean.weight
            share = in_all(share) if together() else share
            found[layer.name] = checked(layer, share[:-1] / share[-1])
        return found


def checked(layer: FibreLayer, values: Tensor) -> Array:
    """Return the scores of a layer, after making sure that they can be ranked."""
    return row(values, made=True, where=f"'{layer.weight}'", tensor=layer.weight).values
