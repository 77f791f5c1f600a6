"""Make a plan: scores, a budget and the user's wishes become what goes and what stays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tonsor._version import __version__
from tonsor.anatomy import Anatomy
from tonsor.cost.bench import Bench
from tonsor.criteria.score import Combine, Scores, score
from tonsor.criteria.stream import Loss
from tonsor.errors import BudgetError
from tonsor.plan_parts import fingerprint
from tonsor.plans import Plan
from tonsor.select.aim import aim
from tonsor.select.budget import Budget, as_budget, is_measured
from tonsor.select.choose import choose
from tonsor.select.earlier import ties_of
from tonsor.select.isomorphic import likeness, share_alike
from tonsor.select.judged import Bundle, judged, of_those_left
from tonsor.select.names import Named
from tonsor.select.rank import Lane, Rank, counts_after, make_lane
from tonsor.select.ratios import read_ratios, step_for
from tonsor.select.reach import out_of_reach
from tonsor.select.skew import skewed
from tonsor.select.timed import plan_timed
from tonsor.select.wishes import Wishes, read_wishes
from tonsor.types import Axis, leaves

Kept = dict[str, tuple[int, ...]]
WITHIN = 0.02  # how well a latency is known that is to be met, if nothing else is said


def plan(
    anatomy: Anatomy,
    budget: str | Budget | None = None,
    *,
    by: str | Scores = "l2",
    rank: Rank = "global",
    keep: Iterable[Named] = (),
    ratios: Mapping[str, float] | None = None,
    round_to: int = 1,
    floor: int | float = 0.1,
    combine: Combine = "mean",
    seed: int = 0,
    batches: Iterable[Any] | None = None,
    loss: Loss | None = None,
    at_most: int | None = None,
    skew: float | None = None,
    after: Plan | None = None,
    bench: Bench | None = None,
    quiet: bool = False,
) -> Plan:
    """Decide what goes, so that the cost of what stays meets the budget.

    `budget` is what is *kept*: `"macs=50%"`, `"params=1.2M"`, `"pieces=70%"`, `tonsor.params(0.3)`,
    or any convention of counting; a speed-up is an amount, `"spp_speedup=2x"`. A latency,
    `"latency=70%"` or `"latency=12ms"`, is measured as `bench` says, and corrected until the
    measured figure holds.

    `by` names a criterion or gives scores; `batches`, `loss`, `at_most`, `combine`, `seed` and
    `quiet` are those of `score`. Groups that have no scores stay whole, and the plan says why.

    `rank` compares pieces over the whole model (`global`), after dividing by the group's mean
    (`normalised`), among groups of the same structure, which all give the same share
    (`isomorphic`), or takes the same share of each group (`per_group`).

    `keep` lists parameters, modules or patterns never to touch (what a layer reads is a dimension
    of its weight, so that stays too). `ratios` maps names or patterns to what to keep of a group
    whatever the budget: a fraction gives the nearest count, a whole number above 1 is exact, and
    of several that fit the last holds. `skew` also leaves groups whole whose scores have a
    skewness above it: 0 spares all but those with a long tail of small scores.

    `round_to` makes kept counts multiples; `floor` is the least that stays of a group, as a number
    or, below 1, as a fraction of it. `after` is an earlier plan of the same model: what it removes
    stays gone, whatever the other options say, and the budget counts it as gone.
    """
    if budget is not None and is_measured(as_budget(budget).target):
        scores = by if isinstance(by, Scores) else score(
            anatomy, by, combine=combine, batches=batches, loss=loss, at_most=at_most, seed=seed,
            quiet=quiet,
        )  # fmt: skip
        return plan_timed(
            anatomy, budget, bench=bench or Bench(within=WITHIN), quiet=quiet,
            build=lambda counted: plan(
                anatomy, counted, by=scores, rank=rank, keep=keep, ratios=ratios,
                round_to=round_to, floor=floor, seed=seed, skew=skew, after=after,
            ),
        )  # fmt: skip
    wishes = read_wishes(
        anatomy, budget, rank=rank, keep=keep, ratios=ratios, round_to=round_to, floor=floor,
        skew=skew, after=after,
    )  # fmt: skip
    if not isinstance(by, Scores):
        by = score(
            anatomy, by, combine=combine, batches=batches, loss=loss, at_most=at_most, seed=seed,
            quiet=quiet,
        )  # fmt: skip
    start: Kept = {} if after is None else dict(after.keep)
    kept, made_by = _decide(anatomy, wishes, by, start, seed)
    decided = Plan(
        fingerprint=fingerprint(anatomy.model),
        keep={n: k for n, k in kept.items() if len(k) < anatomy.by_name[n].size},
        layout=layout_of(anatomy),
        mends=anatomy.mends,
        ties=ties_of(anatomy),
        made_by=made_by,
        probe=anatomy.inputs,
    )
    # What the earlier plan cuts may be pinned by now, and then only it knows how to cut it.
    return decided if after is None else replace(decided.merge(after), made_by=made_by)


def _decide(
    anatomy: Anatomy, wishes: Wishes, given: Scores, kept: Kept, seed: int
) -> tuple[Kept, dict[str, Any]]:
    """Return what stays of every group that loses something, and how that came about."""
    scores = judged(wishes.bundles, given)
    now = of_those_left(scores, wishes.alive)
    skipped = {} if wishes.skew is None else skewed(now, wishes.skew)
    whole = {*scores.unscored, *skipped}
    ratios = read_ratios(
        anatomy, wishes.ratios, set(scores.values), {**wishes.held, **scores.unscored}
    )
    going = [b for b in wishes.bundles if not any(g.name in whole for g in b)]
    fixed = [b for b in going if any(g.name in ratios for g in b)]
    free = [b for b in going if not any(g.name in ratios for g in b)]
    for bundle in fixed:
        lane = make_lane(bundle, scores, "global", wishes.round_to, 1, wishes.alive)
        units = {g.name: g.unit for g in bundle}
        kept |= lane.kept_indices(step_for(lane, ratios, wishes.round_to, units))
    made_by: dict[str, Any] = {
        "version": __version__, "by": scores.by, "rank": wishes.rank,
        "round_to": wishes.round_to, "floor": wishes.floor, "seed": seed,
        "unscored": dict(scores.unscored), "skipped": skipped,
        "notes": [*now.notes, *_of_skipped(skipped, wishes.skew)],
    }  # fmt: skip
    if wishes.alive:
        made_by["gone_before"] = sum(int((~mask).sum()) for mask in wishes.alive.values())
    if wishes.budget is not None:
        made_by |= _meet(anatomy, wishes, scores, _lanes(anatomy, free, scores, wishes), kept)
    return kept, made_by


def _lanes(
    anatomy: Anatomy, bundles: Sequence[Bundle], scores: Scores, wishes: Wishes
) -> list[Lane]:
    rank, round_to, floor, alive = wishes.rank, wishes.round_to, wishes.floor, wishes.alive
    lanes = [make_lane(b, scores, rank, round_to, floor, alive) for b in bundles]
    if rank == "isomorphic" and lanes:
        return share_alike(lanes, [likeness(anatomy, b) for b in bundles])
    return lanes


def _meet(
    anatomy: Anatomy, wishes: Wishes, scores: Scores, lanes: Sequence[Lane], kept: Kept
) -> dict[str, Any]:
    """Step down the lanes until the budget is met, and say how near that came."""
    assert wishes.budget is not None
    aimed = aim(anatomy, wishes.budget, [g for b in wishes.bundles for g in b])
    moving = {name for lane in lanes for name in lane.names}
    fixed = {n: len(k) for n, k in kept.items() if n not in moving}
    try:
        choice = choose(lanes, aimed.cost, aimed.limit, fixed)
    except BudgetError:
        raise out_of_reach(
            anatomy, aimed, lanes, fixed, wishes.floor, scores.unscored
        ) from None  # fmt: skip
    for lane, step in zip(lanes, choice.steps, strict=True):
        if step:
            kept |= lane.kept_indices(step)
    at_floor = dict(enumerate(len(x.keys) for x in lanes))
    counts = {n: len(k) for n, k in kept.items()}
    return {
        "budget": str(wishes.budget), "limit": aimed.told_limit,
        "reached": aimed.tell(choice.cost, counts), "met": choice.met,
        "least": aimed.tell(choice.least, {**counts_after(lanes, at_floor), **fixed}),
        "whole": aimed.tell(aimed.whole, {}),
    }  # fmt: skip


def _of_skipped(skipped: Mapping[str, float], threshold: float | None) -> Iterator[str]:
    if skipped:
        names = ", ".join(f"'{n}' ({g1:.2f})" for n, g1 in list(skipped.items())[:3])
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        yield f"left whole, for the skewness of their scores is above {threshold:g}: {names}{more}"


def layout_of(anatomy: Anatomy) -> dict[str, tuple[Axis, ...]]:
    """Return through which dimensions of which tensors the groups that may be cut run."""
    free = {g.name for g in anatomy.groups if g.prunable}
    return {
        name: anatomy.axes(name)
        for name in anatomy.graph.tensors
        if any(leaf.name in free for a in anatomy.axes(name) for leaf in leaves(a))
    }
