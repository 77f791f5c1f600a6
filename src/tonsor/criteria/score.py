"""Score every piece of every group that may be cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from tonsor.anatomy import Anatomy
from tonsor.criteria import (
    activation,
    batchnorm,
    geometric,
    magnitude,
    second_order,
    spectral,
    taylor,
)
from tonsor.criteria.gather import Gatherer
from tonsor.criteria.gradients import DiagonalGatherer, GradientGatherer
from tonsor.criteria.maps import MapGatherer
from tonsor.criteria.registry import BACKWARD, Registered, find_criterion
from tonsor.criteria.rows import Combine, Row, check_combine, combined
from tonsor.criteria.scores import Scores
from tonsor.criteria.still import still_rows
from tonsor.criteria.stream import Loss, stream
from tonsor.errors import ScoreError, SelectionError

__all__ = [
    "Combine", "Scores", "activation", "batchnorm", "from_rows", "gathered", "gatherer_for",
    "geometric", "magnitude", "score", "second_order", "spectral", "taylor",
]  # fmt: skip


def score(
    anatomy: Anatomy,
    by: str = "l2",
    *,
    combine: Combine = "mean",
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    at_most: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> Scores:
    """Score the pieces of all groups that may be cut.

    `by` is a criterion of `tonsor list criteria`, with its options: `"l1"`, `"lp:p=3"`. Those that
    look at data take it from `batches`, at most `at_most` of them: any iterable of `(inputs,
    target)`; `loss(output, target)` is the cross entropy if not said. Where several processes run,
    each shows its share, and all get the same scores.

    A group runs through several weights; `combine` says how their scores become one: `mean` (the
    default), `sum` and `max` over all of them, `producer` for those that make the piece only, as
    papers look at filters, or `normalised`, the mean after each has been divided by its own.
    """
    found = find_criterion(by)
    check_combine(combine)
    rows, unscored, _ = gathered(
        anatomy, found, makers=combine == "producer", batches=batches, loss=loss, at_most=at_most,
        seed=seed, quiet=quiet,
    )  # fmt: skip
    return from_rows(anatomy, found, rows, combine, unscored)


def gathered(
    anatomy: Anatomy,
    found: Registered,
    *,
    makers: bool = False,
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    at_most: int | None = None,
    seed: int = 0,
    quiet: bool = False,
) -> tuple[Mapping[str, list[Row]], Mapping[str, str], int]:
    """Return the rows of all groups that may be cut, why some have none, and the samples seen.

    With `makers`, places that only read are not scored where there are others.
    """
    if found.reads_data and batches is None:
        message = (
            f"'{found.name}' looks at data: give it as batches=..., an iterable of (inputs, target)"
        )
        raise SelectionError(message)
    if not found.reads_data:
        with alone(seed), torch.no_grad():
            return *still_rows(anatomy, found, makers=makers), 0
    assert batches is not None
    if any(p.is_meta for p in anatomy.parameters.values()):
        message = f"the model is on the meta device and can't run for '{found.name}'; load it first"
        raise ScoreError(message)
    gatherer, seen = gatherer_for(anatomy, found, seed), 0
    if gatherer.scored:
        with alone(seed), second_order.derivable(found.needs == "curvature"):
            seen = stream(
                anatomy.model, batches, gatherer, loss=loss, backward=found.needs in BACKWARD,
                singly=found.needs == "squares", at_most=at_most, about=f"scoring by {found}",
                quiet=quiet,
            )  # fmt: skip
    rows = gatherer.rows() if gatherer.scored else {}
    return rows, gatherer.unscored, seen


def gatherer_for(anatomy: Anatomy, found: Registered, seed: int = 0) -> Gatherer:
    """Return what collects the data that a criterion needs."""
    if found.needs in ("maps", "map_gradients"):
        return MapGatherer(anatomy, found)
    if found.needs == "squares":
        return DiagonalGatherer(anatomy, found, second_order.squares)
    if found.needs == "curvature":
        return DiagonalGatherer(anatomy, found, second_order.Hutchinson(seed))
    return GradientGatherer(anatomy, found)


def from_rows(
    anatomy: Anatomy,
    found: Registered,
    rows: Mapping[str, list[Row]],
    combine: Combine,
    unscored: Mapping[str, str],
) -> Scores:
    """Make scores of rows: scale them if the criterion wants it, and combine them."""
    values = {}
    for group in anatomy.prunable:
        mine = rows.get(group.name, ())
        if mine:
            values[group.name] = combined(
                [r.to_unit() for r in mine] if found.unit else mine, combine
            )
    missing = {g.name: unscored.get(g.name, "") for g in anatomy.prunable if g.name not in values}
    if missing and not values:
        why = "; ".join(dict.fromkeys(missing.values()))
        message = f"'{found}' can't judge any group of this model: {why}. Choose another criterion."
        raise ScoreError(message)
    scores = Scores(values, str(found), missing)
    if values and len(scores.tied) == len(values) and any(len(v) > 1 for v in values.values()):
        message = (
            f"'{found}' gives every piece of every group the same score, so a ranking would be "
            "arbitrary. Is the model untrained, or the data all alike? Choose another criterion, "
            "or 'random' if any choice will do."
        )
        raise ScoreError(message)
    return scores


@contextmanager
def alone(seed: int) -> Iterator[None]:
    """Draw from this seed, and afterwards have torch go on as if nothing had been drawn."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
