"""Which cuts are tried: every group that may be cut, alone, at every fraction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tonsor.anatomy import Anatomy
from tonsor.criteria.scores import Scores
from tonsor.errors import SelectionError
from tonsor.select.make import plan
from tonsor.select.names import Named, as_names, led_by
from tonsor.select.rank import make_lane
from tonsor.types import Cut, Group


@dataclass(frozen=True, slots=True)
class Trial:
    """One cut of one group: what it keeps, what surgery needs for it, and what it saves."""

    kept: int
    cut: Cut
    macs: int
    params: int


@dataclass(frozen=True, slots=True)
class Bundle:
    """A group with those that must be cut in step, and the cuts of them that differ.

    `asked` says which cut each fraction leads to: a place in `trials`, or -1 where all is kept.
    """

    names: tuple[str, ...]
    size: int
    asked: tuple[tuple[float, int], ...]
    trials: tuple[Trial, ...]

    @property
    def name(self) -> str:
        """The first group, which stands for all."""
        return self.names[0]


def check_fractions(fractions: Iterable[float]) -> tuple[float, ...]:
    """Return the fractions, the largest first, each once."""
    found = tuple(fractions)
    for one in found:
        number = isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one)
        if not number or not 0 < one < 1:
            message = f"fractions are of what is kept, between 0 and 1; one of them is {one!r}"
            raise SelectionError(message)
    if not found:
        message = "fractions is empty, so there is nothing to try; give some, such as (0.75, 0.5)"
        raise SelectionError(message)
    return tuple(sorted({float(one) for one in found}, reverse=True))


def all_cuts(
    anatomy: Anatomy,
    scores: Scores,
    fractions: Sequence[float],
    groups: Iterable[Named] | None,
) -> tuple[tuple[Bundle, ...], dict[str, str]]:
    """Return what is to be tried, the shallowest group first, and which groups are skipped and why.

    Groups that the model's code ties together are cut together, and count as one.
    """
    wanted = _wanted(anatomy, groups)
    ready: list[list[Group]] = []
    skipped: dict[str, str] = {}
    for bundle in _tied(anatomy):
        if not any(g.name in wanted for g in bundle):
            continue
        why = _obstacle(bundle, scores)
        if why is None:
            ready.append(bundle)
        else:
            skipped |= {g.name: why for g in bundle if g.prunable and g.name in wanted}
    if not ready:
        return (), skipped
    free = {ready[0][0].name: 1.0}
    whole = plan(anatomy, by=scores, ratios=free, keep=list(scores.unscored))
    macs, params = anatomy.cost.meter("macs"), anatomy.cost.meter("params")
    before = macs({}), params({})

    def made(bundle: Sequence[Group]) -> Bundle:
        lane = make_lane(bundle, scores, "per_group", 1, 1)
        asked: list[tuple[float, int]] = []
        places: dict[int, int] = {}
        trials: list[Trial] = []
        for fraction in fractions:
            step = lane.step_at(fraction)
            if step and step not in places:
                places[step] = len(trials)
                one = replace(whole, keep=lane.kept_indices(step))
                counts = one.counts
                trials.append(Trial(
                    len(one.keep[bundle[0].name]), one.cut(),
                    before[0] - macs(counts), before[1] - params(counts),
                ))  # fmt: skip
            asked.append((fraction, places.get(step, -1)))
        return Bundle(lane.names, bundle[0].size, tuple(asked), tuple(trials))

    first = _first_reads(anatomy)
    ready.sort(key=lambda b: min((first.get(m.tensor, 0) for g in b for m in g.members), default=0))
    return tuple(made(bundle) for bundle in ready), skipped


def _wanted(anatomy: Anatomy, groups: Iterable[Named] | None) -> set[str]:
    free = {g.name for g in anatomy.prunable}
    if groups is None:
        return free
    found: set[str] = set()
    for name in as_names(anatomy, groups):
        led = led_by(anatomy, name)
        if not led & free:
            pins = [str(p) for g in sorted(led) for p in anatomy.by_name[g].pins[:1]]
            why = "; ".join(pins) or "no group runs through its outputs"
            message = f"'{name}' has nothing that may be cut: {why}"
            raise SelectionError(message)
        found |= led & free
    return found


def _tied(anatomy: Anatomy) -> list[list[Group]]:
    bundles: dict[object, list[Group]] = {}
    for group in anatomy.groups:
        bundles.setdefault(group.name if group.tie is None else group.tie, []).append(group)
    return list(bundles.values())


def _obstacle(bundle: Sequence[Group], scores: Scores) -> str | None:
    """Say why groups that go together can't be tried, if they can't."""
    for group in bundle:
        if not group.prunable:
            return f"it goes together with '{group.name}', which may not be cut: {group.pins[0]}"
        if group.name not in scores.values:
            return scores.unscored.get(group.name) or f"'{scores.by}' has no scores for it"
    return None


def _first_reads(anatomy: Anatomy) -> Mapping[str, int]:
    """Return the first operator that reads each parameter and buffer."""
    by_value: dict[int, int] = {}
    for op in anatomy.graph.ops:
        for value in op.inputs:
            by_value.setdefault(value, op.index)
    tensors = anatomy.graph.tensors
    return {name: by_value[value] for name, value in tensors.items() if value in by_value}
