"""Cut a model and look at what became of it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tonsor.api import Anatomy, inspect, plan
from tonsor.plan import Plan


@dataclass(frozen=True)
class Cut:
    """Everything about one cut. That it is right has been proven on the way here."""

    anatomy: Anatomy
    plan: Plan
    slim: Any

    def kept(self, group: str) -> Tensor:
        """The indices that stay of a group."""
        size = self.anatomy.by_name[group].size
        return torch.tensor(self.plan.keep.get(group, tuple(range(size))))

    @property
    def widths(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all parameters that are smaller than before."""
        before, after = self.anatomy.model.named_parameters(), self.slim.named_parameters()
        return {n: tuple(b.shape) for (n, a), (_, b) in zip(before, after, strict=True)
                if a.shape != b.shape}  # fmt: skip


def cut(model: nn.Module, inputs: Any, budget: str | None = None, **options: Any) -> Cut:
    """Inspect, plan and apply, with the proof."""
    anatomy = inspect(model, inputs)
    made = plan(anatomy, budget, **options)
    return Cut(anatomy, made, made.apply(model))


def free(anatomy: Anatomy) -> set[str]:
    """The names of the groups that may be cut."""
    return {g.name for g in anatomy.prunable}


def pins(anatomy: Anatomy) -> dict[str, str]:
    """The kind of the first reason of every group that may not be cut."""
    return {g.name: g.pins[0].kind for g in anatomy.pinned}


def reason(anatomy: Anatomy, group: str) -> str:
    """Why a group may not be cut, in words."""
    return str(anatomy.by_name[group].pins[0])
