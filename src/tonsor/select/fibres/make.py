"""Make a plan of stripes or columns: scores and a budget become what goes and what stays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from tonsor.anatomy import Anatomy
from tonsor.criteria.fibres import score_fibres
from tonsor.criteria.rows import Array
from tonsor.criteria.score import Scores
from tonsor.criteria.stream import Loss
from tonsor.errors import BudgetError, ScoreError, SelectionError
from tonsor.families.columns.layers import find_columns
from tonsor.families.fibres import FibreLayers, no_layer_free
from tonsor.families.following import Masks
from tonsor.families.stripes.layers import find_stripes
from tonsor.plans import Plan
from tonsor.select.budget import Budget, as_budget, is_measured, is_speedup
from tonsor.select.fibres.frame import Frame
from tonsor.select.fibres.sharing import Sharing, checked_group
from tonsor.select.fibres.threshold import Chosen, above, within
from tonsor.select.names import Named, as_names, touching

FibreRank = Literal["normalised", "global", "per_layer"]


class FibreOptions(TypedDict, total=False):
    """The options of `plan_columns`, for those who hand them on."""

    budget: str | Budget | None
    threshold: float | None
    by: str | Scores
    rank: FibreRank
    keep: Iterable[Named]
    floor: float
    batches: Iterable[Any] | None
    loss: Loss | None
    at_most: int | None
    seed: int
    after: Plan | None
    quiet: bool


class StripeOptions(FibreOptions, total=False):
    """The options of `plan_stripes`, for those who hand them on."""

    stripe_group: int


def plan_stripes(
    anatomy: Anatomy,
    budget: str | Budget | None = None,
    *,
    threshold: float | None = None,
    by: str | Scores = "l2",
    rank: FibreRank = "normalised",
    stripe_group: int = 1,
    keep: Iterable[Named] = (),
    floor: float = 1,
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    at_most: int | None = None,
    seed: int = 0,
    after: Plan | None = None,
    quiet: bool = False,
) -> Plan:
    """Decide which stripes go, the least important first.

    Either `budget` says what is *kept*, as `"macs=50%"`, `"params=30%"` or `"pieces=40%"` of the
    stripes, or `threshold` says which scores are too low. Filters that lose all of theirs go
    through the channels family, so that what reads them shrinks too, and a block whose branch has
    a layer without any becomes its shortcut.

    `by` names a criterion of weights or their gradients, or gives scores, by the name of the
    convolution and filter after filter. `rank` compares stripes after dividing by the mean of
    their layer (`normalised`), as they are (`global`), or within each layer, so that each loses
    the same share (`per_layer`). `keep` lists parameters, modules or patterns never to touch, as
    in `plan`: stripes and channels of those stay. `floor` is the least that stays of a layer: so
    many stripes, or that share of them if below 1; a layer loses all only where its block then
    becomes its shortcut. `after` is an earlier plan of the same model, of whatever family: what it
    removes stays gone, and the budget counts it as gone.

    With `stripe_group`, so many consecutive filters of a convolution keep the same stripes, scored
    by the mean over them; 8, 16 or 32 suit GPUs. Filters that `after` has removed are not counted,
    and the last group of a convolution may be smaller.

    >>> import torch, tonsor
    >>> net = tonsor.zoo.build("resnet20")
    >>> plan = plan_stripes(tonsor.inspect(net, torch.randn(1, 3, 32, 32)), "macs=50%")
    >>> slim = plan.apply(net)
    >>> type(slim.layer1[0].conv1).__name__
    'StripeConv2d'
    """
    return _plan(
        anatomy, find_stripes(anatomy), budget, threshold, by, rank, keep, floor, after, seed,
        checked_group(stripe_group), batches=batches, loss=loss, at_most=at_most, quiet=quiet,
    )  # fmt: skip


def plan_columns(
    anatomy: Anatomy,
    budget: str | Budget | None = None,
    *,
    threshold: float | None = None,
    by: str | Scores = "l1",
    rank: FibreRank = "normalised",
    keep: Iterable[Named] = (),
    floor: float = 1,
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    at_most: int | None = None,
    seed: int = 0,
    after: Plan | None = None,
    quiet: bool = False,
) -> Plan:
    """Decide which columns go, the least important first.

    A column is one tap of one input in all filters of a convolution. The options are those of
    `plan_stripes`, with scores input after input. An input that loses all of its columns goes
    through the channels family where nothing else reads that channel, so that the layer that makes
    it shrinks too. Of each layer one column stays at least. Which of them are worth it as columns,
    `fastest` measures.

    >>> import torch, tonsor
    >>> net = tonsor.zoo.build("convnet")
    >>> plan = plan_columns(tonsor.inspect(net, torch.randn(1, 3, 32, 32)), "macs=50%")
    >>> type(plan.apply(net).conv2).__name__
    'ColumnConv2d'
    """
    return _plan(
        anatomy, find_columns(anatomy), budget, threshold, by, rank, keep, floor, after, seed,
        batches=batches, loss=loss, at_most=at_most, quiet=quiet,
    )  # fmt: skip


def _plan(
    anatomy: Anatomy, layers: FibreLayers, budget: str | Budget | None, threshold: float | None,
    by: str | Scores, rank: FibreRank, keep: Iterable[Named], floor: float, after: Plan | None,
    seed: int, group: int = 1, **scoring: Any,
) -> Plan:  # fmt: skip
    layers = keeping(anatomy, layers, keep)
    wanted = _wanted(budget, threshold)
    if not layers.free:
        raise no_layer_free(layers)
    if not isinstance(by, Scores):
        by = score_fibres(anatomy, layers, by, seed=seed, **scoring)
    frame = Frame(anatomy, layers, after, group=group)
    layers = frame.layers
    values = ranked(layers, by, rank, frame.start, frame.shared)
    floor = checked_floor(floor)
    if isinstance(wanted, Budget):
        chosen = within(frame, values, wanted, floor)
    else:
        chosen = above(frame, values, wanted, floor)
    made = {"by": by.by, "rank": rank, "floor": floor, "seed": seed}
    made |= {"stripe_group": group} if group > 1 else {}
    return frame.plan(chosen.masks, made | told(frame, chosen, wanted))


def told(frame: Frame, chosen: Chosen, wanted: Budget | float) -> dict[str, Any]:
    """Say what was asked for, and what it has come to."""
    made: dict[str, Any] = {"threshold": chosen.threshold}
    if isinstance(wanted, Budget):
        whole = frame.whole(wanted.target)
        made |= {
            "budget": str(wanted), "reached": chosen.reached, "met": chosen.met, "whole": whole,
            "limit": wanted.amount if is_speedup(wanted.target) else wanted.limit(whole),
        }  # fmt: skip
    notes: list[str] = []
    if chosen.held:
        notes.append(
            f"{chosen.held} {frame.layers.kind} below the threshold stay, for their layers would "
            "have too few"
        )
    dead = [b.drop.name for b in frame.following.dead_branches(chosen.masks)]
    if dead:
        notes.append(f"a convolution of {', '.join(dead)} has no stripe left: the block goes")
    return made | {"notes": notes}


def keeping(anatomy: Anatomy, layers: FibreLayers, keep: Iterable[Named]) -> FibreLayers:
    """Return the layers with those that are named, or lie inside of what is, left whole."""
    names = list(as_names(anatomy, keep))
    groups = touching(anatomy, names)  # which refuses a name that is nobody's
    held = [
        x.name for x in layers
        if any(_is_in(x.name, n) or n == x.weight or fnmatchcase(x.name, n) for n in names)
    ]  # fmt: skip
    return layers.without(held, "you asked to keep it", groups)


def _is_in(module: str, name: str) -> bool:
    return module == name or module.startswith(f"{name}.")


def ranked(
    layers: FibreLayers, scores: Scores, rank: str, start: Masks | None = None,
    shared: Mapping[str, Sharing] | None = None,
) -> Mapping[str, Array]:  # fmt: skip
    """Make the scores of all layers comparable with each other.

    `start` says which there are to choose from, if not all; the others count for nothing. What
    goes as one by `shared` gets the mean of its scores.
    """
    if rank not in get_args(FibreRank):
        names = ", ".join(f"'{n}'" for n in get_args(FibreRank))
        message = f"rank must be one of {names} for {layers.kind}, got {rank!r}"
        raise SelectionError(message)
    found: dict[str, Array] = {}
    for layer in layers.free:
        mine = scores.values.get(layer.name)
        if mine is None or mine.size != layer.size:
            message = (
                f"the scores have {0 if mine is None else mine.size} values for '{layer.name}', "
                f"which has {layer.size} {layers.kind}; score with score_fibres, or keep that layer"
            )
            raise SelectionError(message)
        mine = np.asarray(mine, dtype=np.float64).reshape(-1)
        if not np.isfinite(mine).all():
            message = (
                f"{int((~np.isfinite(mine)).sum())} of the scores of '{layer.name}' are not finite "
                "numbers, and can't be compared"
            )
            raise ScoreError(message)
        there = np.ones(layer.size, dtype=np.bool_)
        if start is not None:
            there = start[layer.name].reshape(-1) if layer.name in start else ~there
        together = None if shared is None else shared.get(layer.name)
        if together is not None and not together.alone:
            mine = _averaged(mine, together)
        if rank == "normalised":
            size = np.abs(mine[there]).mean() if there.any() else 0.0
            mine = mine / size if size > 0 else mine
        elif rank == "per_layer":
            if together is None:
                every = np.ones(layer.rows, dtype=np.bool_)
                together = Sharing(1, every, there.reshape(layer.rows, layer.positions))
            mine = _as_shares(mine, together)
        found[layer.name] = mine
    return found


def _averaged(values: Array, shared: Sharing) -> Array:
    return shared.spread(shared.mean(values.reshape(shared.there.shape))).reshape(-1)


def _as_shares(values: Array, shared: Sharing) -> Array:
    """Return in place of each value the share of those below it."""
    below = shared.lower(values.reshape(shared.there.shape))
    return np.where(shared.there, below / max(1, int(shared.there.sum())), 0.0).reshape(-1)


def checked_floor(floor: object) -> float:
    """Refuse what is neither a share nor a number of stripes."""
    found = _number(floor)
    if not 0 < found < math.inf or (found > 1 and found != int(found)):
        message = f"floor is a share between 0 and 1 or a number of pieces, got {floor!r}"
        raise SelectionError(message)
    return found if found < 1 else int(found)


def _number(value: Any) -> float:
    """Return a number as it is, and what is none as not a number."""
    try:
        return math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _wanted(budget: str | Budget | None, threshold: object) -> Budget | float:
    if (budget is None) == (threshold is None):
        message = "say either what to keep (budget='macs=50%') or a threshold of the scores"
        raise BudgetError(message)
    if threshold is not None:
        if not math.isfinite(_number(threshold)):
            message = f"threshold is a number that scores are compared with, got {threshold!r}"
            raise SelectionError(message)
        return _number(threshold)
    return counted(budget)


def counted(budget: object) -> Budget:
    """Read a budget, and refuse one that is measured."""
    found = as_budget(budget)
    if is_measured(found.target):
        message = (
            "a latency can't be the budget of stripes or columns: how a layer is executed is "
            "chosen by measurement once they are cut. Ask for macs=... or params=..."
        )
        raise BudgetError(message)
    return found
