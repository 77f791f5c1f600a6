"""What to say where a budget is out of reach: what is in reach, and what holds the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tonsor.anatomy import Anatomy
from tonsor.errors import BudgetError
from tonsor.select.aim import Aim
from tonsor.select.rank import Lane, counts_after
from tonsor.types import Group


def out_of_reach(
    anatomy: Anatomy,
    aim: Aim,
    lanes: Sequence[Lane],
    fixed: Mapping[str, int],
    floor: float,
    whole: Mapping[str, object],
) -> BudgetError:
    """Make the error that says how far the lanes reach; `whole` are groups without scores."""
    at_floor = dict(enumerate(len(x.keys) for x in lanes))
    counts = {**counts_after(lanes, at_floor), **fixed}
    share = aim.cost(counts) / aim.whole
    budget, target = aim.budget, aim.budget.target
    if aim.told is aim.cost:
        reached = f"{share:.1%} of {aim.whole:,} {target} remain"
        least = f"the least that can be asked for is {target}={_percent_up(share)}"
    else:
        reached = f"{target} is no more than {aim.told(counts):.4g}"
        least = f"the most that can be asked for is {target}={_down(aim.told(counts))}"
    message = (
        f"{budget} can't be met: {reached} when every free group is cut to its floor ({floor:g}), "
        f"so {least}; a smaller floor reaches further." + _holders(anatomy, aim, counts)
    )
    if whole:
        message += f"\n  {len(whole)} groups have no scores and stay whole: {', '.join(whole)}"
    return BudgetError(message, minimum=share)


def _percent_up(fraction: float) -> str:
    return f"{-(-fraction * 1000 // 1) / 10:g}%"


def _down(times: float) -> str:
    return f"{times * 100 // 1 / 100:g}x"


def _holders(anatomy: Anatomy, aim: Aim, least: Mapping[str, int]) -> str:
    """Name the pinned groups that hold most of what remains."""
    now = aim.cost(least)
    shares: list[tuple[float, Group]] = []
    for group in anatomy.pinned:
        after = aim.cost({**least, group.name: max(1, least.get(group.name, group.size) // 2)})
        shares.append((now - after, group))
    shares.sort(key=lambda s: -s[0])
    held = [f"\n  {g.name}: {g.pins[0]}" for saved, g in shares[:3] if saved > 0]
    return " What holds most of it:" + "".join(held) if held else ""
