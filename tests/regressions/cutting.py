"""Cut a model and look at what became of it.

Places are written as everywhere in tonsor: `first.weight[0]` is dimension 0 of a tensor.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.api import Anatomy, inspect, plan
from tonsor.plans import Plan
from tonsor.types import Group, leaves


@dataclass(frozen=True)
class Cut:
    """Everything about one cut. That it is right has been proven on the way here."""

    anatomy: Anatomy
    plan: Plan
    slim: Any

    def kept(self, place: str) -> Tensor:
        """The indices that stay at a place."""
        tensor, dim = _parts(place)
        kept = self.plan.cut().keep.get(tensor)
        kept = None if kept is None else kept[dim]
        return torch.tensor(range(self.plan.fingerprint[tensor][dim]) if kept is None else kept)


def cut(model: nn.Module, inputs: Any, budget: str | None = None, **options: Any) -> Cut:
    """Inspect, plan and apply, with the proof."""
    anatomy = inspect(model, inputs)
    made = plan(anatomy, budget, **options)
    return Cut(anatomy, made, made.apply(model))


def through(anatomy: Anatomy, place: str) -> list[Group]:
    """The groups that run through a place, the outermost first."""
    tensor, dim = _parts(place)
    names = [leaf.name for leaf in leaves(anatomy.axes(tensor)[dim])]
    return [anatomy.by_name[name] for name in names if name in anatomy.by_name]


def verdicts(anatomy: Anatomy, place: str) -> list[str]:
    """For each group of a place: free, or the kind of the first reason why it is not."""
    return ["free" if g.prunable else g.pins[0].kind for g in through(anatomy, place)]


def reasons(anatomy: Anatomy, place: str) -> list[str]:
    """Why the groups of a place may not be cut, in words."""
    return [str(g.pins[0]) for g in through(anatomy, place) if not g.prunable]


def _parts(place: str) -> tuple[str, int]:
    tensor, _, dim = place.rpartition("[")
    return tensor, int(dim.removesuffix("]"))
