"""The slim model beside its original: is it what the cut has left, and writing into it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tonsor.errors import PlanError, RecoverError
from tonsor.graph.clone import named_tensors
from tonsor.graph.trace import unwrap
from tonsor.plans import Plan
from tonsor.surgery.dropping import gone
from tonsor.surgery.fibre_layers import left_of, left_shape


class Slim:
    """A slim model of which is known what it was cut from."""

    def __init__(self, plan: Plan, model: nn.Module, slim: nn.Module) -> None:
        self._cut = plan.cut()
        self._before = dict(named_tensors(model))
        self._after = dict(named_tensors(unwrap(slim)))
        for name, tensor in self._before.items():
            if name not in self._after and gone(plan.drops, name):
                continue
            fibres = self._cut.fibres.get(name)
            wanted = left_shape(tensor.shape, self._cut.keep.get(name), fibres)
            got = tuple(self._after[name].shape) if name in self._after else "missing"
            if got != wanted:
                message = (
                    f"'{name}' of the slim model is {got}, and this plan leaves {wanted} of it; "
                    "give the model that plan.apply has returned"
                )
                raise PlanError(message)

    def as_cut(self, name: str) -> bool:
        """Whether a tensor still holds what the cut has left of the original's."""
        before, after = self._before[name], self._after[name].detach()
        left = left_of(before, self._cut.keep.get(name), self._cut.fibres.get(name))
        return torch.equal(after, left.to(after))


def check_runs(*models: nn.Module) -> None:
    """Refuse models without values."""
    for model in models:
        for name, tensor in named_tensors(unwrap(model)):
            if tensor.is_meta:
                message = (
                    f"'{name}' is on the meta device and has no values, so the model can't run on "
                    "data; load it first"
                )
                raise RecoverError(message)


def write_(slim: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Write new values into tensors of a model, each in its own precision and place."""
    tensors = dict(named_tensors(unwrap(slim)))
    with torch.no_grad():
        for name, value in values.items():
            tensors[name].copy_(value)
