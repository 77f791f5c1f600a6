"""Plans of columns are plans: proven, merged, rebased, undone, with optimizers and all."""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import event, given, note
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tests.families import stripe_nets
from tests.families.column_nets import (
    NETS,
    SMALL,
    columns_only,
    deadened,
    looked_at,
    seen,
    whole,
)
from tests.families.stripe_nets import Seen, computed, drawn, followed, zeroed
from tests.refusals import said
from tonsor.errors import PlanError, TonsorError
from tonsor.families.columns.layers import find_columns
from tonsor.plan_json import plan_from_json, plan_to_json
from tonsor.plans import Plan
from tonsor.surgery.column_conv import ColumnConv

from .checks import apart as far
from .checks import outputs, same, snapshot
from .networks import Network, examples, networks

SEEDS, SHARES = st.integers(0, 999), st.sampled_from((0.1, 0.4, 0.8))
NAMES = st.sampled_from(SMALL)


def apart(first: nn.Module, second: nn.Module, it: Seen) -> float:
    """How far the results of two models are from each other, as a part of what is computed."""
    one, two = computed(first, it.x), computed(second, it.x)
    return float((one - two).abs().max() / two.abs().max().clamp(min=1))


def state_alike(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models hold the same, bit by bit."""
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


# ---------------------------------------------------------------- applying


def _equals_zeros(name: str, seed: int, share: float, follow: bool) -> None:
    it = seen(name)
    before = snapshot(it.model)
    masks = drawn(it.layers, seed, share)
    plan = (followed if follow else columns_only)(it, masks)
    slim = plan.apply(it.model)
    assert same(before, snapshot(it.model))
    oracle = deadened(it, masks)
    layers = {n: m for n, m in slim.named_modules() if isinstance(m, ColumnConv)}
    for run in ("dense", "columns"):
        for layer in layers.values():
            layer.run = run
        assert apart(slim, oracle, it) < 1e-12
    assert apart(plan.mask(it.model), oracle, it) < 1e-12
    assert {n.rpartition(".")[0] for n in plan.columns} == layers.keys()
    state = plan.cut_state(it.model.state_dict())
    assert state.keys() == slim.state_dict().keys()
    slim.load_state_dict(state)
    assert apart(slim, oracle, it) < 1e-12


@examples(12)
@given(NAMES, SEEDS, SHARES, st.booleans())
def test_the_slim_model_is_one_with_zeros(name: str, seed: int, share: float, follow: bool) -> None:
    _equals_zeros(name, seed, share, follow)


@pytest.mark.parametrize(("name", "share"), [("resnet20", 0.3), ("vgg16", 0.4)])
def test_a_deep_slim_model_is_one_with_zeros(name: str, share: float) -> None:
    _equals_zeros(name, 1, share, True)


def test_something_changes() -> None:
    """What is compared above is not the same from the start."""
    for name in SMALL:
        it = seen(name)
        assert apart(deadened(it, drawn(it.layers, 0, 0.4)), it.model, it) > 1e-4


@pytest.mark.filterwarnings("ignore")
@examples(10)
@given(networks(), SEEDS, SHARES)
def test_a_random_network_misses_only_its_columns(recipe: Network, seed: int, share: float) -> None:
    model, x = recipe.build()
    note(str(recipe))
    try:
        anatomy = tonsor.inspect(model, x)
    except TonsorError:
        return event("it can't be followed")
    it = Seen(model, x, anatomy, find_columns(anatomy))
    masks = drawn(it.layers, seed, share)
    plan = followed(it, masks)
    event("channels follow" if plan.keep else "only columns go")
    slim = plan.apply(model, verify=False)
    assert far(outputs(deadened(it, masks), x), outputs(slim, x)) < 1e-9
    return None


@examples(6)
@given(NAMES, SEEDS)
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


@examples(8)
@given(NAMES, SEEDS, SEEDS)
def test_plans_are_merged_and_compared(name: str, one: int, two: int) -> None:
    it = seen(name)
    masks = [drawn(it.layers, seed, 0.7) for seed in (one, two)]
    first, second = (followed(it, m) for m in masks)
    assert first.merge(first).columns == first.columns
    assert not first.diff(first)
    there, back = first.diff(second), second.diff(first)
    assert (there.columns_first, there.columns_second) == (back.columns_second, back.columns_first)
    assert not there.stripes_first
    assert bool(there) == (first.cut() != second.cut())
    try:
        both = first.merge(second)
    except PlanError:
        assert "leave nothing of" in said(PlanError, lambda: second.merge(first))
        return
    other = second.merge(first)
    assert (dict(both.keep), dict(both.columns)) == (dict(other.keep), dict(other.columns))
    assert plan_from_json(plan_to_json(both)).cut() == both.cut()
    for weight in {*first.columns, *second.columns}:
        kept = [p.columns[weight].mask for p in (first, second) if weight in p.columns]
        assert (both.columns[weight].mask == functools.reduce(lambda a, b: a & b, kept)).all()
    wanted = {n: m & masks[1][n] for n, m in masks[0].items()}
    assert apart(both.apply(it.model), deadened(it, wanted), it) < 1e-12
    assert not first.diff(both).columns_first


def test_a_difference_is_told() -> None:
    it = seen("residual")
    part = columns_only(it, drawn(it.layers, 0, 0.4))
    told = str(part.diff(followed(it, whole(it))))
    stem = part.columns["stem.weight"]
    assert f"- stem.weight: {stem.size - stem.left} columns" in told.splitlines()
    assert "columns stay in 6 convolutions" in str(part)


def test_plans_of_other_columns_are_not_merged() -> None:
    it = seen("plain")
    plan = columns_only(it, drawn(it.layers, 0, 0.4))
    weight = "body.3.weight"
    wrong = replace(plan, fibres={weight: replace(plan.columns[weight], kernel=(9,))})
    assert "see other columns in 'body.3.weight'" in said(PlanError, lambda: plan.merge(wrong))


@functools.cache
def of_stripes(name: str) -> Seen:
    """The same network, ready to lose stripes."""
    it = seen(name)
    return replace(it, layers=stripe_nets.find_stripes(it.anatomy))


@examples(6)
@given(NAMES, SEEDS, SEEDS)
def test_stripes_and_columns_go_of_different_layers(name: str, one: int, two: int) -> None:
    it, other = seen(name), of_stripes(name)
    free = sorted({x.name for x in it.layers.free} & {x.name for x in other.layers.free})
    mine = {n: m for n, m in drawn(it.layers, one, 0.6).items() if n in free[::2]}
    theirs = {n: m for n, m in drawn(other.layers, two, 0.6).items() if n in free[1::2]}
    columns = followed(it, {**whole(it), **mine})
    every = {n: m | True for n, m in drawn(other.layers, 0, 1).items()}
    stripes = followed(other, {**every, **theirs})
    both = columns.merge(stripes)
    assert {**both.stripes, **both.columns} == both.fibres
    slim = both.apply(it.model)
    assert apart(slim, zeroed(both, it.model), it) < 1e-12
    assert plan_from_json(plan_to_json(both)) == both
    assert it.anatomy.cost_without((), both.fibres).params(both.amounts) == sum(
        p.numel() for p in slim.parameters()
    )
    assert both.diff(columns).stripes_second == {}
    assert not stripes.diff(both).stripes_first


def test_one_layer_holds_only_either() -> None:
    it, other = seen("plain"), of_stripes("plain")
    columns = columns_only(it, drawn(it.layers, 0, 0.6))
    stripes = followed(other, drawn(other.layers, 0, 0.6))
    told = said(PlanError, lambda: columns.merge(stripes))
    assert told.startswith("of 'body.0.weight' one plan keeps columns and the other stripes")
    assert "plan the second with keep=[...] for the layers of the first" in told
    told = said(PlanError, lambda: stripes.merge(columns))
    assert "one plan keeps stripes and the other columns" in told


# ---------------------------------------------------------------- one after the other


@functools.cache
def earlier_of(name: str, kind: str) -> tuple[Plan, Seen]:
    """A plan of channels or of blocks, and what it leaves, ready to lose columns."""
    it = seen(name)
    if kind == "blocks":
        plan = tonsor.plan_blocks(it.anatomy, remove=[tonsor.blocks(it.anatomy).removable[0].name])
    else:
        plan = tonsor.plan(it.anatomy, "pieces=70%", by="random")
    slim = plan.apply(it.model)
    anatomy = tonsor.inspect(slim, it.x)
    return plan, Seen(slim, it.x, anatomy, find_columns(anatomy))


CHAINS = [*((n, "channels") for n in SMALL), ("residual", "blocks"), ("resnet20", "blocks")]


@examples(8)
@given(st.sampled_from(CHAINS), SEEDS, SHARES)
def test_continual_pruning_is_one_plan(chain: tuple[str, str], seed: int, share: float) -> None:
    it, (earlier, left) = seen(chain[0]), earlier_of(*chain)
    masks = drawn(left.layers, seed, share)
    later = followed(left, masks)
    slim = later.apply(left.model)
    assert apart(slim, deadened(left, masks), left) < 1e-12
    total = later.rebase(earlier)
    assert state_alike(total.apply(it.model), slim)
    back = total.relative_to(earlier)
    assert (dict(back.keep), dict(back.columns)) == (dict(later.keep), dict(later.columns))
    assert (back.fingerprint, back.drops) == (later.fingerprint, later.drops)
    assert state_alike(back.apply(left.model, inputs=it.x), slim)
    assert not back.rebase(earlier).diff(total)
    assert not earlier.diff(total).only_first
    grown = total.revert(slim, it.model)
    assert state_alike(total.apply(grown, verify=False), slim)


def test_after_columns_there_is_no_way_back_to_the_original() -> None:
    it = seen("residual")
    columns = columns_only(it, drawn(it.layers, 0, 0.4))
    channels, _ = earlier_of("residual", "channels")
    told = said(PlanError, lambda: channels.rebase(columns))
    assert "the earlier plan has cut convolutions into columns" in told
    more = columns.merge(columns)
    assert "apply this plan to the original" in said(PlanError, lambda: more.relative_to(columns))
    slim = columns.apply(it.model)
    assert "use plan.rebase(earlier) first" in said(PlanError, lambda: columns.apply(slim))


# ---------------------------------------------------------------- going back, and on


@examples(6)
@given(NAMES, SEEDS)
def test_what_was_trained_goes_back_to_where_it_was(name: str, seed: int) -> None:
    it = seen(name)
    plan = followed(it, drawn(it.layers, seed, 0.4))
    slim = plan.apply(it.model, verify=False)
    moved, ones = copy.deepcopy(it.model), copy.deepcopy(it.model)
    with torch.no_grad():
        for parameter in (*slim.parameters(), *moved.parameters()):
            parameter.add_(1)
        for parameter in ones.parameters():
            parameter.fill_(1)
    back, stays = plan.revert(slim, it.model), zeroed(plan, ones)
    for n, parameter in back.named_parameters():
        here = stays.get_parameter(n).bool()
        wanted = torch.where(here, moved.get_parameter(n), it.model.get_parameter(n))
        assert torch.equal(parameter, wanted)
    assert state_alike(plan.apply(back, verify=False), slim)


OPTIMIZERS: Mapping[str, Any] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=1e-2, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True),
}


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor) -> None:
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@examples(4)
@given(NAMES, SEEDS)
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
    groups = [g["params"] for g in optimizer.param_groups]
    assert list(itertools.chain(*groups)) == list(slim.parameters())
    _step(slim, optimizer, x)
    _step(masked, other, x)
    wanted = plan.cut_state(masked.state_dict())
    for n, parameter in slim.named_parameters():
        torch.testing.assert_close(parameter.detach(), wanted[n])


def test_what_an_average_holds_is_cut_like_the_model() -> None:
    it = seen("residual")
    plan = columns_only(it, drawn(it.layers, 0, 0.4))
    averaged = torch.optim.swa_utils.AveragedModel(it.model)
    state = plan.cut_state({
        n: t for n, t in averaged.state_dict().items() if n.startswith("module.")
    })  # fmt: skip
    slim = plan.apply(it.model)
    assert state.keys() == {f"module.{n}" for n in slim.state_dict()}
    for n, tensor in slim.state_dict().items():
        assert torch.equal(state[f"module.{n}"], tensor)


def test_a_layer_that_was_planned_on_another_model_is_refused() -> None:
    it = looked_at(NETS["plain"][0](), seen("plain").x)
    plan = columns_only(it, drawn(it.layers, 0, 0.4))
    assert "has no such tensor" in said(PlanError, lambda: plan.apply(seen("residual").model))
