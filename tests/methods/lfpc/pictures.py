"""Nets for pictures of 8 by 8 that criteria are learned on, and a loop for them."""

from __future__ import annotations

from typing import Any

import torch

from tests.methods.nets import Batch
from tests.methods.spp.nets import looks, masks
from tests.methods.swp.nets import drive, made, pictures, sgd
from tonsor.anatomy import Anatomy
from tonsor.methods.lfpc import LearnedCriteria

__all__ = ["begun", "drive", "learned", "looks", "made", "masks", "other", "pictures", "sgd"]


def other(count: int = 3, double: bool = False) -> list[Batch]:
    """The minibatches that odds are learned from; none of them is among `pictures`."""
    return pictures(count, seed=1000, double=double)


def begun(kind: str = "residual", at: int = 0, **options: Any) -> tuple[Any, LearnedCriteria]:
    """A net with a short search on it that has not taken a step."""
    net, anatomy = made(kind, at)
    return net, learned(net, anatomy, **options)


def learned(net: Any, anatomy: Anatomy, **options: Any) -> LearnedCriteria:
    given: dict[str, Any] = {"budget": "macs=50%", "steps": 12, **options}
    if "batches" not in given:
        given["batches"] = other(double=next(net.parameters()).dtype == torch.float64)
    return LearnedCriteria(net, anatomy, **given)
