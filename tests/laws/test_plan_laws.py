"""The laws of plans: they can be merged, chained, compared and undone, and say what they do."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import event, given, note, reject
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tonsor.errors import BudgetError, PlanError
from tonsor.plans import Plan
from tonsor.select.budget import Budget

from .checks import apart, outputs, same, snapshot, tensors
from .networks import Network, examples, networks

pytestmark = pytest.mark.filterwarnings("ignore")


def cut(model: nn.Module, x: Tensor, share: float, seed: int) -> tuple[nn.Module, Plan]:
    """Cut at random, to about this share of what may go; the plan is a proven one."""
    wanted: dict[str, Any] = {"by": "random", "seed": seed, "head_dims": True}
    asked = least = share
    while True:
        try:
            slim, report = tonsor.prune(model, x, budget=Budget("params", kept=asked), **wanted)
        except BudgetError as error:
            least = error.minimum or 1.0
            asked = min(1.0, max(asked, least) + (1 - least) * share)
        else:
            return slim, report.plan


SHARES = st.sampled_from((0.3, 0.5, 0.7, 0.9))


def state(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, also those that are not saved."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def equal(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models hold the same tensors, bit by bit."""
    one, two = state(first), state(second)
    return one.keys() == two.keys() and all(torch.equal(one[n], two[n]) for n in one)


def select(tensor: Tensor, kept: Sequence[Sequence[int] | None] | None) -> Tensor:
    """Take the kept indices of every dimension."""
    for dim, indices in enumerate(kept or ()):
        if indices is not None:
            tensor = tensor.index_select(dim, torch.tensor(indices))
    return tensor


# ---------------------------------------------------------------- applying


@examples(10)
@given(networks(), SHARES)
def test_applying_is_repeatable_and_leaves_the_model_alone(recipe: Network, share: float) -> None:
    model, x = recipe.build()
    note(str(recipe))
    before = snapshot(model)
    _, plan = cut(model, x, share, recipe.seed)
    first, second = plan.apply(model), plan.apply(model, verify=False)
    assert same(before, snapshot(model))
    assert same_but_for_identity(snapshot(first), snapshot(second))
    kept = plan.cut().keep
    for name, tensor in state(model).items():
        assert torch.equal(state(first)[name], select(tensor, kept.get(name)))
    masked = plan.mask(model)
    assert same(before, snapshot(model))
    assert {n: t.shape for n, t in state(masked).items()} == {
        n: t.shape for n, t in state(model).items()
    }
    saved = plan.cut_state(model.state_dict())
    first.load_state_dict(saved)
    assert equal(first, second)


def same_but_for_identity(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Two copies are alike, though their tensors are not the same objects."""

    def without(held: dict[str, Any]) -> dict[str, Any]:
        return {k: v if k.endswith(":") else (v[0], v[1], 0, v[3]) for k, v in held.items()}

    return same(without(first), without(second))


# ---------------------------------------------------------------- combining


@examples(10)
@given(networks(), SHARES, SHARES)
def test_plans_are_merged_and_compared(recipe: Network, one: float, two: float) -> None:
    """Merging is commutative and idempotent; plans differ if and only if they keep other things."""
    model, x = recipe.build()
    note(str(recipe))
    (_, first), (_, second) = cut(model, x, one, 1), cut(model, x, two, 2)
    assert not first.diff(first)
    assert bool(first.diff(second)) == (dict(first.keep) != dict(second.keep))
    there, back = first.diff(second), second.diff(first)
    assert (there.only_first, there.only_second) == (back.only_second, back.only_first)

    assert first.merge(first).keep == first.keep
    assert first.merge(first).cut() == first.cut()
    try:
        both = first.merge(second)
    except PlanError:
        event("the plans leave nothing of a group, or break a tie")
        with pytest.raises(PlanError):
            second.merge(first)
        return
    assert dict(both.keep) == dict(second.merge(first).keep)
    assert both.cut() == second.merge(first).cut()
    assert both.merge(first).keep == both.keep
    for name in first.keep.keys() | second.keep.keys():
        every = range(both.sizes[name])
        left = set(first.keep.get(name, every)) & set(second.keep.get(name, every))
        assert set(both.keep[name]) == left
    both.apply(model)  # the proof holds
    event("merged")


@examples(10)
@given(networks(), SHARES, SHARES)
def test_a_later_plan_can_be_told_in_terms_of_the_original(
    recipe: Network, one: float, two: float
) -> None:
    model, x = recipe.build()
    note(str(recipe))
    slim, earlier = cut(model, x, one, 1)
    slimmer, later = cut(slim, x, two, 2)

    total = later.rebase(earlier)
    at_once = total.apply(model)
    assert equal(at_once, slimmer)
    assert apart(outputs(slimmer, x), outputs(at_once, x)) == 0

    again = total.relative_to(earlier)
    assert equal(again.apply(slim, verify=False), slimmer)
    assert total.relative_to(total).keep == {}
    assert again.rebase(earlier).keep == total.keep
    event("cut twice" if earlier.keep and later.keep else "cut once at most")


# ---------------------------------------------------------------- undoing


@examples(10)
@given(networks(), SHARES)
def test_reverting_brings_the_trained_weights_back_to_their_places(
    recipe: Network, share: float
) -> None:
    model, x = recipe.build()
    note(str(recipe))
    slim, plan = cut(model, x, share, 1)
    assert equal(plan.revert(slim, model), model)
    assert apart(outputs(plan.revert(slim, model), x), outputs(model, x)) == 0
    with torch.no_grad():
        for parameter in slim.parameters():
            parameter.add_(1)
    whole = plan.revert(slim, model)
    kept = plan.cut().keep
    small, old = state(slim), state(model)
    for name, tensor in state(whole).items():
        assert tensor.shape == old[name].shape
        assert torch.equal(select(tensor, kept.get(name)), small[name])
        changed = select(torch.ones_like(tensor), kept.get(name)).numel()
        if not torch.equal(small[name], select(old[name], kept.get(name))):
            assert (tensor != old[name]).sum() <= changed


# ---------------------------------------------------------------- optimizers


@examples(10)
@given(networks(), SHARES, st.sampled_from(("adam", "sgd", "adamw", "rmsprop")))
def test_an_optimizer_goes_on_where_it_was(recipe: Network, share: float, kind: str) -> None:
    model, x = recipe.build()
    note(str(recipe))
    slim, plan = cut(model, x, share, 1)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer = {
        "adam": lambda: torch.optim.Adam(trained, lr=1e-3),
        "adamw": lambda: torch.optim.AdamW(trained[::-1], lr=1e-3, amsgrad=True),
        "sgd": lambda: torch.optim.SGD(trained, lr=1e-3, momentum=0.9),
        "rmsprop": lambda: torch.optim.RMSprop(trained, lr=1e-4, momentum=0.9, centered=True),
    }[kind]()
    if not step(model, x, optimizer):
        reject()
    slim = plan.apply(model, verify=False)  # of the trained model
    names = {id(p): n for n, p in model.named_parameters()}
    order = [[names[id(p)] for p in g["params"]] for g in optimizer.param_groups]
    held = {names[id(p)]: copy.deepcopy(s) for p, s in optimizer.state.items()}
    plan.apply_to(optimizer, model, slim)

    kept, small = plan.cut().keep, dict(slim.named_parameters())
    assert [[id(small[n]) for n in group] for group in order] == [
        [id(p) for p in g["params"]] for g in optimizer.param_groups
    ]
    assert len(optimizer.state) == len(held)
    for name, entries in held.items():
        now = optimizer.state[small[name]]
        assert now.keys() == entries.keys()
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.dim():
                assert torch.equal(now[key], select(value, kept.get(name))), (name, key)
            else:
                assert now[key] == value
    step(slim, x, optimizer)
    assert all(p.isfinite().all() for p in slim.parameters())


def step(model: nn.Module, x: Tensor, optimizer: torch.optim.Optimizer) -> bool:
    """Train one step; return whether there was anything to train."""
    model.eval()  # so that running statistics stay as they are
    optimizer.zero_grad()
    loss = sum(((t - 1).tanh() ** 2).mean() for t in tensors(model(x)))
    assert isinstance(loss, Tensor)
    if loss.requires_grad:
        loss.backward()
        optimizer.step()
    return loss.requires_grad
