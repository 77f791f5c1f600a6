from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tonsor
from tests.methods.swp.nets import drive, gone, made, pictures, put
from tests.refusals import said
from tonsor.errors import BudgetError
from tonsor.methods.swp import FilterSkeleton, StripeLasso
from tonsor.methods.swp.run import stripe_method

TARGETS = ["macs=50%", "params=40%", "pieces=35%", "spp_speedup=2x"]


def wide(seed: int = 0) -> tuple[Any, tonsor.Anatomy]:
    """A net in which a stripe is a small part of the whole."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = tonsor.zoo.build("resnet20", width=0.5, channels=1).train()
    return net, tonsor.inspect(net, torch.zeros(2, 1, 8, 8))


def slim_cost(net: Any, plan: tonsor.Plan, target: str) -> int:
    """Count by hand what a plan leaves, on the model that it has cut."""
    slim = plan.apply(net.eval())
    if target == "params":
        return sum(p.numel() for p in slim.parameters())
    counted: list[int] = []

    def count(module: Any, inputs: Any, output: torch.Tensor) -> None:
        counted.append(module.weight.numel() * output[0, 0].numel())

    for module in slim.modules():
        if "Conv" in type(module).__name__ or isinstance(module, torch.nn.Linear):
            module.register_forward_hook(count)
    slim(torch.zeros(1, 1, 8, 8))
    return sum(counted)


@pytest.mark.parametrize("kind", ["swp", "lasso"])
@pytest.mark.parametrize("budget", TARGETS)
def test_the_cost_comes_down_and_ends_just_below_the_budget(kind: Any, budget: str) -> None:
    net, anatomy = wide()
    method = stripe_method(net, anatomy, kind, budget=budget, ramp=12, every=3)
    seen = [gone(method)]

    def watch(step: int) -> None:
        now = gone(method)
        assert all(now[n] >= lost for n, lost in seen[-1].items())
        assert (now != seen[-1]) == (step in (2, 5, 8, 11))
        seen.append(now)

    drive(net, method, pictures(16), watch=watch)
    assert [m.step for m in method.history] == [2, 5, 8, 11, 14]
    left = [m.left for m in method.history]
    assert left == sorted(left, reverse=True)
    assert method.course.over
    lost = gone(method)
    made_by = method.finish().made_by
    assert {n: lost[n] for n in lost} == gone(method)
    assert made_by["met"]
    target = budget.split("=")[0]
    share = made_by["reached"] / made_by["limit"]
    assert 0.995 <= (1 / share if "speedup" in target else share) <= 1
    assert not any("at once" in n or "missed" in n or "less than" in n for n in made_by["notes"])


@pytest.mark.parametrize("budget", ["macs=50%", "params=40%"])
def test_what_is_reached_is_what_the_cut_model_costs(budget: str) -> None:
    net, anatomy = wide()
    method = FilterSkeleton(net, anatomy, budget=budget, ramp=4, every=2)
    drive(net, method, pictures(4))
    last = method.history[-1]
    plan = method.finish()
    target, kept = budget.split("=")
    whole = anatomy.cost.macs() if target == "macs" else anatomy.cost.params()
    cost = slim_cost(net, plan, target)
    assert cost == plan.made_by["reached"]
    assert cost == (last.macs if target == "macs" else last.params)
    share = float(kept[:-1]) / 100
    assert 0.995 * share * whole <= cost <= share * whole


def test_the_ramp_is_cubic() -> None:
    net, anatomy = wide()
    method = FilterSkeleton(net, anatomy, budget="macs=40%", ramp=10, every=2)
    drive(net, method, pictures(10))
    whole = anatomy.cost.macs()
    for moment in method.history:
        done = (moment.step + 1) / 10
        aim = whole * (0.4 + 0.6 * (1 - done) ** 3)
        assert 0.985 * aim <= moment.macs <= aim


@given(st.integers(1, 9), st.integers(1, 12))
@settings(max_examples=12)
def test_the_budget_is_met_when_the_ramp_ends_whatever_the_turns(ramp: int, every: int) -> None:
    net, anatomy = made("residual")
    method = FilterSkeleton(net, anatomy, budget="pieces=40%", ramp=ramp, every=every)
    put(method)
    for step in range(ramp):
        assert not method.course.over
        method.before_step(step)
        method.after_step(step)
    assert method.course.over
    sizes = sum(layer.size for layer in method.course.layers)
    assert sizes - sum(len(lost) for lost in gone(method).values()) == int(0.4 * sizes)


def test_the_lowest_numbers_of_all_layers_go() -> None:
    net, anatomy = made("chain")
    method = FilterSkeleton(net, anatomy, budget="pieces=50%", ramp=1, every=1)
    put(method)
    values = torch.cat([s.detach().abs().flatten() for s in method.skeletons])
    method.after_step(0)
    left = torch.cat([s.detach().abs().flatten() for s in method.skeletons])
    median = values.sort().values[len(values) // 2 - 1]
    assert torch.equal(left, torch.where(values > median, values, 0))
    assert method.course.threshold == pytest.approx(float(median))


def test_what_is_gone_stays_gone_even_if_its_number_is_high_again() -> None:
    net, anatomy = made("chain")
    method = FilterSkeleton(net, anatomy, budget="pieces=30%", ramp=9, every=2)
    before: dict[str, set[int]] = gone(method)
    for step in range(8):
        put(method, seed=step)
        method.after_step(step)
        now = gone(method)
        assert all(now[n] >= lost for n, lost in before.items())
        before = now
    put(method, {"conv1": torch.zeros(6, 3, 3)})
    method.course.finish([s.detach().abs() for s in method.skeletons])
    assert all(gone(method)[n] >= lost for n, lost in before.items())
    for layer, numbers in zip(method.course.layers, method.skeletons, strict=True):
        assert not numbers.flatten()[list(before[layer.name])].any()


def test_an_end_before_the_ramp_is_cut_at_once_and_said() -> None:
    net, anatomy = wide()
    method = FilterSkeleton(net, anatomy, budget="macs=50%", ramp=100, every=2)
    drive(net, method, pictures(5))
    before = sum(len(lost) for lost in gone(method).values())
    plan = method.finish()
    after = sum(len(lost) for lost in gone(method).values())
    assert after > before > 0
    (note,) = [n for n in plan.made_by["notes"] if "at once" in n]
    assert note.startswith("training ended before the budget was met")
    assert f"{after - before} stripes are cut at once" in note
    assert plan.made_by["met"]
    net.eval()
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(plan.apply(net)(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["swp", "lasso"])
def test_a_budget_out_of_reach_is_refused_with_the_least(kind: Any) -> None:
    net, anatomy = wide()
    names = list(net.state_dict())
    with pytest.raises(BudgetError, match="the least that can be left is") as caught:
        stripe_method(net, anatomy, kind, budget="macs=0.01%")
    assert list(net.state_dict()) == names
    least = caught.value.minimum
    assert least is not None
    made_at_least = stripe_method(net, anatomy, kind, budget=tonsor.Budget("macs", amount=least))
    assert made_at_least.course.budget is not None
    if isinstance(made_at_least, FilterSkeleton):
        made_at_least.release()
    with pytest.raises(BudgetError):
        stripe_method(net, anatomy, kind, budget=tonsor.Budget("macs", amount=0.999 * least))
    words = said(BudgetError, lambda: FilterSkeleton(net, anatomy, budget="latency=50%"))
    assert "a latency can't be the budget of stripes" in words


def test_a_budget_that_training_puts_out_of_reach_is_missed_and_said() -> None:
    net, anatomy = made("residual")
    with pytest.raises(BudgetError) as caught:
        FilterSkeleton(net, anatomy, budget="macs=0.1%")
    least = caught.value.minimum
    assert least is not None
    method = FilterSkeleton(
        net, anatomy, budget=tonsor.Budget("macs", amount=least), ramp=2, every=1
    )
    other = {n: torch.rand(c, 3, 3) for n, c in (("stem", 6), ("first", 12), ("second", 6))}
    other["stem"][1, 1, 1] = other["second"][2, 1, 1] = 9.0  # two channels of the stream
    put(method, other)
    method.after_step(0)
    method.after_step(1)
    plan = method.finish()
    assert plan.made_by["reached"] > plan.made_by["limit"]
    assert not plan.made_by["met"]
    assert any("is missed by" in note for note in plan.made_by["notes"])
    assert sum(s.left for s in plan.stripes.values()) == 3
    plan.apply(net.eval())


def test_less_than_the_budget_allows_is_explained() -> None:
    net, anatomy = made("chain")
    method = FilterSkeleton(net, anatomy, budget="macs=8%", ramp=2, every=1)
    put(method)
    method.after_step(1)
    plan = method.finish()
    assert plan.made_by["reached"] < 0.995 * plan.made_by["limit"]
    assert not plan.made_by["met"]
    assert any("less than macs=8% allows is left" in note for note in plan.made_by["notes"])


def test_after_a_plan_that_has_gone_further_nothing_more_goes() -> None:
    net, anatomy = wide()
    earlier = tonsor.plan_stripes(anatomy, "macs=40%")
    method = FilterSkeleton(net, anatomy, budget="macs=50%", ramp=2, every=1, after=earlier)
    start = gone(method)
    drive(net, method, pictures(2))
    assert gone(method) == start
    plan = method.finish()
    assert plan.stripes == earlier.stripes
    assert any("less than macs=50% allows" in note for note in plan.made_by["notes"])


def test_after_a_plan_the_budget_is_of_the_whole() -> None:
    net, anatomy = wide()
    earlier = tonsor.plan(anatomy, "macs=70%")
    method = StripeLasso(net, anatomy, budget="macs=50%", ramp=2, every=1, after=earlier)
    drive(net, method, pictures(2))
    plan = method.finish()
    assert 0.4975 * anatomy.cost.macs() <= slim_cost(net, plan, "macs") <= 0.5 * anatomy.cost.macs()
    for name, kept in earlier.keep.items():
        assert set(plan.keep[name]) <= set(kept)
