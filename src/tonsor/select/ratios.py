"""Ratios: how much of single groups is to stay, as a share or as a count, whatever the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np

from tonsor.anatomy import Anatomy
from tonsor.errors import SelectionError
from tonsor.select.names import led_by
from tonsor.select.rank import Lane

Units = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Ratio:
    """What a name or pattern asks of a group: a fraction to keep, or a count above 1.

    `place` is where it stood among all that were given, and it is `broad` if it names several
    groups: of these the last that fits holds.
    """

    name: str
    kept: float
    place: int
    broad: bool

    @property
    def count(self) -> int | None:
        """The exact number of pieces to keep, if that was given."""
        return int(self.kept) if self.kept > 1 else None


def read_ratios(
    anatomy: Anatomy, ratios: Mapping[str, float], free: set[str], held: dict[str, str]
) -> dict[str, Ratio]:
    """Find out what is asked of which group; `held` says why groups that are not free are whole."""
    found: dict[str, Ratio] = {}
    for place, (name, kept) in enumerate(ratios.items()):
        kept = _number(name, kept)
        groups = led_by(anatomy, name)
        mine = sorted(groups & free)
        if not mine:
            why = _reasons(anatomy, groups, held) or "no group runs through its outputs"
            message = f"'{name}' can't be given a ratio: {why}"
            raise SelectionError(message)
        ratio = Ratio(name, kept, place, broad=len(groups) > 1 or bool({*name} & {*"*?"}))
        for group in mine:
            if group in found and found[group].kept != kept:
                _refuse_both(f"'{group}' is the output of both", found[group], ratio)
            found[group] = ratio
    return found


def _reasons(anatomy: Anatomy, groups: set[str], held: dict[str, str]) -> str:
    pins = {g: str(p) for g in groups for p in anatomy.by_name[g].pins[:1]}
    return "; ".join(dict.fromkeys((held | pins)[g] for g in sorted(groups) if g in held | pins))


def _refuse_both(why: str, first: Ratio, second: Ratio) -> None:
    if not (first.broad or second.broad):
        message = (
            f"{why}, but '{first.name}' asks for {first.kept:g} and '{second.name}' for "
            f"{second.kept:g}"
        )
        raise SelectionError(message)


def _number(name: str, given: object) -> float:
    if type(given) is not bool:
        if isinstance(given, Integral) and int(given) >= 1:
            return int(given)
        if isinstance(given, Real) and 0 < float(given) <= 1:
            return float(given)
    message = (
        f"the fraction of '{name}' to keep must be above 0 and at most 1, or a whole number of "
        f"pieces, got {given}"
    )
    raise SelectionError(message)


def step_for(lane: Lane, ratios: Mapping[str, Ratio], round_to: int, units: Units) -> int:
    """Return how far down a lane its groups were asked to go; the last ratio given holds."""
    asked = {n: ratios[n] for n in lane.names if n in ratios}
    steps = {n: _step(lane, n, r, round_to, units) for n, r in asked.items()}
    last = max(asked, key=lambda n: asked[n].place)
    for name, ratio in asked.items():
        if steps[name] != steps[last]:
            _refuse_both(f"'{name}' and '{last}' must shrink in step", ratio, asked[last])
    return steps[last]


def _step(lane: Lane, name: str, ratio: Ratio, round_to: int, units: Units) -> int:
    if ratio.count is None:
        return lane.step_at(ratio.kept)
    place = lane.names.index(name)
    counts, size = lane.kept[place], len(lane.orders[place])
    hits = np.flatnonzero(counts == ratio.count)
    if len(hits):
        return int(hits[0])
    why = "; ".join(_obstacles(lane, place, ratio.count, round_to, units))
    near = [int(c) for c in (*counts[counts > ratio.count][-1:], *counts[counts < ratio.count][:1])]
    message = (
        f"'{ratio.name}' can't keep exactly {ratio.count} of the {size} pieces of '{name}': {why}. "
        f"The nearest it can keep: {' or '.join(map(str, near))}."
    )
    raise SelectionError(message)


def _obstacles(lane: Lane, place: int, count: int, round_to: int, units: Units) -> list[str]:
    most, size = int(lane.kept[place][0]), len(lane.orders[place])
    if count > size:
        return ["it has no more than that"]
    if count > most:
        return [f"an earlier plan has left {most}"]
    why: list[str] = []
    if round_to > 1:
        why.append(f"round_to={round_to} asks for multiples")
    if units[lane.names[place]] > 1:
        why.append(f"its pieces go {units[lane.names[place]]} at a time")
    others = [n for i, n in enumerate(lane.names) if i != place]
    if others:
        why.append(f"it must shrink in step with '{others[0]}'")
    return why or ["no step down leads there"]
