"""The laws of pruning, on random networks: the slim model is the masked one, or there is none.

Whatever a network is made of, pruning either returns a slim model that computes what the
original computes with the cut slices set to zero, or says cleanly that it can't. The check is
done here once more in plain torch, wherever the masked original alone is the reference: where
no operator takes statistics over, or multiplies activations along, what was cut.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import event, given, note
from hypothesis import strategies as st
from torch import Tensor, nn

import tonsor
from tonsor.anatomy import Anatomy
from tonsor.api import Report
from tonsor.errors import BudgetError
from tonsor.plans import Plan
from tonsor.select.budget import Budget
from tonsor.types import leaves

from .axes import permuted
from .checks import TOLERANCE, apart, outputs, same, snapshot, train_one_step
from .networks import Network, examples, networks

pytestmark = pytest.mark.filterwarnings("ignore")


@st.composite
def options(draw: st.DrawFn) -> dict:
    """What a person might ask for."""
    target = draw(st.sampled_from(("macs", "params")))
    return {
        "budget": f"{target}={draw(st.integers(30, 90))}%",
        "by": draw(st.sampled_from(("l2", "l1", "random"))),
        "rank": draw(st.sampled_from(("global", "per_group", "normalised"))),
        "round_to": draw(st.sampled_from((1, 2, 4))),
        "floor": draw(st.sampled_from((0.1, 1, 2))),
        "head_dims": draw(st.booleans()),
    }


def mixes_what_was_cut(anatomy: Anatomy, plan: Plan) -> bool:
    """Whether some operator runs along an axis that lost indices, so that zero won't do."""
    touched = {leaf.name for mix in anatomy.solution.mixes for a in mix.axes for leaf in leaves(a)}
    return bool(touched & plan.keep.keys())


def pruned(
    model: nn.Module, x: Tensor, *, budget: str, **wanted: Any
) -> tuple[nn.Module, Report] | None:
    """Prune; where the budget is out of reach, ask for the least that the error says can be had."""
    asked: str | Budget = budget
    least = 0.0
    while True:
        try:
            return tonsor.prune(model, x, budget=asked, **wanted)
        except BudgetError as error:
            minimum = error.minimum
        assert minimum is not None
        assert minimum > least  # a group may only turn out to be pinned when it is cut
        if minimum >= 1:
            return None
        least = minimum
        asked = Budget(budget.partition("=")[0], kept=least)


@examples(100)
@given(networks(), options())
def test_a_network_is_cut_rightly_or_not_at_all(recipe: Network, wanted: dict) -> None:
    model, x = recipe.build()
    note(f"{recipe}\n{wanted}")
    before = snapshot(model)
    found = pruned(model, x, seed=recipe.seed, **wanted)
    if found is None:
        event("nothing can be cut")
        assert same(before, snapshot(model))
        return
    slim, report = found
    assert same(before, snapshot(model))
    assert report.proof is not None
    plan, anatomy = report.plan, report.anatomy
    event("cut" if plan.keep else "nothing was cut")

    if not mixes_what_was_cut(anatomy, plan):
        event("compared with the masked model in plain torch")
        assert apart(outputs(plan.mask(model), x), outputs(slim, x)) <= TOLERANCE

    counted = tonsor.inspect(slim, x).cost
    assert counted.params() == sum(p.numel() for p in slim.parameters())
    assert (counted.macs(), counted.params()) == (report.macs[1], report.params[1])

    again = plan.apply(model, verify=False)
    again.load_state_dict(slim.state_dict())
    assert apart(outputs(again, x), outputs(slim, x)) == 0

    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    assert {name: p.requires_grad for name, p in slim.named_parameters()} == flags
    assert [m.training for m in slim.modules()] == [m.training for m in model.modules()]
    train_one_step(slim, x)
    assert same(before, snapshot(model))


@examples(30)
@given(networks(), st.data())
def test_permuting_the_indices_of_a_group_changes_nothing(
    recipe: Network, data: st.DataObject
) -> None:
    """The indices of a group are alike: in another order, everywhere, they do the same.

    This needs no cut and no mask, so it also holds where statistics run over the group.
    """
    model, x = recipe.build()
    note(str(recipe))
    anatomy = tonsor.inspect(model, x, head_dims=True)
    ordered = {leaf.name for m in anatomy.solution.mixes if m.what == "cumsum"
               for a in m.axes for leaf in leaves(a)}  # fmt: skip
    free = [g for g in anatomy.prunable if g.name not in ordered]
    if not free:
        event("nothing is free")
        return
    group = data.draw(st.sampled_from(free))
    order = data.draw(st.permutations(range(group.size)))
    expected = outputs(model, x)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for member in group.members:
            index = torch.tensor(permuted(member.axis, group.name, order))
            if member.tensor in tensors:  # tied tensors have one name only
                tensor = tensors[member.tensor]
                tensor.copy_(tensor.index_select(member.dim, index))
    assert apart(expected, outputs(model, x)) <= TOLERANCE
