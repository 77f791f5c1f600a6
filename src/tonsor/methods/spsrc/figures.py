"""The numbers behind SPSRC's figures: norms of layers, and structures with and without it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tonsor.anatomy import Anatomy
from tonsor.criteria.score import Scores
from tonsor.errors import PlanError, SelectionError
from tonsor.methods.spsrc.own import group_of, makers, numbered, own_groups, own_scores
from tonsor.plans import Plan
from tonsor.select.budget import Budget
from tonsor.select.make import plan
from tonsor.select.skew import skewness
from tonsor.types import Conv


@dataclass(frozen=True, slots=True)
class LayerNorms:
    """The scores of the filters of one convolution, and how skewed they are.

    A layer of a long tail towards small norms (a negative skewness) was found to be robust;
    `sensitive` says that the skewness is above the threshold.
    """

    number: int
    layer: str
    scores: tuple[float, ...]
    skewness: float
    sensitive: bool


@dataclass(frozen=True, slots=True)
class Structures:
    """What several plans keep of each layer that any of them cuts.

    `overlap` is, of the first plan and each other one, how many channels both keep, as a fraction
    of the larger of the two; `chance` is what two random choices of as many would share.
    """

    before: Mapping[str, int]
    kept: Mapping[str, Mapping[str, int]]
    overlap: Mapping[str, Mapping[str, float]]
    chance: Mapping[str, Mapping[str, float]]


def norm_figure(
    anatomy: Anatomy,
    by: str | Scores = "spectral",
    *,
    layers: Iterable[int | str] | None = None,
    threshold: float = 0.0,
) -> list[LayerNorms]:
    """Return the scores of layers, given by number or name; of all whose channels are their own.

    Convolutions on a residual stream share their channels, so these have no scores of their own.
    The paper gives no number for what is sensitive: a skewness above 0 is our reading.
    """
    convs = dict(enumerate(numbered(anatomy), 1))
    if layers is None:
        own = set(own_groups(anatomy))
        chosen = [n for n, conv in convs.items() if group_of(conv) in own]
    else:
        chosen = [_number(layer, convs) for layer in layers]
    for number in chosen:
        _check_own(anatomy, number, convs[number])
    scores = own_scores(anatomy, by, [group_of(convs[n]) for n in chosen])
    found: list[LayerNorms] = []
    for number in chosen:
        conv = convs[number]
        row = scores.values.get(group_of(conv))
        if row is None:
            why = scores.unscored.get(group_of(conv)) or f"'{scores.by}' has none for it"
            message = f"convolution {number}, '{conv.name}', has no scores: {why}"
            raise SelectionError(message)
        skew = skewness(row)
        found.append(LayerNorms(number, conv.name, tuple(row.tolist()), skew, skew > threshold))
    return found


def threshold_plan(anatomy: Anatomy, budget: str | Budget, by: str | Scores = "spectral") -> Plan:
    """Cut to a budget with one threshold for all layers, on scores divided by their mean.

    As in SPSRC, channels that several convolutions share, such as a residual stream, stay whole.
    """
    own = list(own_groups(anatomy))
    scores = own_scores(anatomy, by, own)
    shared = [g.name for g in anatomy.prunable if g.name not in own]
    return plan(anatomy, budget, by=scores, rank="normalised", keep=shared)


def structure_data(plans: Mapping[str, Plan]) -> Structures:
    """Compare plans of the same model: what each keeps, and how far the first agrees with others.

    At fixed ratios all plans keep equally many, and only the overlap tells them apart; under one
    threshold for all layers the counts differ too.
    """
    if len(plans) < 2:
        message = f"there is nothing to compare: give two plans or more, got {len(plans)}"
        raise PlanError(message)
    (first_name, first), *others = plans.items()
    for name, other in others:
        if dict(other.fingerprint) != dict(first.fingerprint):
            message = f"'{first_name}' and '{name}' are plans for different models"
            raise PlanError(message)
    sizes = first.sizes
    cut = [n for n in sizes if any(n in p.keep for p in plans.values())]
    stays = {
        name: {n: frozenset(p.keep.get(n, range(sizes[n]))) for n in cut}
        for name, p in plans.items()
    }
    mine = stays.pop(first_name)
    return Structures(
        before={n: sizes[n] for n in cut},
        kept={name: {n: p.counts.get(n, sizes[n]) for n in cut} for name, p in plans.items()},
        overlap={
            name: {n: len(mine[n] & s[n]) / max(len(mine[n]), len(s[n])) for n in cut}
            for name, s in stays.items()
        },
        chance={
            name: {n: min(len(mine[n]), len(s[n])) / sizes[n] for n in cut}
            for name, s in stays.items()
        },
    )


def _number(layer: int | str, convs: Mapping[int, Conv]) -> int:
    found = [n for n, conv in convs.items() if layer in (n, conv.name)]
    if not found:
        names = f"1 ('{convs[1].name}') to {len(convs)}" if convs else "none"
        message = f"no convolution has the number or name {layer!r}; there are {names}"
        raise SelectionError(message)
    return found[0]


def _check_own(anatomy: Anatomy, number: int, conv: Conv) -> None:
    group = anatomy.by_name.get(group_of(conv))
    sharing = makers(anatomy, group_of(conv))
    if group is None:
        why = "its outputs are no channels of their own"
    elif not group.prunable:
        why = str(group.pins[0])
    elif len(sharing) > 1:
        why = f"its channels are those of {len(sharing)} convolutions"
    else:
        return
    message = f"convolution {number}, '{conv.name}', has no scores of its own: {why}"
    raise SelectionError(message)
