"""Going on from an earlier plan: what is gone stays gone, and is counted as gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import event, given, note
from hypothesis import strategies as st

import tonsor
from tests.laws.networks import Network, examples, networks
from tonsor.criteria.score import Scores
from tonsor.errors import BudgetError, PlanError, SelectionError
from tonsor.plans import Plan
from tonsor.select.make import plan
from tonsor.select.rank import RANKS, Rank
from tonsor.select.skew import skewness
from tonsor.types import Leaf, Pin

from .nets import anatomy_of, drawn, nets, removed, seeds, widths

ranks = st.sampled_from(RANKS)


def asked(anatomy: tonsor.Anatomy, share: float, target: str = "pieces", **options: Any) -> Plan:
    """Ask for a share, or for the least there is if that is more."""
    try:
        return plan(anatomy, tonsor.Budget(target, kept=share), **options)
    except BudgetError as error:
        return plan(anatomy, tonsor.Budget(target, kept=error.minimum), **options)


@given(nets, ranks, seeds, seeds, st.floats(0.3, 1), st.floats(0.3, 1), st.sampled_from((1, 4)))
def test_a_later_plan_removes_all_that_the_earlier_one_did(
    net: str, rank: Rank, one: int, two: int, first: float, second: float, to: int
) -> None:
    """Other scores, another rank, other multiples, a higher floor: what is gone stays gone."""
    anatomy = anatomy_of(net)
    earlier = asked(anatomy, first, by=drawn(anatomy, one))
    later = asked(
        anatomy, second, by=drawn(anatomy, two), rank=rank, round_to=to, floor=0.3, after=earlier
    )
    assert removed(later) >= removed(earlier)
    before, now = widths(anatomy, earlier), widths(anatomy, later)
    assert all(now[n] <= before[n] for n in now)
    assert later.made_by.get("gone_before", 0) == len(removed(earlier))
    if later.made_by["limit"] >= earlier.made_by["reached"]:
        assert later.keep == earlier.keep
        event("met already")
    else:
        event("cut further")
        rest = {n: c for n, c in now.items() if c != before[n]}
        assert all(c % to == 0 for c in rest.values())
        assert all(c >= 0.3 * anatomy.by_name[n].size for n, c in rest.items())
    assert later.made_by["reached"] <= later.made_by["limit"]


@examples(40)
@given(nets, ranks, seeds, st.floats(0.3, 0.8), st.floats(0.8, 1))
def test_with_the_same_scores_a_stop_on_the_way_changes_nothing(
    net: str, rank: Rank, seed: int, share: float, stop: float
) -> None:
    """Only `normalised` may differ, for the mean of what is left is another one."""
    anatomy = anatomy_of(net)
    if rank == "normalised" or any(g.tie is not None for g in anatomy.prunable):
        return
    scores = drawn(anatomy, seed)
    options: dict[str, Any] = {"by": scores, "rank": rank}
    at_once = asked(anatomy, share, **options)
    between = asked(anatomy, stop, **options)
    assert asked(anatomy, share, after=between, **options).keep == at_once.keep


@examples(10)
@given(networks(), ranks, st.floats(0.5, 0.9))
@pytest.mark.filterwarnings("ignore")
def test_plans_of_random_networks_can_be_gone_on_from(
    recipe: Network, rank: Rank, share: float
) -> None:
    model, x = recipe.build()
    note(str(recipe))
    anatomy = tonsor.inspect(model, x, head_dims=True)
    if not anatomy.prunable:
        event("nothing can be cut")
        return
    options: dict[str, Any] = {"by": "random"}
    earlier = asked(anatomy, share, "params", seed=1, **options)
    later = asked(anatomy, share * 0.8, "params", seed=2, rank=rank, after=earlier, **options)
    assert removed(later) >= removed(earlier)
    assert later.made_by["reached"] <= later.made_by["limit"]
    assert later.made_by["reached"] == anatomy.cost.params(later.counts)
    event("cut further" if removed(later) > removed(earlier) else "the same")


def test_what_is_held_by_now_stays_as_it_was_left() -> None:
    anatomy = anatomy_of("resnet20")
    earlier = plan(anatomy, "pieces=70%", rank="per_group")
    kept, pinned = "layer2.0.conv1.weight[0]", "layer2.1.conv1.weight[0]"
    unscored, skipped = "layer3.0.conv1.weight[0]", "layer3.1.conv1.weight[0]"
    scores = drawn(anatomy, 0)
    left = {n: np.sort(np.sqrt(np.arange(len(v)))) for n, v in scores.values.items()}
    values = {n: v for n, v in left.items() if n != unscored}
    values[skipped] = np.geomspace(1, 1e6, len(values[skipped]))
    # Taking the first pieces off a tail of small scores leaves one.
    earlier = replace(earlier, keep={n: tuple(range(len(k))) for n, k in earlier.keep.items()})
    now = anatomy.pinned_also({pinned: Pin("keep", "it is to stay")})
    later = plan(
        now, "pieces=60%", by=replace(scores, values=values), after=earlier, keep=[kept],
        skew=0.0,
    )  # fmt: skip
    for name in (kept, pinned, unscored, skipped):
        assert later.keep[name] == earlier.keep[name]
    assert list(later.made_by["skipped"]) == [skipped]
    assert list(later.made_by["unscored"]) == [unscored]
    assert removed(later) > removed(earlier)
    counted = {n: c for n, c in widths(now, later).items() if n != kept}
    assert later.made_by["reached"] == sum(counted.values())
    later.apply(anatomy.model)  # the pinned group is cut as before, and the proof holds


def test_scores_of_what_is_gone_are_not_looked_at() -> None:
    """Masked pieces often score zero, all of them: that is no tie, and no tail."""
    anatomy = anatomy_of("convnet")
    earlier = plan(anatomy, "pieces=60%", rank="per_group")
    values = {g.name: np.sqrt(np.arange(g.size) + 1.0) for g in anatomy.prunable}
    for name, kept in earlier.keep.items():
        gone = np.setdiff1d(np.arange(len(values[name])), kept)
        values[name][gone] = -99.0
    scores = Scores(values, "test")
    later = plan(anatomy, "pieces=60%", by=scores, after=earlier, skew=-10)
    assert later.made_by["notes"][1:] == []  # but for the skip list
    expected = {n: skewness(values[n][list(k)]) for n, k in earlier.keep.items()}
    assert later.made_by["skipped"] == expected


def test_ratios_go_down_from_what_was_left() -> None:
    anatomy = anatomy_of("resnet20")
    earlier = plan(anatomy, ratios={"layer2.0.conv1": 8})
    options: dict[str, Any] = {"after": earlier}
    name = "layer2.0.conv1.weight[0]"
    assert plan(anatomy, ratios={"layer2.0.conv1": 0.9}, **options).counts == {name: 8}
    assert plan(anatomy, ratios={"layer2.0.conv1": 5}, **options).counts == {name: 5}
    with pytest.raises(SelectionError, match="an earlier plan has left 8"):
        plan(anatomy, ratios={"layer2.0.conv1": 9}, **options)


def test_an_earlier_plan_of_another_model_is_refused() -> None:
    anatomy = anatomy_of("resnet20")
    other = plan(anatomy_of("convnet"), "pieces=50%")
    with pytest.raises(PlanError, match="the plan was made for"):
        plan(anatomy, "pieces=50%", after=other)
    renamed = plan(anatomy, "pieces=50%")
    renamed = replace(renamed, keep={**renamed.keep, "lost": (0,)})
    renamed = replace(renamed, layout={**renamed.layout, "lost": (Leaf("lost", 2),)})
    with pytest.raises(PlanError, match="'lost', of 2, which is no group here"):
        plan(anatomy, "pieces=50%", after=renamed)


def test_an_earlier_plan_that_tears_a_tie_is_refused() -> None:
    anatomy = anatomy_of("halves")
    earlier = plan(anatomy, ratios={"left.weight[1]": 8})
    name = next(n for n in earlier.keep)
    torn = replace(earlier, keep={name: earlier.keep[name]})
    with pytest.raises(PlanError, match=r"can't be gone on from: .* would not go in step"):
        plan(anatomy, "pieces=50%", after=torn)


def test_prune_goes_on_from_an_earlier_plan_too() -> None:
    model, x = anatomy_of("resnet20").model, torch.randn(1, 3, 32, 32)
    _, first = tonsor.prune(model, x, budget="macs=80%")
    slim, second = tonsor.prune(model, x, budget="macs=60%", by="random", after=first.plan)
    assert removed(second.plan) > removed(first.plan)
    assert second.proof is not None
    assert sum(p.numel() for p in slim.parameters()) == second.params[1]
