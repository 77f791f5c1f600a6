"""Nets for pictures of 8 by 8 that criteria are learned on, and a loop for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F

from tests.methods.nets import Batch
from tests.methods.spp.nets import looks, masks
from tests.methods.swp.nets import made, pictures, sgd
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


def drive(
    net: Any,
    method: LearnedCriteria,
    data: Iterable[Batch],
    *,
    optimizer: torch.optim.Optimizer | None = None,
    first: int = 0,
    watch: Callable[[int], Any] = lambda step: None,
) -> torch.optim.Optimizer:
    """Train step by step; `watch` is called after each."""
    optimizer = optimizer or sgd(net)
    method.attach(optimizer)
    for step, (images, labels) in enumerate(data, first):
        F.cross_entropy(net(images), labels).backward()
        method.before_step(step)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(step)
        watch(step)
    return optimizer
