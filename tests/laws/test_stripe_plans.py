"""Plans of stripes are plans: proven, merged, rebased, undone, with optimizers and all."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tests.families.stripe_nets import (
    NETS,
    Seen,
    computed,
    drawn,
    followed,
    looked_at,
    seen,
    stripes_only,
    zeroed,
)
from tests.refusals import said
from tonsor.errors import PlanError
from tonsor.families.stripes.layers import find_stripes
from tonsor.plans import Plan
from tonsor.recover.slim import Slim
from tonsor.surgery.stripe_conv import StripeConv

from .checks import same, snapshot
from .networks import examples

SMALL = sorted(NETS.keys() - {"resnet20", "vgg16"})
SEEDS, SHARES = st.integers(0, 999), st.sampled_from((0.1, 0.4, 0.8))


def apart(first: nn.Module, second: nn.Module, it: Seen) -> float:
    """How far the results of two models are from each other."""
    return float((computed(first, it.x) - computed(second, it.x)).abs().max())


def state_alike(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models hold the same, bit by bit."""
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


# ---------------------------------------------------------------- applying


def _equals_zeros(name: str, seed: int, share: float, follow: bool) -> None:
    it = seen(name)
    before = snapshot(it.model)
    plan = (followed if follow else stripes_only)(it, drawn(it.layers, seed, share))
    slim = plan.apply(it.model)
    assert same(before, snapshot(it.model))
    oracle = zeroed(plan, it.model)
    layers = [m for m in slim.modules() if isinstance(m, StripeConv)]
    for run in ("dense", "stripes"):
        for layer in layers:
            layer.run = run
        assert apart(slim, oracle, it) < 1e-9
    assert apart(plan.mask(it.model), oracle, it) < 1e-9
    assert {n.rpartition(".")[0] for n in plan.stripes} == {
        n for n, m in slim.named_modules() if isinstance(m, StripeConv)
    }
    slim.load_state_dict(plan.cut_state(it.model.state_dict()))
    assert apart(slim, oracle, it) < 1e-9


@examples(10)
@given(st.sampled_from(SMALL), SEEDS, SHARES, st.booleans())
def test_the_slim_model_is_one_with_zeros(name: str, seed: int, share: float, follow: bool) -> None:
    _equals_zeros(name, seed, share, follow)


@pytest.mark.parametrize(("name", "share"), [("resnet20", 0.3), ("resnet20", 0.7), ("vgg16", 0.4)])
@pytest.mark.parametrize("follow", [True, False])
def test_a_deep_slim_model_is_one_with_zeros(name: str, share: float, follow: bool) -> None:
    _equals_zeros(name, 1, share, follow)


def test_something_changes() -> None:
    """What is compared above is not the same from the start."""
    for name in SMALL:
        it = seen(name)
        plan = stripes_only(it, drawn(it.layers, 0, 0.4))
        assert apart(zeroed(plan, it.model), it.model, it) > 1e-4


@examples(10)
@given(st.sampled_from(SMALL), SEEDS)
def test_gradients_are_cut_like_weights(name: str, seed: int) -> None:
    it = seen(name)
    model = copy.deepcopy(it.model)
    model(it.x).square().sum().backward()
    plan = followed(it, drawn(it.layers, seed, 0.4))
    slim = plan.apply(model, verify=False)
    wanted = plan.cut_state({n: p.grad for n, p in model.named_parameters()})
    for parameter_name, parameter in slim.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, wanted[parameter_name])


# ---------------------------------------------------------------- combining


@examples(10)
@given(st.sampled_from(SMALL), SEEDS, SEEDS)
def test_plans_are_merged_and_compared(name: str, one: int, two: int) -> None:
    it = seen(name)
    first = followed(it, drawn(it.layers, one, 0.7))
    second = followed(it, drawn(it.layers, two, 0.7))
    assert first.merge(first).stripes == first.stripes
    assert not first.diff(first)
    there, back = first.diff(second), second.diff(first)
    assert (there.stripes_first, there.stripes_second) == (back.stripes_second, back.stripes_first)
    assert bool(there) == (first.cut() != second.cut())
    try:
        both = first.merge(second)
    except PlanError:
        assert "leave nothing of" in said(PlanError, lambda: second.merge(first))
        return
    other = second.merge(first)
    assert (dict(both.keep), dict(both.stripes)) == (dict(other.keep), dict(other.stripes))
    for weight in {*first.stripes, *second.stripes}:
        masks = [p.stripes[weight].mask for p in (first, second) if weight in p.stripes]
        assert (both.stripes[weight].mask == functools.reduce(lambda a, b: a & b, masks)).all()
    assert apart(both.apply(it.model), zeroed(both, it.model), it) < 1e-9
    assert not first.diff(both).stripes_first
    lost = {n: s.size - s.left for n, s in both.stripes.items()}
    was = {n: s.size - s.left for n, s in first.stripes.items()}
    more = {n: lost[n] - was.get(n, 0) for n in lost if lost[n] > was.get(n, 0)}
    assert dict(first.diff(both).stripes_second) == more


def test_a_difference_is_told() -> None:
    it = seen("residual")
    whole, part = followed(it, drawn(it.layers, 0, 2)), stripes_only(it, drawn(it.layers, 0, 0.4))
    told = str(part.diff(whole))
    stem = part.stripes["stem.weight"]
    assert f"- stem.weight: {stem.size - stem.left} stripes" in told.splitlines()
    assert "stripes stay in 5 convolutions" in str(part)


def test_what_is_measured_of_one_says_nothing_of_both() -> None:
    it = seen("plain")
    (one, two) = (followed(it, drawn(it.layers, seed, 0.8)) for seed in (0, 1))
    run = {n: replace(s, run="stripes") for n, s in one.stripes.items()}
    measured = Plan(**{**_fields(one), "fibres": run})
    assert {s.run for s in measured.merge(measured).stripes.values()} == {"stripes"}
    both = measured.merge(two).stripes
    assert {s.run for n, s in both.items() if s.rows != one.stripes[n].rows} == {""}
    slim: Any = measured.apply(it.model)
    assert {m.run for m in slim.modules() if isinstance(m, StripeConv)} == {"stripes"}


def _fields(plan: Plan) -> dict[str, Any]:
    return {n: getattr(plan, n) for n in Plan.__dataclass_fields__}


def test_plans_of_other_stripes_are_not_merged() -> None:
    it = seen("plain")
    plan = followed(it, drawn(it.layers, 0, 0.4))
    other = {"body.0.weight": replace(plan.stripes["body.0.weight"], kernel=(9,))}
    wrong = Plan(**{**_fields(plan), "fibres": other})
    assert "see other stripes in 'body.0.weight'" in said(PlanError, lambda: plan.merge(wrong))


# ---------------------------------------------------------------- one after the other


@functools.cache
def earlier_of(name: str, kind: str) -> tuple[Plan, Seen]:
    """A plan of channels or of blocks, and what it leaves, ready to lose stripes."""
    it = seen(name)
    if kind == "blocks":
        blocks = tonsor.blocks(it.anatomy)
        plan = tonsor.plan_blocks(it.anatomy, remove=[blocks.removable[0].name])
    else:
        plan = tonsor.plan(it.anatomy, "pieces=70%", by="random")
    slim = plan.apply(it.model)
    anatomy = tonsor.inspect(slim, it.x)
    return plan, Seen(slim, it.x, anatomy, find_stripes(anatomy))


CHAINS = [*((n, "channels") for n in SMALL), ("residual", "blocks"), ("resnet20", "blocks")]


@examples(12)
@given(st.sampled_from(CHAINS), SEEDS, SHARES)
def test_continual_pruning_is_one_plan(chain: tuple[str, str], seed: int, share: float) -> None:
    it, (earlier, left) = seen(chain[0]), earlier_of(*chain)
    later = followed(left, drawn(left.layers, seed, share))
    slim = later.apply(left.model)
    total = later.rebase(earlier)
    assert state_alike(total.apply(it.model), slim)
    if not earlier.drops:
        assert apart(slim, zeroed(total, it.model), it) < 1e-9
    back = total.relative_to(earlier)
    assert (dict(back.keep), dict(back.stripes)) == (dict(later.keep), dict(later.stripes))
    assert (back.fingerprint, back.drops) == (later.fingerprint, later.drops)
    assert state_alike(back.apply(left.model, inputs=it.x), slim)
    assert not back.rebase(earlier).diff(total)
    assert not earlier.diff(total).only_first
    grown = total.revert(slim, it.model)
    assert state_alike(total.apply(grown, verify=False), slim)


def test_channels_and_stripes_go_in_any_order() -> None:
    for name in ("residual", "dense", "flat"):
        it, (channels, left) = seen(name), earlier_of(name, "channels")
        stripes = followed(it, drawn(it.layers, 3, 0.8))
        both = stripes.merge(channels)
        slim = both.apply(it.model)
        assert apart(slim, zeroed(both, it.model), it) < 1e-9
        rest = both.relative_to(channels)
        assert state_alike(rest.apply(left.model, inputs=it.x), slim)


def test_after_stripes_there_is_no_way_back_to_the_original() -> None:
    it = seen("residual")
    stripes = followed(it, drawn(it.layers, 0, 0.4))
    channels, _ = earlier_of("residual", "channels")
    told = said(PlanError, lambda: channels.rebase(stripes))
    assert "Plan on the original instead, with after=the earlier plan" in told
    more = stripes.merge(stripes)
    assert "apply this plan to the original" in said(PlanError, lambda: more.relative_to(stripes))
    slim = stripes.apply(it.model)
    assert "use plan.rebase(earlier) first" in said(PlanError, lambda: stripes.apply(slim))


# ---------------------------------------------------------------- going back


@examples(10)
@given(st.sampled_from(SMALL), SEEDS)
def test_what_was_trained_goes_back_to_where_it_was(name: str, seed: int) -> None:
    it = seen(name)
    plan = followed(it, drawn(it.layers, seed, 0.4))
    slim = plan.apply(it.model, verify=False)
    with torch.no_grad():
        for parameter in slim.parameters():
            parameter.add_(1)
    before = snapshot(it.model)
    back = plan.revert(slim, it.model)
    assert same(before, snapshot(it.model))
    moved = copy.deepcopy(it.model)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(1)
    stays = zeroed(plan, _ones(it.model))
    for parameter_name, parameter in back.named_parameters():
        here = stays.get_parameter(parameter_name).bool()
        wanted = torch.where(
            here, moved.get_parameter(parameter_name), it.model.get_parameter(parameter_name)
        )
        assert torch.equal(parameter, wanted)
    assert state_alike(plan.apply(back, verify=False), slim)
    told = said(PlanError, lambda: plan.revert(it.model, it.model))
    assert "of the slim model is not what this plan leaves of it" in told


def _ones(model: nn.Module) -> nn.Module:
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(1)
    return other


def test_states_of_wrapped_models_are_cut_too() -> None:
    it = seen("residual")
    plan = followed(it, drawn(it.layers, 0, 0.4))
    slim = plan.apply(it.model)
    state = it.model.state_dict()
    prefixed = plan.cut_state({f"module.{n}": t for n, t in state.items()})
    assert prefixed.keys() == {f"module.{n}" for n in slim.state_dict()}
    for name, tensor in slim.state_dict().items():
        assert torch.equal(prefixed[f"module.{name}"], tensor)


def test_it_is_known_what_has_changed_since_the_cut() -> None:
    it = seen("residual")
    masks = drawn(it.layers, 0, 0.4)
    masks["one.conv2"][:] = False
    plan = followed(it, masks)
    slim = plan.apply(it.model)
    names = [n for n, _ in it.model.named_parameters() if not n.startswith("one.")]
    assert all(Slim(plan, it.model, slim).as_cut(n) for n in names)
    with torch.no_grad():
        slim.get_parameter("two.conv1.weight")[0, 0] += 1
        slim.get_parameter("stem.bias")[0] += 1
    changed = [n for n in names if not Slim(plan, it.model, slim).as_cut(n)]
    assert changed == ["stem.bias", "two.conv1.weight"]
    other = stripes_only(it, drawn(it.layers, 1, 0.8))
    told = said(PlanError, lambda: Slim(other, it.model, slim))
    assert "give the model that plan.apply has returned" in told


# ---------------------------------------------------------------- optimizers


OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=1e-2, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
}


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@examples(5)
@given(st.sampled_from(SMALL), SEEDS)
def test_the_next_step_is_that_of_the_masked_model(kind: str, name: str, seed: int) -> None:
    """What is kept of the weights moves as if the rest had been set to zero."""
    it = seen(name)
    model, x = copy.deepcopy(it.model).double(), it.x.double()
    optimizer = OPTIMIZERS[kind](model.parameters())
    for _ in range(2):
        _step(model, optimizer, x)
    plan = followed(it, drawn(it.layers, seed, 0.4))
    slim, masked = plan.apply(model, verify=False), zeroed(plan, model)
    other = OPTIMIZERS[kind](masked.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    plan.apply_to(optimizer, model, slim)
    assert list(itertools.chain(*(g["params"] for g in optimizer.param_groups))) == list(
        slim.parameters()
    )
    _step(slim, optimizer, x)
    _step(masked, other, x)
    wanted = plan.cut_state(masked.state_dict())
    for parameter_name, parameter in slim.named_parameters():
        torch.testing.assert_close(parameter.detach(), wanted[parameter_name])


def test_momentum_of_a_block_that_went_is_forgotten() -> None:
    it = looked_at(NETS["residual"][0](), seen("residual").x)
    masks = drawn(it.layers, 0, 0.5)
    masks["one.conv1"][:] = False
    plan = followed(it, masks)
    assert [d.name for d in plan.drops] == ["one"]
    optimizer = torch.optim.SGD(it.model.parameters(), lr=0.1, momentum=0.9)
    _step(it.model, optimizer, it.x)
    before = {n: optimizer.state[p]["momentum_buffer"] for n, p in it.model.named_parameters()}
    wanted = plan.cut_state(before)
    slim = plan.apply(it.model, verify=False)
    plan.apply_to(optimizer, it.model, slim)
    assert set(optimizer.state) == set(slim.parameters())
    for name, parameter in slim.named_parameters():
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], wanted[name])


def test_what_can_not_be_sliced_is_refused() -> None:
    it = looked_at(NETS["plain"][0](), seen("plain").x)
    optimizer = torch.optim.SGD(it.model.parameters(), lr=0.1, momentum=0.9)
    _step(it.model, optimizer, it.x)
    weight = it.model.body[0].weight
    optimizer.state[weight]["momentum_buffer"] = torch.zeros(7)
    plan = stripes_only(it, drawn(it.layers, 0, 0.5))
    slim = plan.apply(it.model, verify=False)
    told = said(PlanError, lambda: plan.apply_to(optimizer, it.model, slim))
    assert "which can't be sliced; make a new optimizer" in told
